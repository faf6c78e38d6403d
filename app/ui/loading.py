"""The engine under the page, which may still be loading: the page opens before it. Knows no Gradio, and imports no torch.

Who asks for a request waits for the engine in app/ui/running.py, without a thread; who must answer at once asks `ready` first. Names are known
before: they come from the sources.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.limits import Limits
from app.ui.admission import Admission
from app.ui.runner import Runner
from bitune import progress
from bitune.errors import BituneError
from bitune.schema.names import expected_names

if TYPE_CHECKING:
    from bitune import Engine

WAITING = "This starts when the model is loaded."


class NotLoadedError(BituneError):
    """The engine is not there yet, or could not be loaded: then its text is the sentence of whatever failed."""


class Loading:
    """An engine that comes later, or fails to come."""

    def __init__(self, checkpoints: Sequence[str] = (), notes: Sequence[str] = ()):
        """Nothing is loaded here: `finish` or `fail` ends the waiting.

        Args:
            checkpoints: Sources of the checkpoints that will be loaded, in order.
            notes: Sentences that the head of the page shows, such as why another base is loaded than was asked for.
        """
        self.notes, self.goes_on = list(notes), False
        self._expected = expected_names(checkpoints)
        self._engine: Engine | None = None
        self._runner: Runner | None = None
        self._problem: str | None = None
        self._over = threading.Event()
        self._at_end: list[Callable[[], None]] = []
        self._told = threading.Condition()
        self._followers = 0
        self._version = 0

    @classmethod
    def done(cls, engine: "Engine", runner: Runner | None = None) -> "Loading":
        """Of an engine that is there already."""
        loading = cls()
        loading.finish(engine, runner)
        return loading

    def finish(self, engine: "Engine", runner: Runner | None = None) -> None:
        """The engine is there with all its checkpoints; `runner` runs its requests, by default in this process."""
        self._engine, self._runner = engine, runner or Runner(engine)
        self._end()

    def fail(self, problem: str, *, goes_on: bool = False) -> None:
        """It will not come; `problem` is one sentence. `goes_on`: another page follows this one."""
        self._problem, self.goes_on = problem, goes_on
        self._end()

    def let_go(self, words: str) -> None:
        """The engine goes, and nothing of the page holds it any more; whoever still asks for it gets these words."""
        self._problem, self._engine, self._runner = self._problem or words, None, None
        self._over.set()

    def _end(self) -> None:
        self._over.set()
        for call in self._at_end:
            call()

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this when the engine is there or will not come, in the thread that says so."""
        self._at_end.append(call)

    @property
    def ready(self) -> bool:
        """Whether the engine is there."""
        return self._engine is not None

    @property
    def problem(self) -> str | None:
        """Why it will not come; None while it may."""
        return self._problem

    @property
    def names(self) -> list[str]:
        """The engine's variants as they are; until then, as they will be called if all checkpoints fit."""
        return list(self._engine.variants) if self._engine is not None else self._expected

    @property
    def version(self) -> int:
        """A number that is another one whenever other checkpoints are loaded than before."""
        return self._version

    def changed(self) -> None:
        """Other checkpoints are loaded now; open pages ask for `version` and show it."""
        with self._told:
            self._version += 1

    @property
    def words(self) -> str:
        """What is being done to load it, and how far that is."""
        return progress.now() or "Loading ..."

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the engine is there within so many seconds; NotLoadedError where it will not come."""
        over = self._over.wait(seconds)
        if self._problem is not None:
            raise NotLoadedError(self._problem)
        return over

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While a page shows how far it is."""
        with self._told:
            self._followers += 1
        try:
            yield
        finally:
            with self._told:
                self._followers -= 1
                self._told.notify_all()

    def wait_for_followers(self, seconds: float) -> None:
        """Until all pages that follow have shown the end, but not longer than so many seconds."""
        with self._told:
            self._told.wait_for(lambda: not self._followers, seconds)

    @property
    def engine(self) -> "Engine":
        """The engine; NotLoadedError while it is not there. A thread that waited here would be one of the few that Gradio has."""
        self._check()
        return self._engine

    @property
    def runner(self) -> Runner:
        """What runs requests on the engine; NotLoadedError while it is not there."""
        self._check()
        return self._runner

    def _check(self) -> None:
        if not self.wait(0):
            raise NotLoadedError("The model is still being loaded; try again when it is there.")


class OnEngine:
    """What the handlers of every tab have: the engine, which may still be loading, and who decides which requests may run it."""

    def __init__(self, engine: "Engine | Loading", admission: Admission | None = None):
        """On an engine; `admission` is the page's, without one there is one of its own."""
        self.loading = engine if isinstance(engine, Loading) else Loading.done(engine)
        self.admission = admission or Admission(Limits())

    @property
    def engine(self) -> "Engine":
        """The engine; NotLoadedError while it is not there."""
        return self.loading.engine

    @property
    def runner(self) -> Runner:
        """What runs the model; NotLoadedError while it is not there."""
        return self.loading.runner

    @property
    def names(self) -> list[str]:
        """All variants, known at once."""
        return self.loading.names

    @property
    def has_chat_template(self) -> bool:
        """Whether the base has one; taken for granted until it is known."""
        return not self.loading.ready or self.engine.base_facts.has_chat_template
