"""Who asks, and whether they are still there: for every way in which Gradio calls a function of ours.

Gradio stops a generator between two of its values where its client has gone; a function that returns once it lets run to its end, and a
request over HTTP past its queue too. So whoever runs for long looks here. What Gradio knows of the call stands in its LocalContext.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gradio.blocks import Blocks
from gradio.context import LocalContext
from gradio.route_utils import Request
from starlette.requests import Request as HttpRequest

from app.guard.address import Network, address_of, by_name


class Gone(Exception):
    """Whoever asked is not there any more; nobody reads what this raises or returns."""


class Stopped(Exception):
    """Whoever asked pressed Stop, and reads what came so far."""


def current_session() -> str | None:
    """Gradio's name for the open page whose event is being answered; None for programs, and where no event is."""
    request = LocalContext.request.get()
    return request.session_hash if isinstance(request, Request) else None


@dataclass(eq=False)
class Caller:
    """Who called the function that runs now.

    `visitor`: as app/guard/address.py tells visitors apart. `event_id`: of an event in Gradio's queue; None for a request over HTTP,
    which is then `request`. `session`: Gradio's name for the open page that asks; None for programs. `stopped`: whether Stop was pressed.
    """

    visitor: str
    event_id: str | None
    request: HttpRequest
    blocks: Blocks
    session: str | None = None
    stopped: bool = False

    @classmethod
    def current(cls, proxies: Sequence[Network]) -> "Caller":
        """Of the function of ours that Gradio is calling; to be asked before its first await.

        Args:
            proxies: Whose word is taken for where a request comes from.
        """
        request = LocalContext.request.get()
        http = request.request if isinstance(request, Request) else request
        visitor = address_of(by_name(http.headers.raw), http.client.host if http.client else "", proxies)
        return cls(visitor, LocalContext.event_id.get(), http, LocalContext.blocks.get(), current_session())

    async def is_gone(self) -> bool:
        """Whether the connection is closed on which the answer would be sent."""
        if self.event_id is None:
            return await self.request.is_disconnected()
        event = self.blocks._queue.event_ids_to_events.get(self.event_id)
        return event is None or not event.alive

    async def check(self) -> None:
        """Raise Gone where they are gone, Stopped where they pressed Stop."""
        if self.stopped:
            raise Stopped
        if await self.is_gone():
            raise Gone


class Callers:
    """Whose requests go on at one place, to be stopped for all that a session has there."""

    def __init__(self):
        self._here: set[Caller] = set()

    @contextmanager
    def watching(self, caller: Caller) -> Iterator[None]:
        """Meanwhile this request goes on."""
        self._here.add(caller)
        try:
            yield
        finally:
            self._here.discard(caller)

    def stop(self, session: str | None) -> list[Caller]:
        """Stop what goes on in this session; returns whose requests those are."""
        own = [caller for caller in tuple(self._here) if caller.session == session]
        for caller in own:
            caller.stopped = True
        return own
