"""Connections on which no request comes: uvicorn keeps them for ever, and each takes one of the process's files until none can open.

So the head of a request has to arrive within some seconds, and of one address only so many connections may be without one. What follows
a head is the guard's own (layer.py); what stays open after an answer uvicorn closes itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from uvicorn import Config

from app.guard.address import Network, is_proxy

HEAD_SECONDS = 10.0


def bound_heads(config: Config, most: int, proxies: Sequence[Network], seconds: float = HEAD_SECONDS) -> None:
    """Bound what a server accepts from now on.

    Args:
        config: Of the server, which makes a protocol for each connection as this says.
        most: Connections of one address without a request.
        proxies: Addresses that bring many visitors, to which that does not apply.
        seconds: In which a head has to arrive.
    """
    config.http_protocol_class = partial(_bounded(config.http_protocol_class), most, proxies, seconds)


def _bounded(protocol: type[asyncio.Protocol]) -> Callable[..., asyncio.Protocol]:
    """uvicorn's protocol, whichever it has chosen, that ends connections without a request."""

    class Bounded(protocol):
        def __init__(self, most: int, proxies: Sequence[Network], seconds: float, *arguments, **named):
            super().__init__(*arguments, **named)
            self.most, self.proxies, self.seconds = most, proxies, seconds
            self.end: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.watch()
            host = self.client[0] if self.client else ""
            # Who connected before this was set up, as pages do that wait for one that follows, has a plain protocol.
            bounded = [other for other in self.connections if isinstance(other, Bounded)]
            others = [other for other in bounded if other.end is not None and (other.client or ("",))[0] == host]
            if len(others) > self.most and not is_proxy(host, self.proxies):
                transport.close()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.forget()

        def watch(self) -> None:
            """Let the seconds run while no request is here. More bytes of a head do not begin them anew."""
            if self.cycle is not None and not self.cycle.response_complete:
                self.forget()
            elif self.end is None:
                self.end = asyncio.get_running_loop().call_later(self.seconds, self.transport.close)

        def forget(self) -> None:
            if self.end is not None:
                self.end.cancel()
                self.end = None

    return Bounded
