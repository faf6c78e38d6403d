"""What a part of the section is: one thing that can be asked about a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.ui.frame import Updates
from app.ui.loading import OnEngine
from app.why.look import Panel
from app.why.looks import Looks
from app.why.run import EndedRun


@dataclass(frozen=True)
class Part:
    """What the section does with a part of it.

    Attributes:
        components: What `show` updates.
        show: Called with each new run when it has ended: empties what was computed for the one before. It runs no model.
        fields: The components of which a link carries the values, by the names of LookLink.
        follow: Called once with the listener after which another answer of the run is the reference; None where nothing is compared.
    """

    components: Sequence[Component]
    show: Callable[[EndedRun], Updates]
    fields: Mapping[str, Component] = field(default_factory=dict)
    follow: Callable[[Dependency], None] | None = None


def start_look(run: EndedRun, panel: Panel) -> dict[str, str]:
    """How the button of a part looks: that of the part which a link opens stands out."""
    return {"variant": "primary" if run.look.panel == panel else "secondary"}


Build = Callable[[OnEngine, gr.State, Looks], Part]
"""Puts a part's components here and wires them. Gets where the model runs; the State that holds the EndedRun on the screen, or None,
as an input for its listeners; and through what its requests go, so that they end with that run."""
