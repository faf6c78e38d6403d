"""A request from its first second to its last: wait for the engine, wait in the line, run in a thread of its own.

Waiting takes no thread. The model runs in as many threads as the admission lets in. Whoever closes the iterator, or whose client goes away,
sets the event that every layer and token looks at (bitune/cancellation.py); the place is free when the thread has ended. `Course` makes
screens of it.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from app.ui.admission import Admission, Ticket
from app.ui.caller import Caller, Gone, Stopped
from app.ui.errors import sentence
from app.ui.loading import WAITING, Loading
from app.ui.pace import Work
from bitune.cancellation import Cancelled, cancellable, check

LOOK_SECONDS = 0.1  # between two looks whether a client is still there, or the engine
SAY_SECONDS = 1.0  # between two words to somebody who waits

T = TypeVar("T")


@dataclass(frozen=True)
class Waiting:
    """Instead of a result: why there is none yet."""

    words: str


class OnModel(Protocol):
    """What is known before a request can be asked: the engine, which may still be loading, and who decides who may run it."""

    loading: Loading
    admission: Admission


async def admitted(
    on: OnModel, caller: Caller, work: Callable[[], Work | None], run: Callable[[], Generator[T]]
) -> AsyncIterator[Waiting | T]:
    """What `run` yields, and before that why it has to wait.

    Args:
        on: Where it runs.
        caller: Whose request it is.
        work: What it asks for, called once the engine is there, in a thread; None where it will not run the model. May raise.
        run: Called in a thread, once the request is let in.

    Raises:
        Refused: It is not served now.
        Gone, Stopped: See `Caller.check`.
        Exception: What `work` and `run` raise.
    """
    with entered(on, caller) as ticket:
        async with aclosing(let_in(on, ticket, caller, work, run)) as steps:
            async for step in steps:
                yield step


@contextmanager
def entered(on: OnModel, caller: Caller, *, goes_on: bool = False) -> Iterator[Ticket]:
    """The ticket of a request, which is left in the end; Refused. `goes_on`: it takes the line more than once, each time by `let_in`."""
    ticket = on.admission.enter(caller.visitor, goes_on=goes_on)
    try:
        yield ticket
    finally:
        ticket.leave()


async def let_in(
    on: OnModel, ticket: Ticket, caller: Caller, work: Callable[[], Work | None], run: Callable[[], Generator[T]]
) -> AsyncIterator[Waiting | T]:
    """As `admitted`, with a ticket."""
    async for words in until_loaded(on.loading, caller):
        yield words
    asked = await asyncio.to_thread(work)
    if asked is not None:
        ticket.want(asked)
        async for words in in_line(ticket, caller):
            yield words
    async with aclosing(in_thread(run, ticket, caller)) as values:
        async for value in values:
            yield value


class Course(Generic[T]):
    """The screens of one request, from the first second on. What Stop left or an error is the last one; closing them ends the request.

    A request whose way through the line is another, or whose screens stand on those before, is a class below this one.

    Attributes:
        handlers: What happens, as `frame.ModelHandlers` has it.
        values: What was asked, by name.
    """

    def __init__(self, handlers: Any, values: Mapping[str, object]):
        self.handlers, self.values = handlers, values

    async def screens(self, caller: Caller) -> AsyncIterator[T]:
        """All of them."""
        async with aclosing(until_over(self._shown(caller), self.finish, self.failed)) as over:
            async for screen in over:
                yield screen

    async def _shown(self, caller: Caller) -> AsyncIterator[T]:
        """As long as nothing ends them."""
        latest = None
        if self.handlers.loading.ready:
            yield (latest := self.handlers.announce(**self.values))
        async with aclosing(self.steps(caller)) as steps:
            async for step in steps:
                yield (latest := self.waiting(step.words, latest) if isinstance(step, Waiting) else step)

    def steps(self, caller: Caller) -> AsyncIterator[Waiting | T]:
        """What comes of it, and before that why it has to wait."""
        work, run = (partial(method, **self.values) for method in (self.handlers.work, self.handlers.run))
        return admitted(self.handlers, caller, work, run)

    def waiting(self, words: str, latest: T | None) -> T:
        """While it waits."""
        return self.handlers.waiting(words)

    def finish(self, latest: T | None) -> T:
        """What Stop leaves of the latest screen."""
        return self.handlers.finish(latest)

    def failed(self, words: str, latest: T | None) -> T:
        """What an error leaves."""
        return self.handlers.failed(words)


class FromShown(Course[T]):
    """Of a request that stands where something is shown already, `shown` among its values: what ends it before it has anything of its own
    must leave that, so the handlers get it beside the latest screen."""

    def finish(self, latest: T | None) -> T:
        return self.handlers.finish(latest, self.values["shown"])

    def failed(self, words: str, latest: T | None) -> T:
        return self.handlers.failed(words, latest, self.values["shown"])


async def until_over(
    steps: AsyncIterator[T], finish: Callable[[T | None], T], failed: Callable[[str, T | None], T]
) -> AsyncIterator[T]:
    """The screens of a request; what Stop left or an error is the last one, and nothing more comes for somebody who has gone.

    Args:
        steps: The screens, as long as nothing ends them.
        finish: What Stop leaves, called in a thread with the latest screen, None before the first.
        failed: What stands there where something was raised, called in a thread with the sentence and the latest screen.
    """
    latest = None
    try:
        try:
            async with aclosing(steps):
                async for latest in steps:
                    yield latest
        except Stopped:
            yield await asyncio.to_thread(finish, latest)
    except Gone:
        return
    except Exception as error:
        yield await asyncio.to_thread(failed, sentence(error), latest)


async def until_loaded(loading: Loading, caller: Caller) -> AsyncIterator[Waiting]:
    """Why it waits, as often as that changes, until the engine is there; NotLoadedError where it will not come."""
    said = None
    while not loading.wait(0):
        if (words := f"{WAITING} {loading.words}") != said:
            yield Waiting(words)
            said = words
        await asyncio.sleep(LOOK_SECONDS)
        await caller.check()


async def in_line(ticket: Ticket, caller: Caller) -> AsyncIterator[Waiting]:
    """Where it stands, until it is let in."""
    turn = asyncio.wrap_future(ticket.admitted)
    looks = 0
    while not ticket.admitted.done():
        if looks % round(SAY_SECONDS / LOOK_SECONDS) == 0:
            yield Waiting(ticket.words())
        looks += 1
        await asyncio.wait([turn], timeout=LOOK_SECONDS)
        await caller.check()


async def in_thread(run: Callable[[], Generator[T]], ticket: Ticket, caller: Caller) -> AsyncIterator[T]:
    """The values of `run()`, which runs in a thread of its own; of several that came since the last look, the last one.

    The ticket is busy until the thread has ended, also where this is closed before that.
    """
    cancelled, box = threading.Event(), Box(asyncio.get_running_loop())

    def work() -> None:
        error = None
        try:
            with cancellable(cancelled), closing(run()) as values:
                for value in values:
                    box.put(value)
                    check(cancelled)  # what runs in another process (app/zero.py) notices it only when it is closed
        except BaseException as raised:  # raised again where the values are read
            error = raised
        ticket.over(ended=error is None and not cancelled.is_set())
        box.end(error)

    here = contextvars.copy_context()  # ZeroGPU asks Gradio whose request this is
    ticket.busy = True
    try:
        threading.Thread(target=here.run, args=(work,), name="bitune page request", daemon=True).start()
    except BaseException:  # the system lets no more threads begin
        ticket.over(ended=False)
        raise
    try:
        while True:
            for value in await box.take(LOOK_SECONDS):
                yield value
            if box.is_over:
                break
            await caller.check()
        box.check()
    finally:
        cancelled.set()


class Box(Generic[T]):
    """The latest value on its way from a thread to an event loop, and how the thread ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._news = loop, asyncio.Event()
        self._lock = threading.Lock()
        self._values: list[T] = []
        self._over, self._error = False, None

    def put(self, value: T) -> None:
        """Called in the thread. What was not taken yet is replaced: a later value says all that an earlier one said."""
        with self._lock:
            self._values = [value]
        self._tell()

    def end(self, error: BaseException | None) -> None:
        """Called in the thread, at last."""
        with self._lock:
            self._over, self._error = True, error
        self._tell()

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def take(self, seconds: float) -> list[T]:
        """What came since the last time, at most one value, waited for so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()
        with self._lock:
            values, self._values = self._values, []
        return values

    @property
    def is_over(self) -> bool:
        """Whether the thread has ended and nothing is left to take."""
        with self._lock:
            return self._over and not self._values

    def check(self) -> None:
        """Raise what the thread raised; that it was cancelled is no error."""
        if self._error is not None and not isinstance(self._error, Cancelled):
            raise self._error
