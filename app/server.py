"""From settings to a served page: load the base and its checkpoints, then launch."""

import os
import tempfile
from importlib.util import find_spec

import gradio as gr
from gradio.utils import get_upload_folder

import bitune
from app.settings import Settings
from app.ui.theme import look
from bitune.errors import ConfigError, WrongBaseError, disk_failure


def load_engine(settings: Settings) -> bitune.Engine:
    """The base with its checkpoints. Says on the terminal what it does: a download may take a while."""
    print(f"Loading {settings.base} ...", flush=True)
    engine = bitune.Engine(bitune.load_base(settings.base))
    for source in settings.checkpoints:
        try:
            facts = engine.add_checkpoint(source)
            print(f"Loaded checkpoint {facts.name} from {source}", flush=True)
        except WrongBaseError as error:
            if settings.chosen:
                raise
            print(f"Left out {source}: {error}", flush=True)
    return engine


def check_temporary_folder() -> None:
    """ConfigError where Gradio cannot write into its folder of temporary files: found out before a base is loaded."""
    folder = os.environ.get("GRADIO_TEMP_DIR", "the system's temporary folder")
    try:
        folder = get_upload_folder()
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        failure = disk_failure(error)
        raise ConfigError(
            f"The page cannot keep temporary files in {folder}: {failure.cause}; {failure.remedy}, or set GRADIO_TEMP_DIR to "
            "another one."
        ) from error


def serve(page: gr.Blocks, settings: Settings, *, wait: bool = True) -> str:
    """Launch the page and return its address; `wait` keeps serving until interrupted."""
    if settings.mcp and find_spec("mcp") is None:
        raise ConfigError("--mcp needs a package that is not installed; get it with: pip install 'gradio[mcp]'")
    page.queue(max_size=32)
    try:
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=settings.port or None,
            mcp_server=settings.mcp,
            prevent_thread_lock=not wait,
            quiet=not wait,
            ssr_mode=False,
            run_history=False,
            show_error=True,  # what Gradio itself refuses, such as a missing argument, reaches the caller in words
            footer_links=["api"],
            **look(),
        )
    except OSError as error:
        raise ConfigError(
            f"The page cannot listen on {settings.host}, port {settings.port}: {error} Choose another with --port."
        ) from error
    return address
