"""The section in which checkpoints are loaded and unloaded, in the head of the page: components and wiring only."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from gradio.events import Dependency

from app.models.handlers import LoadRequest, ModelsHandlers, Screen, UnloadRequest
from app.ui.caller import Caller
from app.ui.events import MODEL, PRIVATE, sent
from app.ui.frame import ModelRequest, StopButton, Updates, listen, screens
from app.ui.pieces import html
from app.ui.shared import WhatIfTarget, WhenLoaded
from app.ui.templates import introduction

FOLDER = Path(__file__).resolve().parent
TITLE = "Load or unload a checkpoint"
WORDS = (
    "A Bitune checkpoint or a plain LoRA of this base. It becomes a variant in every tab, for everybody who has this page open."
)
ON_LIST = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (button) trigger("select", { name: button.dataset.name });
});"""
PRESS = "() => { document.querySelector('#bt-models-load').click(); }"
LOOK = "() => { document.dispatchEvent(new CustomEvent('bt-models')); }"


@dataclass(frozen=True)
class Section:
    """The components. `words`: what the last request came to; `watch`: finds out when something has changed;
    `loaded`: State of the name that the last request loaded; `wanted`: of what goes."""

    source: gr.Textbox
    name: gr.Textbox
    start: gr.Button
    stop: StopButton
    words: gr.HTML
    listed: gr.HTML
    watch: gr.HTML
    loaded: gr.State
    wanted: gr.State
    handlers: ModelsHandlers

    @property
    def when_loaded(self) -> WhenLoaded:
        """The list as it is, and which state that is."""

        def fill() -> Updates:
            return {self.watch: self.handlers.shown(), self.listed: self.handlers.listing()}

        return WhenLoaded({}, [self.watch, self.listed], fill)


def build(handlers: ModelsHandlers) -> Section:
    """Put the components here; `wire` connects them when the tabs are there."""

    def state(asked: None) -> dict[str, object]:  # Gradio passes what the browser gives, which is nothing
        return handlers.state()

    # Not in the accordion: what is in a closed one is not on the page.
    script = (FOLDER / "watch.js").read_text(encoding="utf-8")
    watch = html(handlers.shown(), "bt-models-watch", js_on_load=script, server_functions=[state])
    label, example = ("Folder or Hub id", "user/name, or a folder") if handlers.folders else ("Hub id", "user/name")
    with gr.Accordion(TITLE, open=False, elem_id="bt-models"):
        html(introduction(WORDS))
        with gr.Row(elem_classes="bt-models-form"):
            source = gr.Textbox(label=label, placeholder=example, max_lines=1, elem_id="bt-models-source", scale=3, min_width=240)
            name = gr.Textbox(
                label="Name (if you like)",
                max_lines=1,
                elem_id="bt-models-name",
                placeholder="its last part",
                scale=1,
                min_width=160,
            )
        with gr.Row(elem_classes="bt-actions"):
            start = gr.Button("Load", variant="primary", elem_id="bt-models-load", scale=0, min_width=120)
            stop = StopButton(elem_id="bt-models-stop", scale=0, min_width=100)
        words = html("", "bt-models-words", html_template='<div role="status">${value}</div>')
        listed = html(handlers.listing(), "bt-models-list", js_on_load=ON_LIST)
    return Section(source, name, start, stop, words, listed, watch, gr.State(None), gr.State(None), handlers)


def wire(section: Section, target: WhatIfTarget, what_ifs: gr.State) -> None:
    """Connect the buttons; what was loaded is chosen in Compare on the page that asked for it."""

    def show(screen: Screen) -> Updates:
        return {section.words: screen.words, section.loaded: screen.loaded}

    outputs = [section.words, section.loaded]
    request = ModelRequest(section.start, section.stop, outputs, show)
    asked = {"source": section.source, "name": section.name}
    run = request.wire(LoadRequest(section.handlers), asked)
    for field in (section.source, section.name):
        field.submit(None, js=PRESS, **PRIVATE)

    def choose(loaded: str | None, chosen: list[str], known: dict) -> Updates:
        if loaded is None:
            return dict.fromkeys([*target.components, section.source, section.name], gr.skip())
        return {**target.show(known, [*chosen, loaded], chosen), section.source: "", section.name: ""}

    inputs = {"loaded": section.loaded, "chosen": target.chosen, "known": what_ifs}
    filled = [*target.components, section.source, section.name]
    listen(run.then, choose, inputs, filled).then(None, js=LOOK, **PRIVATE)
    wire_unload(section, show, outputs)


def wire_unload(section: Section, show, outputs: list) -> Dependency:
    """A button of the list takes its checkpoint away."""
    unloading, proxies = UnloadRequest(section.handlers), section.handlers.admission.proxies

    def take(event: gr.EventData) -> Updates:
        return {section.wanted: sent(event, "name", str)}

    async def run(**values: object) -> AsyncIterator[Updates]:
        async with aclosing(screens(unloading, Caller.current(proxies), **values)) as running:
            async for screen in running:
                yield show(screen)

    taken = listen(section.listed.select, take, {}, [section.wanted])
    ended = taken.then(run, None, outputs, inputs_kwargs={"name": section.wanted}, **MODEL)
    return ended.then(None, js=LOOK, **PRIVATE)
