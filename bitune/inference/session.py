"""One request in a thread of its own, and the updates that come of it. Knows no model."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bitune.cancellation import Cancelled, PartOf, current
from bitune.inference.answer import Answer
from bitune.reading import Reading, followed
from bitune.schema.results import Phase, Update

SECONDS_BETWEEN_UPDATES = 0.05  # a page cannot show more, and its queue would fill up
SECONDS_BETWEEN_SIGNS = 0.5  # an update comes at least so often, so that whoever reads can stop the request


@dataclass(frozen=True)
class Prompts:
    """What each variant reads: the text, template included, and its length in tokens."""

    texts: Mapping[str, str]
    tokens: Mapping[str, int]


class Session(Iterator[Update]):
    """The updates of one request, which runs from the first `next` on.

    `cancel` and `close` may be called from any thread. After `cancel` the request ends by itself, and its last update says `cancelled`
    for every answer that was not finished; `close` also waits until the request has let go of the base.
    """

    def __init__(self, answers: Sequence[Answer], prompts: Prompts, work: Callable[[threading.Event, Callable[[], None]], None]):
        self._run = _Run(answers, work)
        self._updates = _updates(self._run, prompts)

    def __next__(self) -> Update:
        return next(self._updates)

    def cancel(self) -> None:
        """Stop the request before the next token, or the next layer of a prompt pass; returns at once."""
        self._run.cancelled.set()

    def close(self) -> None:
        """Stop the request and wait for its end: the base is free afterwards."""
        self.cancel()
        self._run.join()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self):
        self.cancel()  # nobody reads what it would still write


class _Run:
    """The thread of a request: what it does, how far it is, how it ended."""

    def __init__(self, answers: Sequence[Answer], work: Callable[[threading.Event, Callable[[], None]], None]):
        self.answers = answers
        self.cancelled = PartOf(current())
        self.error: BaseException | None = None
        self.reading = Reading()
        self._work = work
        self._has_turn = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a request that was cancelled before ends at once."""
        thread = threading.Thread(target=self._do, name="bitune request", daemon=True)
        thread.start()
        self._thread = thread

    def _do(self) -> None:
        try:
            with followed(self.reading):
                self._work(self.cancelled, self._has_turn.set)
        except Cancelled:
            for answer in self.answers:
                answer.cancel()
        except BaseException as error:  # raised again in the thread that reads the updates
            self.error = error
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Whether the request has ended, after at most so many seconds."""
        return self._ended.wait(seconds)

    def join(self) -> None:
        """Wait for the end of a request that was begun."""
        if self._thread is not None:
            self._thread.join()

    def phase(self) -> Phase:
        """How far the request is, apart from its end."""
        if not self._has_turn.is_set():
            return "waiting"
        return "writing" if self.tokens() else "reading"

    def tokens(self) -> int:
        """How many tokens of all answers have come."""
        return sum(answer.tokens for answer in self.answers)


def _updates(run: _Run, prompts: Prompts) -> Iterator[Update]:
    run.start()
    shown, shown_at = None, time.monotonic()
    while not run.wait(SECONDS_BETWEEN_UPDATES):
        state = (run.phase(), run.tokens())
        if state != shown or time.monotonic() - shown_at >= SECONDS_BETWEEN_SIGNS:
            yield _update(run, prompts, state[0])
            shown, shown_at = state, time.monotonic()
    run.join()
    if run.error is not None:
        raise run.error
    yield _update(run, prompts, "done")


def _update(run: _Run, prompts: Prompts, phase: Phase) -> Update:
    completions = {completion.variant: completion for completion in (answer.snapshot() for answer in run.answers)}
    read = run.reading.share if phase == "reading" else None
    return Update(completions, prompts.texts, prompts.tokens, phase == "done", phase, read)
