"""From settings to a served page: launch it, load the base and its checkpoints meanwhile, and serve until interrupted."""

import os
import signal
import sys
import threading
import time
from functools import partial
from types import FrameType

import gradio as gr

import bitune
from app.attention import recorded as attention
from app.checks import available_port, cannot_listen
from app.compare.recorded import load_all
from app.guard.address import networks
from app.guard.heads import bound_heads
from app.guard.layer import Doorkeeper, Guard
from app.guard.log import bounded_log
from app.guard.unread import forgetting_unread
from app.models.handlers import ModelsHandlers
from app.page import build_page
from app.settings import ON, Settings
from app.ui.admission import Admission
from app.ui.loading import Loading
from app.ui.theme import look
from app.votes.place import kept_in
from app.zero import GPU, WorkerRunner, decorator
from bitune.errors import BituneError, ConfigError, WrongBaseError
from bitune.progress import doing

FAREWELL_SECONDS = 3.0  # for open pages to show why the app ends
LAST_ANSWERS_SECONDS = 7.0  # for answers that are being written when the app is stopped; a container has 10 in all
LOOK_SECONDS = 0.1  # between two looks at whether they are
EVENTS = 1000  # that Gradio keeps at most; who may run or wait is decided by the admission, long before
THREADS = 40  # Gradio's own number


def run(settings: Settings) -> None:
    """The whole app: the page first, then the engine under it. On ZeroGPU the engine first: see app/zero.py.

    Raises:
        BituneError: the page cannot be served, or the engine not be loaded; open pages have said so.
    """
    with bounded_log():
        loading, gpu = Loading(settings.checkpoints), decorator()
        if gpu is not None:
            check_zero(settings)
            load(loading, settings, gpu)
        keeper = keeper_of(settings)
        with doing("Building the page"):
            admission = Admission(settings.limits, keeper.proxies)
            kept = kept_in(settings.votes, settings.votes_dataset)
            models = ModelsHandlers(loading, admission, folders=not settings.public) if settings.loads and gpu is None else None
            shown = {"recorded_map": attention.load(), "models": models}
            page = build_page(loading, load_all(), settings.data, admission=admission, votes=kept, **shown)
            address = serve(page, settings, keeper)
        print(f"Running on local URL: {address.rstrip('/')}", flush=True)
        stopping = threading.Event()
        signal.signal(signal.SIGTERM, partial(stop, stopping))
        try:
            if not loading.ready:
                load(loading, settings)
            while not stopping.wait(LOOK_SECONDS):
                pass
        finally:
            close(page, keeper)


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


def close(page: gr.Blocks, keeper: Doorkeeper) -> None:
    """End the page: nothing new is let in, what is being answered has LAST_ANSWERS_SECONDS, and then every connection ends."""
    keeper.ending = True
    deadline = time.monotonic() + LAST_ANSWERS_SECONDS
    while keeper.working and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    page.server.config.timeout_graceful_shutdown = 1  # uvicorn's: by default it waits for every page that is open somewhere
    page.close(verbose=False)


def keeper_of(settings: Settings) -> Doorkeeper:
    """The keeper of the guard that these settings ask for."""
    return Doorkeeper(settings.limits, networks(settings.proxies), mcp=settings.mcp)


def load(loading: Loading, settings: Settings, gpu: GPU | None = None) -> None:
    """Load the engine that the page waits for; what is raised here is told to the open pages first."""
    try:
        engine = load_engine(settings)
        loading.finish(engine, gpu and WorkerRunner(engine, gpu))
    except Exception as error:
        known = isinstance(error, BituneError)
        loading.fail(str(error) if known else f"The model could not be loaded ({type(error).__name__}); the log says more.")
        loading.wait_for_followers(FAREWELL_SECONDS)
        raise


def load_engine(settings: Settings) -> "bitune.Engine":
    """The base with its checkpoints. Says on the terminal what it does: a download may take a while."""
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
        except WrongBaseError as error:
            if settings.chosen:
                raise
            print(f"Left out {source}: {error}", flush=True)
    return engine


def serve(page: gr.Blocks, settings: Settings, keeper: Doorkeeper | None = None) -> str:
    """Launch the page behind its guard; it then answers in threads of its own.

    Args:
        page: What `build_page` made.
        settings: Where to listen, and what visitors may take.
        keeper: Of the guard, where the caller wants to look at it; by default one of its own.

    Returns:
        The address of the page.

    Raises:
        ConfigError: Nobody can listen there.
    """
    keeper = keeper or keeper_of(settings)
    page.queue(max_size=EVENTS, api_open=False)
    # uvicorn would believe what X-Forwarded-For says of whoever connects from this computer; whom to believe is the guard's to know.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    try:
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=settings.port
            or available_port(settings),  # Gradio alone would try 7860 and on, as every other page here does
            max_threads=THREADS
            + settings.limits.running
            + settings.limits.waiting,  # an event that waits takes one of as many places
            mcp_server=settings.mcp,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            show_error=True,  # what Gradio itself refuses, such as a missing argument, reaches the caller in words
            footer_links=["api"],
            enable_monitoring=False,
            state_session_capacity=settings.limits.sessions,
            app_kwargs={
                "middleware": [(Guard, (), {"keeper": keeper})],  # class and arguments, as Starlette takes them
                "lifespan": forgetting_unread,
            },
            **look(),
        )
    except OSError as error:
        raise cannot_listen(settings, error) from error
    bound_heads(page.server.config, settings.limits.connections, keeper.proxies)
    return address
