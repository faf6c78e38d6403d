"""How Gradio runs an event: shown or not, queued or at once. Every listener of the page takes one of these sets of arguments."""

import json

import gradio as gr

PRIVATE = {"api_visibility": "private"}
QUIET = {**PRIVATE, "show_progress": "hidden"}
AT_ONCE = {**QUIET, "queue": False}
# Who may run the model is decided by app/ui/admission.py, not by Gradio's queue: that knows neither direct requests nor how long they take.
MODEL = {**QUIET, "concurrency_limit": None}
# Past Gradio's queue, so that a tool of MCP knows the connection of who asks: queued, it is called by the page itself.
ENDPOINT = {"concurrency_limit": None, "queue": False}

# What Stop shows, in the browser, at once: the request takes a tenth of a second to notice.
STOPPING = f"() => ({json.dumps(gr.update(value='Stopping', interactive=False))})"
