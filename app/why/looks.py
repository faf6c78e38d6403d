"""What looks into the run on a visitor's screen, and ends with it: a look at one run must not fill the place below the next one."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from app.ui.caller import Caller
from app.ui.frame import ModelHandlers, S, screens


class Looks:
    """The looks that go on, of all visitors."""

    def __init__(self):
        self._going_on: set[Caller] = set()
        self._over: set[Caller] = set()

    async def screens(self, handlers: ModelHandlers[S], caller: Caller, **values: object) -> AsyncIterator[S]:
        """As `frame.screens`, of a look that shows nothing more once its run has left the screen."""
        self._going_on.add(caller)
        try:
            async with aclosing(screens(handlers, caller, **values)) as running:
                async for screen in running:
                    if caller in self._over:
                        return  # closing `running` ends the request
                    yield screen
        finally:
            self._going_on.discard(caller)
            self._over.discard(caller)

    def end(self, session: str | None) -> None:
        """The run on the screen of this session is another now: what looks into the one before frees the model, and shows nothing more."""
        for caller in [one for one in self._going_on if one.session == session]:
            caller.stopped = True
            self._over.add(caller)
