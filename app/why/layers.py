"""Which layers' mixing and which prompt tokens' second reading an answer depends on, as a part of the section: components and wiring only."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from app.ui.frame import ModelRequest, StopButton, Updates, model_api
from app.ui.loading import OnEngine
from app.ui.pieces import html
from app.ui.plots import chart, drawn
from app.ui.templates import heading
from app.why import layers_api
from app.why.layers_run import EffectsRequest, EffectsScreen, mixing_of
from app.why.looks import Looks
from app.why.part import Part, start_look
from app.why.run import EndedRun

TITLE, WORDS = (
    "Which layers' mixing matters",
    "A variant that reads the prompt twice keeps of each token a key, by which later tokens find it, and a value, which they take from it; in every "
    "layer both are a mix of the two readings. Here one layer after the other uses its first reading alone, or its second alone, first "
    "for the keys, then for the values, and the same answer is scored again. A bar below zero: the answer became less likely.",
)
FILE = "bitune-layers"
ROVING = (Path(__file__).resolve().parent / "roving.js").read_text(encoding="utf-8")


def build(on: OnEngine, run: gr.State, looks: Looks) -> Part:
    """See `part.Build`."""
    model_api(layers_api.layers_function(on), "layers", on, layers_api.work_of_layers(on))
    with gr.Column(elem_id="bt-layers") as box:
        html(heading(TITLE, WORDS, level=3))
        of = gr.Radio([], label="Whose mixing", elem_id="bt-layers-of")
        with gr.Row(elem_classes="bt-actions"):
            start = gr.Button("Measure the layers", elem_id="bt-layers-run", scale=0, min_width=190)
            stop = StopButton(elem_id="bt-layers-stop", scale=0, min_width=100)
        bars = chart(None, FILE, "bt-layers-chart")
        result = html("", "bt-layers-result", js_on_load=ROVING)

    def show(screen: EffectsScreen) -> Updates:
        return {result: screen.html, bars: gr.update(**drawn(screen.chart, FILE))}

    request = ModelRequest(start, stop, [result, bars], show)
    request.wire(EffectsRequest(on), {"run": run, "of": of}, looks.screens)

    def for_run(run: EndedRun) -> Updates:
        names = mixing_of(run)
        return {
            box: gr.update(visible=bool(names)),
            of: gr.update(choices=names, value=wished_or_first(run.look.layers_of, names), visible=len(names) > 1),
            **request.updates(EffectsScreen("")),
            start: gr.update(interactive=True, **start_look(run, "layers")),
        }

    return Part([box, of, *request.components], for_run, {"layers_of": of})


def wished_or_first(wish: str | None, names: Sequence[str]) -> str | None:
    """The name that a link wishes where it is here, else the first one; None without any."""
    return wish if wish in names else next(iter(names), None)
