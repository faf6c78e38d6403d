"""From settings to a served page: launch it, load the base and its checkpoints meanwhile, and serve until interrupted."""

import gradio as gr

import bitune
from app.checks import cannot_listen
from app.compare.recorded import load_all
from app.page import build_page
from app.settings import Settings
from app.ui.loading import Loading
from app.ui.theme import look
from bitune.errors import BituneError, WrongBaseError
from bitune.progress import doing

FAREWELL_SECONDS = 3.0  # for open pages to show why the app ends


def run(settings: Settings) -> None:
    """The whole app: the page first, then the engine under it.

    Raises:
        BituneError: the page cannot be served, or the engine not be loaded; open pages have said so.
    """
    loading = Loading(settings.checkpoints)
    with doing("Building the page"):
        page = build_page(loading, load_all(), settings.data)
        address = serve(page, settings)
    print(f"Running on local URL: {address.rstrip('/')}", flush=True)
    try:
        load(loading, settings)
        page.block_thread()
    finally:
        page.close(verbose=False)


def load(loading: Loading, settings: Settings) -> None:
    """Load the engine that the page waits for; what is raised here is told to the open pages first."""
    try:
        loading.finish(load_engine(settings))
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


def serve(page: gr.Blocks, settings: Settings) -> str:
    """Launch the page, which then answers in threads of its own, and return its address."""
    page.queue(max_size=32)
    try:
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=settings.port or None,
            mcp_server=settings.mcp,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            show_error=True,  # what Gradio itself refuses, such as a missing argument, reaches the caller in words
            footer_links=["api"],
            **look(),
        )
    except OSError as error:
        raise cannot_listen(settings, error) from error
    return address
