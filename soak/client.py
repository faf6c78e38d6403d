"""A visitor's program: Gradio's API over HTTP, without a client library, so that hundreds cost little beside the app itself."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from soak.stream import Lines


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    Attributes:
        value: What the endpoint returned; None where it refused or nothing came.
        words: The sentence that was shown instead.
        seconds: From the request to its end.
        answered: Whether an end came at all: an answer or a sentence.
    """

    value: dict | None
    words: str
    seconds: float
    answered: bool


async def call(client: httpx.AsyncClient, endpoint: str, arguments: dict, most_seconds: float) -> Reply:
    """Ask an endpoint of the page, and wait for its end but no longer than so many seconds.

    Args:
        client: Has the address of the page as its base URL.
        endpoint: Such as "compare".
        arguments: By name.
    """
    started = time.monotonic()

    def reply(value: dict | None, words: str, answered: bool = True) -> Reply:
        return Reply(value, words, time.monotonic() - started, answered)

    try:
        posted = await client.post(f"/gradio_api/call/v2/{endpoint}", json=arguments, timeout=most_seconds)
        if posted.status_code != 200:
            return reply(None, posted.text)
        path = f"/gradio_api/call/{endpoint}/{posted.json()['event_id']}"
        async with client.stream("GET", path, timeout=most_seconds) as stream:
            async for event, data in _events(stream):
                if event == "complete":
                    return reply(data[0], "")
                if event == "error":
                    return reply(None, json.dumps(data))
    except httpx.HTTPError as error:
        return reply(None, f"{type(error).__name__}: {error}", answered=False)
    return reply(None, "The stream ended without an end of the request.", answered=False)


async def _events(stream: httpx.Response) -> AsyncIterator[tuple[str, object]]:
    event, lines = "", Lines()
    async for text in stream.aiter_text():
        for line in lines.of(text):
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield event, json.loads(line.removeprefix("data: "))
