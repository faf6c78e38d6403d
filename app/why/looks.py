"""What looks into the run on a visitor's screen, and ends with it: a look at one run must not fill the place below the next one."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from weakref import WeakSet

from app.ui.caller import Caller, Callers
from app.ui.frame import ModelHandlers, S, screens


class Looks:
    """The looks that go on, of all visitors."""

    def __init__(self):
        self._going_on = Callers()
        self._over: WeakSet[Caller] = WeakSet()

    async def screens(self, handlers: ModelHandlers[S], caller: Caller, **values: object) -> AsyncIterator[S]:
        """As `frame.screens`, of a look that shows nothing more once its run has left the screen."""
        with self._going_on.watching(caller):
            async with aclosing(screens(handlers, caller, **values)) as running:
                async for screen in running:
                    if caller in self._over:
                        return  # closing `running` ends the request
                    yield screen

    def end(self, session: str | None) -> None:
        """The run on the screen of this session is another now: what looks into the one before frees the model, and shows nothing more."""
        self._over.update(self._going_on.stop(session))
