"""Answers that tell of an error, cut where they repeat what was sent: Gradio's own errors quote whole values, of any size."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from app.guard.bodies import Message

Send = Callable[[Message], Awaitable[None]]

# Where the server ends under a stream, Gradio sends the text of the cancellation: the task of asyncio, with paths of this machine.
TASK = b"coro=<"
STOPPED = "The page was stopped before this answer was complete; ask again in a minute."

LONGEST = 1000  # characters; a shorter answer stays as it is
LONGEST_TEXT, LONGEST_LIST, DEEPEST = 300, 5, 4  # of a longer one
MOST_READ = 2_000_000  # bytes of an error that are looked at: Gradio echoes what was sent, and that is bounded


def cut(value: Any, level: int = 0) -> Any:
    """JSON with short texts, short lists and few levels."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}..."
    if level == DEEPEST and isinstance(value, list | dict):
        return "..."
    if isinstance(value, list):
        return [cut(each, level + 1) for each in value[:LONGEST_LIST]]
    if isinstance(value, dict):
        return {key[:LONGEST_TEXT]: cut(each, level + 1) for key, each in list(value.items())[: 4 * LONGEST_LIST]}
    return value


def cut_text(body: bytes) -> bytes:
    """The body of an answer whose status is an error."""
    if len(body) <= LONGEST:
        return body
    try:
        return json.dumps(cut(json.loads(body))).encode()
    except ValueError:
        return body[:LONGEST_TEXT] + b"..."


def cut_event(event: bytes) -> bytes:
    """A server-sent event of Gradio's queue; only one that tells of an error becomes another."""
    if TASK in event and event.startswith(b"event: error"):
        return b"event: error\ndata: " + json.dumps(STOPPED).encode() + b"\n\n"
    if TASK in event and b'"msg":"unexpected_error"' in event:
        return b"data: " + json.dumps(json.loads(event[len(b"data: ") :]) | {"message": STOPPED}).encode() + b"\n\n"
    if len(event) <= LONGEST or not (event.startswith(b"event: error") or b'"success":false' in event):
        return event
    head, mark, data = event.partition(b"data: ")
    try:
        told = json.loads(data)
    except ValueError:
        return event
    failed = head or (isinstance(told, dict) and told.get("success") is False)
    return head + mark + json.dumps(cut(told)).encode() + b"\n\n" if failed else event


class Shortening:
    """An ASGI `send` that passes answers on, errors cut. `started`: something was sent."""

    def __init__(self, send: Send):
        self.send = send
        self.started = False
        self.start: Message | None = None  # of an error, held back until its body is known
        self.body = bytearray()
        self.events = False

    async def __call__(self, message: Message) -> None:
        """One message of the answer."""
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            self.events = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            if message["status"] >= 400 and not self.events:
                self.start = message
                return
        elif self.start is not None:
            self.body += message.get("body", b"")[: MOST_READ - len(self.body)]
            if message.get("more_body", False):
                return
            await self.finish(self.start)
            return
        elif self.events and message["type"] == "http.response.body":
            message = {**message, "body": cut_event(message.get("body", b""))}
        self.started = True
        await self.send(message)

    async def finish(self, start: Message) -> None:
        """The answer of an error, at once."""
        body = cut_text(bytes(self.body))
        if len(body) != len(self.body):
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            start = {**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]}
        self.started = True
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})
