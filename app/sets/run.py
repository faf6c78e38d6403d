"""A set on its way through the page's line: each batch is a request of its own, so that others come in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from app.sets.handlers import Begun, Screen, SetHandlers
from app.ui.caller import Caller
from app.ui.running import FromShown, Waiting, entered, let_in


class SetCourse(FromShown[Screen]):
    """The screens of a set, `shown` among its values; what was answered is on the last one, whatever ended it."""

    def steps(self, caller: Caller) -> AsyncIterator[Waiting | Screen]:
        return answered(self.handlers, caller, **self.values)

    def waiting(self, words: str, latest: Screen | None) -> Screen:
        return self.handlers.waiting(words, latest)


def set_screens(handlers: SetHandlers, caller: Caller, **values: object) -> AsyncIterator[Screen]:
    """The screens of a set, from the first second on."""
    return SetCourse(handlers, values).screens(caller)


async def answered(handlers: SetHandlers, caller: Caller, **values: object) -> AsyncIterator[Waiting | Screen]:
    """The set as far as it is answered, after each batch and in the end, and why it waits.

    One ticket for all batches: it may be refused before the first of them has run. Later ones wait, however long the line is meanwhile.
    """
    begun: Begun | None = None
    with entered(handlers, caller, goes_on=True) as ticket:
        reading = let_in(handlers, ticket, caller, lambda: None, partial(handlers.begin, **values))
        async with aclosing(reading) as steps:
            async for step in steps:
                if isinstance(step, Waiting):
                    yield step
                else:
                    begun = step
        yield (screen := begun.screen)
        for batch in begun.batches:
            await caller.check()  # a batch that is answered at once does not look itself
            work, answer = partial(handlers.work, screen.progress, batch), partial(handlers.answer, screen.progress, batch)
            async with aclosing(let_in(handlers, ticket, caller, work, answer)) as steps:
                async for step in steps:
                    screen = screen if isinstance(step, Waiting) else step
                    yield step
    yield await asyncio.to_thread(handlers.ended, screen)
