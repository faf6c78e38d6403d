"""What happens when a checkpoint is loaded from the page, or unloaded. Knows no Gradio; errors are raised.

All that can be refused is refused as at the start of the app, by the same functions. A load takes no place among the requests that may run
the model: it downloads and reads outside of any turn on the base, and has one only while the adapters are put there. One at a time is
loaded, so that two of them are not measured by the same free memory.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock, Thread
from typing import TypeVar

from app.models.sources import Files, all_files, checked_name, checked_source, local_files, small_files
from app.ui.admission import Admission
from app.ui.loading import OnEngine
from app.ui.templates import empty, problem, render
from app.ui.variants import views_of
from bitune.cancellation import cancellable, check, current
from bitune.errors import ConfigError, UnknownNameError
from bitune.progress import now
from bitune.schema.names import default_name
from bitune.schema.results import CheckpointFacts

LOOK_SECONDS = 0.25
NOT_YET = "The checkpoints appear here when they are loaded."
LOADED = "{name} is loaded: a variant to choose in every tab."
UNLOADED = "{name} is unloaded."
STOPPED = "Stopped; nothing was loaded."
OTHERS = "Another checkpoint or base is being loaded; this one comes next."
IN_USE = "{name} is no longer to be chosen, and goes when the requests have ended that still answer with it."

T = TypeVar("T")


@dataclass(frozen=True)
class Screen:
    """What the section shows. `words`: HTML; `loaded`: the name of the checkpoint that this request has loaded."""

    words: str
    running: bool = False
    loaded: str | None = None


class ModelsHandlers(OnEngine):
    """Loading and unloading on one engine; what is wrong is raised."""

    def __init__(self, engine, admission: Admission | None = None, *, folders: bool = True):
        """On an engine.

        Args:
            engine: The engine, or the Loading of one.
            admission: The page's.
            folders: Whether folders of this computer may be named, and what was loaded at the start be unloaded: False where strangers
                open the page.
        """
        super().__init__(engine, admission)
        self.folders = folders
        self.others = Lock()  # whoever loads something holds it
        self._sources: dict[str, str] = {}  # of what was loaded from the Hub: the engine knows where its files lie
        self._fingerprints: dict[str, str] = {}  # of all that were unloaded, by the names that they had

    @property
    def most(self) -> int:
        """How many checkpoints may be loaded at once."""
        return self.admission.limits.loaded_checkpoints

    def version(self) -> int | None:
        """Which state of the checkpoints this is; None while the engine is loading."""
        return self.loading.version if self.loading.ready else None

    def state(self) -> dict[str, object]:
        """What open pages ask for again and again: the version, and why this page ends, None while it does not."""
        return {"version": self.version(), "ends": self.admission.closed}

    def shown(self) -> str:
        """The version as HTML, for a page that gets it before all else that belongs to it: what changes meanwhile then comes again."""
        return render("models/shown.html", version=self.version())

    def listing(self) -> str:
        """The checkpoints that are there, as HTML."""
        if not self.loading.ready:
            return empty(NOT_YET)
        views, checkpoints = views_of(self.engine), self.engine.checkpoints
        there = {name: view for name, view in views.items() if name in checkpoints}
        return render("models/list.html", views=there, can_go=self.can_go(there))

    def can_go(self, names: Iterable[str]) -> list[str]:
        """Which of these may be unloaded from the page."""
        return [name for name in names if self.folders or name in self._sources]

    def check(self, source: object, name: object) -> tuple[str, str]:
        """The source and the name that the checkpoint will have; raises what its form alone tells to be wrong."""
        source, name = checked_source(source, folders=self.folders), checked_name(name)
        known = {one: self._sources.get(one, facts.source) for one, facts in self.engine.checkpoints.items()}
        taken = {one: known.get(one) for one in self.engine.variants}
        name = name or default_name(source, taken)
        if name in taken:
            raise ConfigError(f"A variant called {name!r} is already there; give this one another name.")
        if len(known) >= self.most:
            raise ConfigError(f"{len(known)} checkpoints are loaded, as many as may be at once; unload one first.")
        return source, name

    def load(self, source: object, name: object) -> Generator[Screen, None, CheckpointFacts]:
        """Download it where it is on the Hub, see whether it fits, and put it on the base; nothing of it stays where that fails."""
        source, name = self.check(source, name)
        with alone(self.others) as waiting:
            yield from waiting
            self.admission.check_open()
            files = yield from in_thread_with_progress(partial(self.fetch, source), f"Looking for {source}")
            return (yield from in_thread_with_progress(partial(self.put, files, name), f"Loading {source}"))

    def fetch(self, source: str) -> Files:
        """Its files on this disk; those of the Hub only where what they hold fits into memory."""
        if (files := local_files(source, folders=self.folders)) is not None:
            return files
        small = small_files(source)
        self.check_room(small)
        return all_files(small)

    def check_room(self, files: Files) -> None:
        """ConfigError where the memory that is free does not hold its adapters; CheckpointError where they are none."""
        from bitune.checkpoints.size import BYTES_A_NUMBER, numbers_of
        from bitune.memory import check_room

        with files.named_by_source():
            size = BYTES_A_NUMBER * numbers_of(files.folder, files.repository)
        check_room(f"The checkpoint {files.source}", size, self.engine.base.model.device)

    def put(self, files: Files, name: str) -> CheckpointFacts:
        """Put its adapters on the base. A name that was another checkpoint's is refused: answers and votes know their variant by it."""
        self.check(files.source, name)  # what was loaded meanwhile counts too
        self.check_room(files)
        check(stopped := current())
        with cancellable(
            Event()
        ):  # what fails half way is taken off in a turn, which somebody who has pressed Stop would not get
            with files.named_by_source():
                facts = self.engine.add_checkpoint(files.folder, name=name)
            try:
                check(stopped)
                if self._fingerprints.get(name, facts.fingerprint) != facts.fingerprint:
                    raise ConfigError(
                        f"{name!r} was another checkpoint's name, and its answers may stand on pages; choose another."
                    )
            except BaseException:
                self.engine.remove_checkpoint(name)
                raise
        if files.repository is not None:
            self._sources[name] = files.source
        self.loading.changed()
        return facts

    def unload(self, name: object) -> Iterator[Screen]:
        """Take it away: at once for whoever chooses, and from the base when the last request has ended that runs it."""
        facts = self.engine.checkpoints.get(name) if isinstance(name, str) else None
        if facts is None or not self.can_go([name]):
            raise UnknownNameError("checkpoint that can be unloaded here", str(name), self.can_go(self.engine.checkpoints))
        self._fingerprints[name] = facts.fingerprint
        said = False
        for screen in in_thread_with_progress(partial(self.take_off, name), IN_USE.format(name=name), progress=False):
            if not said and name not in self.engine.variants:
                self.loading.changed()
                said = True
            yield screen
        yield Screen(empty(UNLOADED.format(name=name)))

    def take_off(self, name: str) -> None:
        """Wait for the requests that run it, and take it off the base; whoever asked for that may be gone by then."""
        try:
            with cancellable(Event()):
                self.engine.remove_checkpoint(name)
            self._sources.pop(name, None)
        finally:
            self.loading.changed()


class LoadRequest:
    """Load, as app/ui/frame.py runs it."""

    def __init__(self, handlers: ModelsHandlers):
        self.handlers, self.loading, self.admission = handlers, handlers.loading, handlers.admission

    def waiting(self, words: str) -> Screen:
        return Screen(empty(words), running=True)

    def announce(self, source: object, name: object) -> Screen:
        return Screen(empty("Looking for it."), running=True)

    def work(self, source: object, name: object) -> None:
        """The model does not run, so it takes no place in the line; what is wrong with the words is said at once."""
        self.handlers.check(source, name)

    def run(self, source: object, name: object) -> Iterator[Screen]:
        facts = yield from self.handlers.load(source, name)
        yield Screen(empty(LOADED.format(name=facts.name)), loaded=facts.name)

    def finish(self, latest: Screen) -> Screen:
        return Screen(empty(STOPPED))

    def failed(self, words: str) -> Screen:
        return Screen(problem(words))


class UnloadRequest(LoadRequest):
    """Unload, likewise."""

    def announce(self, name: object) -> Screen:
        return Screen(empty("Unloading it."), running=True)

    def work(self, name: object) -> None:
        """The model does not run."""

    def run(self, name: object) -> Iterator[Screen]:
        return self.handlers.unload(name)


@contextmanager
def alone(others: Lock) -> Iterator[Iterator[Screen]]:
    """Within the block nothing else is loaded. The block gets the screens of the wait for that, and goes through all of them first."""
    taken = []

    def waiting() -> Iterator[Screen]:
        while not others.acquire(timeout=LOOK_SECONDS):
            check(current())
            yield Screen(empty(f"{OTHERS} {now() or ''}"), running=True)
        taken.append(True)

    try:
        yield waiting()
    finally:
        if taken:
            others.release()


def in_thread_with_progress(call: Callable[[], T], words: str, *, progress: bool = True) -> Generator[Screen, None, T]:
    """What `call` returns, and meanwhile how far it is.

    It ends when the thread has, also after Stop and for somebody who has gone: until then what is read takes memory, so nothing else may be
    loaded, and it counts as a request of whoever asked. A visitor who has pressed Stop sees the end at once all the same: that screen
    comes from app/ui/running.py, which does not wait for this.

    Args:
        call: Runs in a thread of its own, in the same block of a request that can be cancelled.
        words: What is shown, until there is something to be said of its progress.
        progress: Whether something may be said of that.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised again where the result is read
            future.set_exception(error)

    Thread(target=copy_context().run, args=(work,), name="bitune load", daemon=True).start()
    said = None
    try:
        while not wait([future], LOOK_SECONDS).done:
            check(current())
            if (line := (now() if progress else None) or words) != said:
                yield Screen(render("models/progress.html", words=(said := line)), running=True)
    finally:
        wait([future])
    return future.result()
