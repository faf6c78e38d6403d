"""How Gradio runs an event: shown or not, queued or at once. Every listener of the page takes one of these sets of arguments."""

import json
from typing import TypeVar

import gradio as gr

from app.ui.checks import shown
from bitune.errors import ConfigError

T = TypeVar("T")

PRIVATE = {"api_visibility": "private"}
# No progress of Gradio's anywhere. "hidden" alone hides it: the page still keeps a status of each output, and at every event copies the
# values of all that is in an output, which for the tabs is the whole page.
QUIET = {**PRIVATE, "show_progress": "hidden", "show_progress_on": []}
AT_ONCE = {**QUIET, "queue": False}
# Who may run the model is decided by app/ui/admission.py, not by Gradio's queue: that knows neither direct requests nor how long they take.
MODEL = {**QUIET, "concurrency_limit": None}
# Past Gradio's queue, so that a tool of MCP knows the connection of who asks: queued, it is called by the page itself.
ENDPOINT = {"concurrency_limit": None, "queue": False}

# What Stop shows, in the browser, at once: the request takes a tenth of a second to notice.
STOPPING = f"() => ({json.dumps(gr.update(value='Stopping', interactive=False))})"


def sent(event: gr.EventData, name: str, kind: type[T]) -> T:
    """What a script of the page has sent with an event, which is JSON; ConfigError for what none of them sends."""
    try:
        value = getattr(event, name)
    except (AttributeError, TypeError) as error:  # TypeError: it comes with no object at all
        raise ConfigError(f"This event comes without its {name!r}; reload the page.") from error
    if type(value) is not kind:
        raise ConfigError(f"The {name!r} of this event is {shown(value)}, and should be {kind.__name__}; reload the page.")
    return value
