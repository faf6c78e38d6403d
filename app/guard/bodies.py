"""The body of a request, read within limits before Gradio sees it: bytes, seconds, and how much JSON it holds."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# A text in JSON. It matches to the end where the closing quote is missing, so it never fails, and never looks at a byte twice.
TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
STRUCTURE = re.compile(rb"[\[\]{}]")


class RefusedError(Exception):
    """A request that goes no further: the status of the answer, and a sentence."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


class LeftError(Exception):
    """Nobody waits for the answer any more."""


async def read(receive: Receive, headers: MutableMapping[str, str], limits: Limits) -> bytes:
    """The whole body.

    Raises:
        RefusedError: It is or says that it is too large, too slow, no JSON text, or JSON with too much in it.
        LeftError: The visitor left in the middle.
    """
    if headers.get("content-type", "").startswith("multipart/"):
        raise RefusedError(415, "This page takes no files; send JSON.")
    said = headers.get("content-length", "0")
    if not said.isdigit() or len(said) > 18 or int(said) > limits.body_bytes:
        raise too_large(limits)
    try:
        async with asyncio.timeout(limits.seconds_body):
            body = await collected(receive, limits)
    except TimeoutError as error:
        words = f"The request was not complete after {limits.seconds_body} seconds; send it in one go."
        raise RefusedError(408, words) from error
    check(body, limits)
    return body


async def collected(receive: Receive, limits: Limits) -> bytes:
    """The pieces of a body as they come; no more than `body_bytes` are kept at any time."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise LeftError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limits.body_bytes:
            raise too_large(limits)
    return bytes(body)


def too_large(limits: Limits) -> RefusedError:
    """The refusal of a body that is too large."""
    return RefusedError(413, f"The request is larger than {limits.body_bytes:,} bytes, which is the most that this page reads.")


def check(body: bytes, limits: Limits) -> None:
    """RefusedError where making Python values of this JSON would take more than the limits allow. Whether it is JSON, Gradio finds."""
    if b"\0" in body:  # so it is not UTF-8, which alone the following understands
        raise RefusedError(400, "The request is not JSON in UTF-8.")
    bare = TEXT.sub(b'""', body)
    values = sum(map(bare.count, (b",", b"[", b"{", b":")))
    if values > limits.body_values:
        raise RefusedError(
            413, f"The request holds more than {limits.body_values:,} values, which is the most that this page reads."
        )
    level = 0
    for found in STRUCTURE.finditer(bare):
        level += 1 if found[0] in b"[{" else -1
        if level > limits.body_levels:
            raise RefusedError(413, f"The request has more than {limits.body_levels} levels of lists and objects.")
