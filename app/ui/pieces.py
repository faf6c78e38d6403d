"""HTML of ours as a component."""

import gradio as gr


def html(text: str = "", elem_id: str | None = None, **options: object) -> gr.HTML:
    """HTML of ours, without Gradio's own look.

    Args:
        text: From a template.
        elem_id: Its id on the page.
        options: More arguments of gr.HTML.
    """
    return gr.HTML(text, elem_id=elem_id, apply_default_css=False, **options)
