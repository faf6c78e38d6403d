"""The section "Why they part" below the answers of Compare: components and wiring only."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.ui.frame import Updates, model_api
from app.ui.loading import OnEngine
from app.ui.pieces import html
from app.ui.templates import heading
from app.why import layers, lens, tokens_tab
from app.why.api import Ask, WhyApi
from app.why.part import Build, Part
from app.why.run import EndedRun, Shown, run_of

TITLE = "Why they part"
WORDS = "Look into these answers, token by token. Nothing is computed before you press a button."
PARTS: tuple[Build, ...] = (tokens_tab.build, layers.build, lens.build)
"""In the order of the page."""


@dataclass(frozen=True)
class Section:
    """`box`: all of it, seen only where there is a run to ask about. `run`: State of the EndedRun on the screen, or None."""

    box: gr.Column
    run: gr.State
    parts: Sequence[Part]

    @property
    def components(self) -> list[Component]:
        """All that `show` may update."""
        return [self.box, self.run, *(component for part in self.parts for component in part.components)]

    def show(self, shown: Shown) -> Updates:
        """The section for a run that has ended; while the next one goes on, and while names are hidden, it is away."""
        run = self.run_of(shown)
        if run is None:
            return {self.box: gr.update(visible=False), self.run: None}
        emptied = {component: value for part in self.parts for component, value in part.show(run).items()}
        return {self.box: gr.update(visible=True), self.run: run, **emptied}

    def run_of(self, shown: Shown) -> EndedRun | None:
        """What can be asked about on this screen."""
        return run_of(shown)

    def follow(self, chosen: Dependency) -> None:
        """After `chosen`, which has updated `run`, the others are compared with its reference; nothing runs for that."""
        for part in self.parts:
            if part.follow is not None:
                part.follow(chosen)


def build(on: OnEngine, ask: Ask) -> Section:
    """Put the section's components here and wire them.

    Args:
        on: Where the model runs.
        ask: Makes a request of what a program asks.
    """
    run = gr.State(None)
    with gr.Column(visible=False, elem_id="bt-why") as box:
        html(heading(TITLE, WORDS))
        parts = [part(on, run) for part in PARTS]
    api = WhyApi(on, ask)
    model_api(api.parting, "parting", api, api.parting_work)
    model_api(api.go_on, "go_on", api, api.go_on_work)
    return Section(box, run, parts)
