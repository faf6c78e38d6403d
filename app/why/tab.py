"""The section "Why they part" below the answers of Compare: components and wiring only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.ui.caller import current_session
from app.ui.frame import Updates, model_api
from app.ui.loading import OnEngine
from app.ui.pieces import html
from app.ui.templates import heading, render
from app.why import layers, lens, tokens_tab
from app.why.api import Ask, WhyApi
from app.why.looks import Looks
from app.why.part import Build, Part
from app.why.run import EndedRun, Recorded, Shown, run_of

TITLE = "Why they part"
WORDS = "Look into these answers, token by token. Nothing is computed before you press a button."
RECORDED = "These answers are recorded. What is shown here is computed now, with the weights that gave them."
NotLookedInto = Callable[[Recorded], str]
"""Why nothing can be computed for recorded answers, in a sentence or two; empty where it can."""
PARTS: tuple[Build, ...] = (tokens_tab.build, layers.build, lens.build)
"""In the order of the page."""


@dataclass(frozen=True)
class Section:
    """`box`: all of it, seen only where there are answers to ask about. `note`: on recorded ones. `inner`: the parts, seen where something can
    be computed. `run`: State of the EndedRun on the screen, or None. `looks`: what is being computed for it."""

    box: gr.Column
    note: gr.HTML
    inner: gr.Column
    run: gr.State
    parts: Sequence[Part]
    not_looked_into: NotLookedInto
    looks: Looks

    @property
    def components(self) -> list[Component]:
        """All that `show` may update."""
        return [self.box, self.note, self.inner, self.run, *(component for part in self.parts for component in part.components)]

    def show(self, shown: Shown, before: EndedRun | None = None) -> Updates:
        """The section for a run that has ended; while the next one goes on, and while names are hidden, it is away.

        Args:
            shown: What the tab shows.
            before: What `run` held until now, where it is known; of the same run all that was found stays.
        """
        run = run_of(shown)
        if run is None or run != before:
            self.looks.end(current_session())
        if run is None:
            return {self.box: gr.update(visible=False), self.run: None}
        why_not = "" if shown.recording is None else self.not_looked_into(shown.recording)
        note = why_not or (RECORDED if shown.recording is not None else "")
        seen = {self.box: gr.update(visible=True), self.note: render("why/note.html", words=note)}
        if why_not:
            return {**seen, self.inner: gr.update(visible=False), self.run: None}
        if run == before:
            return seen
        emptied = {component: value for part in self.parts for component, value in part.show(run).items()}
        return {**seen, self.inner: gr.update(visible=True), self.run: run, **emptied}

    @property
    def fields(self) -> dict[str, Component]:
        """The components of which a link carries the values, by the names of LookLink."""
        return {name: component for part in self.parts for name, component in part.fields.items()}

    def compared(self, shown: Shown, run: EndedRun | None) -> EndedRun | None:
        """`run`, with the reference that is on the screen now; None where no run can be asked about."""
        return run if run is None else run_of(shown)

    def follow(self, chosen: Dependency) -> None:
        """After `chosen`, which has updated `run`, the others are compared with its reference; nothing runs for that."""
        for part in self.parts:
            if part.follow is not None:
                part.follow(chosen)


def build(on: OnEngine, ask: Ask, not_looked_into: NotLookedInto) -> Section:
    """Put the section's components here and wire them.

    Args:
        on: Where the model runs.
        ask: Makes a request of what a program asks.
        not_looked_into: Whether recorded answers can be asked about.
    """
    run = gr.State(None)
    with gr.Column(visible=False, elem_id="bt-why") as box:
        html(heading(TITLE, WORDS))
        note = html("", "bt-why-note")
        looks, parts = Looks(), []
        with gr.Column() as inner:
            for part in PARTS:
                with gr.Column(elem_classes="bt-why-part"):
                    parts.append(part(on, run, looks))
    api = WhyApi(on, ask)
    model_api(api.parting, "parting", api, api.parting_work)
    model_api(api.go_on, "go_on", api, api.go_on_work)
    return Section(box, note, inner, run, parts, not_looked_into, looks)
