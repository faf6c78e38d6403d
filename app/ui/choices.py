"""Other choices than before in a component that a visitor may be using."""

from collections.abc import Sequence

import gradio as gr


def offered(choices: Sequence, chosen: object, kept: object, **options: object) -> dict[str, object]:
    """Other choices, and another value only where that must be.

    A value that is sent takes the place of what the visitor has chosen while the request was under way, so none is sent where what was
    chosen stays.

    Args:
        choices: As Gradio's components take them.
        chosen: The value that the request found in the component.
        kept: What of it stays, or what takes its place; of a list, the order does not count.
        options: More of the component that changes.

    Returns:
        The update of the component.
    """
    same = sorted(chosen) == sorted(kept) if isinstance(chosen, list) and isinstance(kept, list) else chosen == kept
    return gr.update(choices=choices, **options, **({} if same else {"value": kept}))
