"""A set on its way through the page's line: each batch is a request of its own, so that others come in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from app.sets.handlers import Begun, Screen, SetHandlers
from app.ui.caller import Caller
from app.ui.running import Waiting, admitted, until_over


async def set_screens(handlers: SetHandlers, caller: Caller, **values: object) -> AsyncIterator[Screen]:
    """The screens of a set, from the first second on. What Stop left or an error is the last one, and what was answered is on it."""
    over = until_over(shown(handlers, caller, **values), handlers.finish, handlers.failed)
    async with aclosing(over):
        async for screen in over:
            yield screen


async def shown(handlers: SetHandlers, caller: Caller, **values: object) -> AsyncIterator[Screen]:
    """The screens of a set that nothing ends."""
    latest = None
    if handlers.loading.ready:
        yield (latest := handlers.announce(**values))
    async with aclosing(answered(handlers, caller, **values)) as steps:
        async for step in steps:
            yield (latest := handlers.waiting(step.words, latest) if isinstance(step, Waiting) else step)
    yield await asyncio.to_thread(handlers.ended, latest)


async def answered(handlers: SetHandlers, caller: Caller, **values: object) -> AsyncIterator[Waiting | Screen]:
    """The set as far as it is answered, after each batch, and why it waits."""
    begun: Begun | None = None
    reading = admitted(handlers, caller, lambda: None, partial(handlers.begin, **values))
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
        async with aclosing(admitted(handlers, caller, work, answer)) as steps:
            async for step in steps:
                screen = screen if isinstance(step, Waiting) else step
                yield step
