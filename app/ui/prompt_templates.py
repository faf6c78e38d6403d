"""The templates around a prompt that a person can choose."""

import gradio as gr

from app.ui.choices import offered

TEMPLATES = {"own": "its own", "chat": "the base's chat template", "none": "none"}


def template_choice(has_chat_template: bool, **options: object) -> gr.Radio:
    """The choice among the templates that this base has.

    Args:
        has_chat_template: Whether the base has one.
        options: More arguments of gr.Radio.
    """
    return gr.Radio(templates_of(has_chat_template), value="own", label="Template around the prompt", **options)


def templates_left(has_chat_template: bool, chosen: str, **options: object) -> dict[str, object]:
    """The update of that component for another base: `chosen` stays where it is among its templates."""
    choices = templates_of(has_chat_template)
    return offered(choices, chosen, chosen if chosen in [key for _, key in choices] else "own", **options)


def templates_of(has_chat_template: bool) -> list[tuple[str, str]]:
    """The templates that a base has, as choices."""
    return [(label, key) for key, label in TEMPLATES.items() if has_chat_template or key != "chat"]
