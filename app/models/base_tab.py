"""The section in which another base is loaded, in the head of the page: components and wiring only."""

import gradio as gr

from app.models.base_handlers import BaseHandlers, BaseRequest
from app.models.handlers import Screen
from app.ui.events import PRIVATE
from app.ui.frame import ModelRequest, StopButton, Updates
from app.ui.pieces import html
from app.ui.templates import introduction
from bitune.base.local import EMBEDDED

TITLE = "Load another base"
WORDS = (
    "The model under all variants. When it is ready, the page restarts for everybody who has it open, and answers that are not saved go. "
    "Checkpoints stay if they belong to it."
)
PRESS = "() => { document.querySelector('#bt-base-load').click(); }"


def build(handlers: BaseHandlers) -> None:
    """Put the section here and connect it."""
    with gr.Accordion(TITLE, open=False, elem_id="bt-base"):
        html(introduction(WORDS))
        source = gr.Textbox(
            label="Folder, .gguf file or Hub id",
            placeholder=f"user/name, a path, or {EMBEDDED.name}",
            max_lines=1,
            elem_id="bt-base-source",
        )
        with gr.Row(elem_classes="bt-actions"):
            start = gr.Button("Load and restart", variant="primary", elem_id="bt-base-load", scale=0, min_width=160)
            stop = StopButton(elem_id="bt-base-stop", scale=0, min_width=100)
        words = html("", "bt-base-words", html_template='<div role="status">${value}</div>')

    def show(screen: Screen) -> Updates:
        return {words: screen.words}

    ModelRequest(start, stop, [words], show).wire(BaseRequest(handlers), {"source": source})
    source.submit(None, js=PRESS, **PRIVATE)
