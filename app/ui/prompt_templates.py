"""The templates around a prompt that a person can choose."""

import gradio as gr

TEMPLATES = {"own": "its own", "chat": "the base's chat template", "none": "none"}


def template_choice(has_chat_template: bool, **options: object) -> gr.Radio:
    """The choice among the templates that this base has.

    Args:
        has_chat_template: Whether the base has one.
        options: More arguments of gr.Radio.
    """
    return gr.Radio(label="Template around the prompt", **templates_left(has_chat_template, "own"), **options)


def templates_left(has_chat_template: bool, chosen: str) -> dict[str, object]:
    """The choices of that component, and `chosen` as its value where it is among them."""
    choices = [(label, key) for key, label in TEMPLATES.items() if has_chat_template or key != "chat"]
    return {"choices": choices, "value": chosen if chosen in [key for _, key in choices] else "own"}
