"""The layer itself: every request passes it before Gradio does. Knows no gradio: an ASGI application around an ASGI application."""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from app.guard.address import FORWARDED, Network, by_name, home_of, sender_of
from app.guard.answers import Send, Shortening
from app.guard.bodies import LeftError, Message, Receive, RefusedError, read
from app.guard.routes import WORK, Routes
from app.limits import Limits

Scope = dict[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

LINGER_SECONDS, LINGER_BYTES = (
    2.0,
    20_000_000,
)  # for the rest of a refused body: a client that still sends would not read the answer


# What gradio_client's `construct_args` raises, which Gradio lets pass.
CALLS = {
    re.compile(r"Parameter `(.*)` is not a valid key-word argument", re.DOTALL): "This endpoint has no argument {}",
    re.compile(r"No value provided for required argument: (.*)", re.DOTALL): "The argument {} is missing",
}


class Doorkeeper:
    """What the layer counts, for whoever starts and ends the app. Changed in the thread of the server only.

    Attributes:
        ending: No new request is let in.
        working: How many requests are open that run the model or wait for it.
    """

    def __init__(self, limits: Limits, proxies: Sequence[Network] = (), *, mcp: bool = False):
        self.limits, self.proxies, self.routes = limits, proxies, Routes(mcp=mcp)
        self.ending = False
        self.working = 0
        self.open: Counter[str] = Counter()  # requests by address

    def refuse(self, scope: Scope) -> None:
        """RefusedError where a request is closed, or everything is about to be."""
        methods = self.routes.methods(scope["path"])
        if not methods:
            raise RefusedError(404, "There is nothing here.")
        if scope["method"] not in methods:
            raise RefusedError(405, f"Only {' and '.join(methods)} can be sent here.")
        if self.ending and not (scope["method"] == "GET" and WORK.fullmatch(scope["path"])):  # whose answer is on its way
            raise RefusedError(503, "The page is being stopped; try again in a minute.")

    @contextmanager
    def counted(self, path: str, address: str) -> Iterator[None]:
        """A request while it is open; RefusedError where its address has too many of them."""
        if self.open[address] >= self.limits.connections:
            words = (
                f"Your address has {self.limits.connections} requests open here already; close some pages or wait for answers."
            )
            raise RefusedError(429, words)
        works = WORK.fullmatch(path) is not None
        self.open[address] += 1
        self.working += works
        try:
            yield
        finally:
            self.working -= works
            self.open[address] -= 1
            if not self.open[address]:
                del self.open[address]


class Guard:
    """ASGI application: `app` behind a `Doorkeeper`. Streams pass as they come; only bodies of requests are read first."""

    def __init__(self, app: Application, keeper: Doorkeeper):
        self.app, self.keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            incoming, outgoing = Incoming(receive), Shortening(send)
            try:
                await self.passed(scope, incoming, outgoing)
            except RefusedError as refused:
                await answer(refused, incoming, send)
            except LeftError:
                return  # nobody is there to answer
            except Exception as error:
                if (refused := refused_call(error)) is None:
                    log.exception("a request failed inside Gradio")
                    refused = RefusedError(500, "This request failed; the log of the app has the details.")
                if not outgoing.started:
                    await answer(refused, incoming, send)

    async def passed(self, scope: Scope, receive: "Incoming", send: Shortening) -> None:
        """A request that may reach the app."""
        headers = by_name(scope["headers"])
        self.keeper.refuse(scope)
        client = scope.get("client")
        sender = sender_of(headers, client[0] if client else "", self.keeper.proxies)
        if self.keeper.routes.is_for_agents(scope["path"]):
            # Gradio asks itself over HTTP what an agent asks, with the agent's headers: there the sender must still be seen.
            others = [(name, value) for name, value in scope["headers"] if name.lower() != FORWARDED.encode()]
            scope = {**scope, "headers": [*others, (FORWARDED.encode(), sender.encode())]}
        with self.keeper.counted(scope["path"], home_of(sender)):
            if scope["method"] == "POST":
                receive.again = await read(receive, headers, self.keeper.limits)
            if (scope["method"], scope["path"]) == ("HEAD", "/"):
                # Gradio's launch fails where this takes three seconds, and on a busy machine the page takes as long to be made.
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8")]}
                )
                await send({"type": "http.response.body", "body": b""})
            else:
                await self.app(scope, receive, send)


class Incoming:
    """An ASGI `receive` that knows whether the body is over, and gives one that was read `again` before what comes next."""

    def __init__(self, receive: Receive):
        self.receive = receive
        self.over = False
        self.again: bytes | None = None

    async def __call__(self) -> Message:
        """The next message of the request."""
        if self.again is not None:
            body, self.again = self.again, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self.receive()
        self.over = not message.get("more_body", False)
        return message


def refused_call(error: Exception) -> RefusedError | None:
    """The refusal of a call whose arguments, given by name, are not those of the endpoint; None for any other error."""
    for pattern, words in CALLS.items():
        if isinstance(error, TypeError) and (found := pattern.match(str(error))):
            return RefusedError(422, f"{words.format(repr(found[1][:100]))}; the arguments of each endpoint are in docs/api.md.")
    return None


async def answer(refused: RefusedError, incoming: Incoming, send: Send) -> None:
    """The refusal as JSON under the names that Gradio's clients look for, and the end of the connection."""
    body = json.dumps({"detail": str(refused), "error": str(refused)}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            left = LINGER_BYTES
            while left > 0 and not incoming.over:
                left -= len((await incoming()).get("body", b""))
    await send({"type": "http.response.body", "body": b""})
