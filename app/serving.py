"""A page on the network: served behind its guard, and closed so that what is being answered ends."""

import os
import time

import gradio as gr

from app.checks import available_port, cannot_listen
from app.guard.address import networks
from app.guard.heads import bound_heads
from app.guard.layer import Doorkeeper, Guard
from app.guard.unread import forgetting_unread
from app.settings import Settings
from app.ui.theme import look

# For answers that are being written when the page is closed: a container has 10 in all, and Python needs up to 4 to end.
LAST_ANSWERS_SECONDS = 5.0
LOOK_SECONDS = 0.1  # between two looks at whether they are
EVENTS = 1000  # that Gradio keeps at most; who may run or wait is decided by the admission, long before
THREADS = 40  # Gradio's own number


def keeper_of(settings: Settings) -> Doorkeeper:
    """The keeper of the guard that these settings ask for."""
    return Doorkeeper(settings.limits, networks(settings.proxies), mcp=settings.mcp)


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


def close(page: gr.Blocks, keeper: Doorkeeper) -> None:
    """End the page: nothing new is let in, what is being answered has LAST_ANSWERS_SECONDS, and then every connection ends."""
    keeper.ending = True
    deadline = time.monotonic() + LAST_ANSWERS_SECONDS
    while keeper.working and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    page.server.config.timeout_graceful_shutdown = 1  # uvicorn's: by default it waits for every page that is open somewhere
    page.close(verbose=False)
