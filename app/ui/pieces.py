"""HTML of ours as a component, and what its script draws."""

from typing import Any

import gradio as gr
from pydantic import TypeAdapter

ANYTHING = TypeAdapter(Any)


def html(text: str = "", elem_id: str | None = None, **options: object) -> gr.HTML:
    """HTML of ours, without Gradio's own look.

    Args:
        text: From a template.
        elem_id: Its id on the page.
        options: More arguments of gr.HTML.
    """
    return gr.HTML(text, elem_id=elem_id, apply_default_css=False, **options)


def as_text(value: object) -> str:
    """What the script of a gr.HTML draws, as JSON in one text, which the script parses.

    On the page Gradio copies the values of components, and of what is in them, at every event: each list of a nested value costs time
    then, and tens of thousands of numbers keep the page busy for seconds. A text is one value.
    """
    return ANYTHING.dump_json(value).decode()
