"""How Gradio runs an event: shown or not, queued or at once. Every listener of the page takes one of these sets of arguments."""

import json

import gradio as gr

MODEL_QUEUE = "model"  # every event that runs the model waits in this one queue, one at a time
ONE_AT_A_TIME = {"concurrency_id": MODEL_QUEUE, "concurrency_limit": 1}
PRIVATE = {"api_visibility": "private"}
QUIET = {**PRIVATE, "show_progress": "hidden"}
AT_ONCE = {**QUIET, "queue": False}
MODEL = {**QUIET, **ONE_AT_A_TIME}

# What Stop shows, in the browser, at once: the model notices between two steps, and reading a long prompt is one step.
STOPPING = f"() => ({json.dumps(gr.update(value='Stopping', interactive=False))})"
