"""From settings to a served page: launch it, load the base and its checkpoints meanwhile, and serve until interrupted.

Where another base is asked for from the page, this page ends and the next one begins, in the same process and at the same address: whatever
belonged to the base before is gone by construction.
"""

import gc
import logging
import signal
import sys
import threading
import time
import weakref
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType

import gradio as gr

import bitune
from app.attention import recorded as attention
from app.compare.recorded import load_all
from app.guard.layer import Doorkeeper
from app.guard.log import bounded_log
from app.models.base_handlers import BaseHandlers
from app.models.handlers import ModelsHandlers
from app.page import build_page
from app.serving import close, keeper_of, serve
from app.settings import ON, Settings
from app.ui.admission import Admission
from app.ui.loading import Loading
from app.votes.place import Kept, kept_in
from app.zero import GPU, WorkerRunner, decorator
from bitune.errors import BituneError, CheckpointError, ConfigError, WrongBaseError
from bitune.progress import doing
from bitune.schema.names import default_name

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 3.0  # for open pages to show why the app ends, or restarts
LOOK_SECONDS = 0.1  # between two looks at whether another base was asked for, or the one before has gone
FREED_SECONDS = 30.0  # for a request that is in the middle of a long forward
ADDRESS_SECONDS = 30.0  # for another program to give back the port of the page before
AGAIN_SECONDS = 1.0  # between two tries to have it


@dataclass(frozen=True)
class PagePlan:
    """How one page is served, and what follows where its base cannot be loaded.

    Attributes:
        settings: Of this page.
        others: Settings of the pages to try then, in order; where there are none, the app ends.
        notes: Sentences on how this page came to be, which its head shows.
    """

    settings: Settings
    others: tuple[Settings, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether no page was there before."""
        return not self.others and not self.notes

    def after(self, problem: str) -> "PagePlan":
        """The page that follows because of this problem."""
        return PagePlan(self.others[0], self.others[1:], (*self.notes, problem))


@dataclass(frozen=True)
class Served:
    """A page that is open. `bases`: what asks for the next one, None where nobody may."""

    page: gr.Blocks
    keeper: Doorkeeper
    loading: Loading
    bases: BaseHandlers | None


def run(settings: Settings) -> None:
    """The whole app: the page first, then the engine under it. On ZeroGPU the engine first: see app/zero.py.

    Raises:
        BituneError: the first page cannot be served, or its engine not be loaded; open pages have said so.
    """
    with bounded_log():
        gpu, stopping = decorator(), threading.Event()
        if gpu is not None:
            check_zero(settings)
        signal.signal(signal.SIGTERM, partial(stop, stopping))
        serve_pages(settings, stopping, gpu)


def serve_pages(settings: Settings, stopping: threading.Event, gpu: GPU | None = None) -> None:
    """One page after the other, until the event is set; raises what `run` does."""
    kept = kept_in(settings.votes, settings.votes_dataset)
    plan, open_next = PagePlan(settings), open_page
    while plan is not None and not stopping.is_set():
        served = open_next(plan, kept, gpu)
        try:
            following = until_next(served, plan, settings, stopping)
        finally:
            close(served.page, served.keeper)
        if following is not None:
            let_go(served.loading)
        plan, open_next = following, partial(open_again, stopping)


def open_again(stopping: threading.Event, plan: PagePlan, kept: Kept, gpu: GPU | None) -> Served:
    """As `open_page`, at the address of the page before. Another program may have its port for a moment, so that is tried for a while.

    Raises:
        ConfigError: The address cannot be had for ADDRESS_SECONDS. Open pages would look for this page nowhere else.
    """
    deadline = time.monotonic() + ADDRESS_SECONDS
    while True:
        try:
            return open_page(plan, kept, gpu)
        except ConfigError:
            if time.monotonic() > deadline or stopping.wait(AGAIN_SECONDS):
                raise


def open_page(plan: PagePlan, kept: Kept, gpu: GPU | None) -> Served:
    """Serve the page of a plan, with the engine under it where that has to come first."""
    settings, keeper = plan.settings, keeper_of(plan.settings)
    admission, loading = Admission(settings.limits, keeper.proxies), Loading(settings.checkpoints, plan.notes)
    if gpu is not None:
        load(loading, plan, gpu)
    with doing("Building the page"):
        models = ModelsHandlers(loading, admission, folders=not settings.public) if settings.loads and gpu is None else None
        bases = BaseHandlers(models, settings.base, settings.dtype) if models is not None and settings.exchanges else None
        shown = {"recorded_map": attention.load(), "models": models, "bases": bases}
        page = build_page(loading, load_all(), settings.data, admission=admission, votes=kept, **shown)
        address = serve(page, settings, keeper)
    print(f"Running on local URL: {address.rstrip('/')}", flush=True)
    return Served(page, keeper, loading, bases)


def until_next(served: Served, plan: PagePlan, first: Settings, stopping: threading.Event) -> PagePlan | None:
    """Load what the page waits for, and serve it until another base is asked for.

    Args:
        served: The page.
        plan: How it is served.
        first: What the app was started with, whose checkpoints come back with their base.
        stopping: Set when the app ends.

    Returns:
        The plan of the next page; None where the app ends.
    """
    port = served.page.server_port  # that of this page also where any free one was asked for
    if not served.loading.ready:
        try:
            load(served.loading, plan)
        except Exception as error:
            if not plan.others:
                raise
            if not isinstance(error, BituneError):
                log.exception("%s could not be loaded", plan.settings.base)
            return plan.after(served.loading.problem)
    while not stopping.wait(LOOK_SECONDS):
        if served.bases is not None and served.bases.wanted is not None:
            print(f"Another base was asked for from the page: {served.bases.wanted}", flush=True)
            let_pages_know(stopping)
            wanted, *others = (replace(one, port=port) for one in (first.with_base(served.bases.wanted), plan.settings, first))
            return None if stopping.is_set() else PagePlan(wanted, tuple(others))
    return None


def let_pages_know(stopping: threading.Event) -> None:
    """Wait until open pages have learned that this one ends: they ask every two seconds."""
    stopping.wait(FAREWELL_SECONDS)


def let_go(loading: Loading) -> None:
    """Free the engine of a page that has ended, so that two bases are never in memory: its last requests end within a token."""
    from bitune.modeling.memory import release_freed, release_reserved

    model = weakref.ref(loading.engine.base.model) if loading.ready else None
    loading.let_go("This page has ended.")
    deadline = time.monotonic() + FREED_SECONDS
    with doing("Freeing the base before"):
        collect()
        while model is not None and model() is not None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            collect()
    release_reserved()
    release_freed()


def collect() -> None:
    """Collect garbage, in a thread of its own: in this one SIGTERM would be lost where it comes within a destructor."""
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


def check_zero(settings: Settings) -> None:
    """ConfigError for what cannot be under ZeroGPU: its workers have what was loaded before the page was served."""
    if settings.loading == ON:
        raise ConfigError(
            "--loading is on, and under ZeroGPU the model runs in other processes, which have only what is loaded at the start; leave it out."
        )


def stop(stopping: threading.Event, number: int, frame: FrameType | None) -> None:
    """SIGTERM, with which a container is stopped, ends the app as its last line would; a second one ends it at once.

    Python calls this between any two of its steps, also within a destructor or a callback of a weak reference, whose exceptions it
    drops. Hence the event besides.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stopping.set()
    sys.exit(0)


def load(loading: Loading, plan: PagePlan, gpu: GPU | None = None) -> None:
    """Load the engine that the page waits for; what is raised here is told to the open pages first."""
    settings = plan.settings
    try:
        engine = load_engine(settings, again=not plan.is_first)
        there = {facts.source for facts in engine.checkpoints.values()}
        if left := [default_name(source, {}) for source in settings.checkpoints if source not in there]:
            loading.notes.append(f"Left out, as they cannot be loaded with this base: {', '.join(left)}.")
        loading.finish(engine, gpu and WorkerRunner(engine, gpu))
    except Exception as error:
        known = isinstance(error, BituneError)
        words = str(error) if known else f"{settings.base} could not be loaded ({type(error).__name__}); the log says more."
        loading.fail(what_follows(plan) + words, goes_on=bool(plan.others))
        loading.wait_for_followers(FAREWELL_SECONDS)
        raise


def what_follows(plan: PagePlan) -> str:
    """The beginning of a sentence that goes on with why the base of this page cannot be loaded."""
    if not plan.others:
        return ""
    base = plan.others[0].base
    return f"The base {base} is loaded once more: " if base == plan.settings.base else f"Back to the base {base}: "


def load_engine(settings: Settings, *, again: bool = False) -> "bitune.Engine":
    """The base with its checkpoints. Says on the terminal what it does: a download may take a while.

    Args:
        settings: Which base, and which checkpoints.
        again: Another page was there before, which a checkpoint that is damaged or gone by now must not end.
    """
    with doing("Importing torch and transformers"):
        from bitune.inference.engine import Engine

    with doing(f"Loading {settings.base}"):
        engine = Engine(bitune.load_base(settings.base, dtype=settings.dtype))
    print(f"Loaded {settings.base}", flush=True)
    for source in settings.checkpoints:
        try:
            with doing(f"Loading the checkpoint {source}"):
                facts = engine.add_checkpoint(source)
            print(f"Loaded checkpoint {facts.name} from {source}", flush=True)
        except CheckpointError as error:
            if not again and (settings.chosen or not isinstance(error, WrongBaseError)):
                raise
            print(f"Left out {source}: {error}", flush=True)
    return engine
