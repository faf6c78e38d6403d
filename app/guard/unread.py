"""Answers that nobody fetches: Gradio keeps those of 2,000 sessions, of any size, for ever. Here they are forgotten after a while."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gradio.queueing import Queue
from gradio.routes import App

UNREAD_SECONDS = 120.0  # a page and gradio_client read at once; a person with curl needs a moment to copy the event's id
SWEEP_SECONDS = 5.0  # between two looks


class Unread:
    """The sessions whose messages lie unread, and since when."""

    def __init__(self, queue: Queue):
        self.queue = queue
        self.since: dict[str, float] = {}

    async def sweep(self, now: float) -> None:
        """Forget what was unread at every look for UNREAD_SECONDS, and the requests that would write more of it.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        messages = self.queue.pending_messages_per_session
        unread = {session for session, waiting in messages.items() if waiting.qsize()}
        self.since = {session: self.since.get(session, now) for session in unread}
        for session in [session for session, since in self.since.items() if now - since > UNREAD_SECONDS]:
            await self.queue.clean_events(session_hash=session)
            messages.pop(session, None)
            self.queue.pending_event_ids_session.pop(session, None)


@asynccontextmanager
async def forgetting_unread(app: App) -> AsyncIterator[None]:
    """The life of the app, as launch(app_kwargs={"lifespan": ...}) takes it, with a sweep from time to time."""

    async def sweep_again_and_again() -> None:
        unread = Unread(app.get_blocks()._queue)
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await unread.sweep(time.monotonic())

    sweeping = asyncio.create_task(sweep_again_and_again())
    try:
        yield
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
