"""What variants would say after each layer, as a part of the section: components and wiring only."""

import gradio as gr

from app.ui.frame import ModelRequest, StopButton, Updates, listen, model_api
from app.ui.loading import OnEngine
from app.ui.pieces import html
from app.ui.plots import chart, drawn
from app.ui.templates import heading
from app.why import layers_api
from app.why.layers import ROVING, wished_or_first
from app.why.layers_run import mixing_of
from app.why.lens_run import LensRequest, LensScreen, parting_place, tokens_of
from app.why.looks import Looks
from app.why.part import Part, start_look
from app.why.run import EndedRun

TITLE, WORDS = (
    "Layer by layer",
    "What each variant would say at one place of an answer if the model ended after this layer. All variants read the same answer up to there. "
    "One that reads the prompt twice and mixes both readings stands here once more as it would be with its first reading alone. "
    "Each mark on the scale of the chart is a hundred times the one below it.",
)
FILE = "bitune-layer-by-layer"


def build(on: OnEngine, run: gr.State, looks: Looks) -> Part:
    """See `part.Build`."""
    model_api(layers_api.lens_function(on), "lens", on, layers_api.work_of_lens_call(on))
    html(heading(TITLE, WORDS, level=3))
    with gr.Row(elem_id="bt-lens"):
        of = gr.Radio([], label="The answer that is followed", elem_id="bt-lens-of", min_width=240)
        place = gr.Dropdown([], label="Its token", elem_id="bt-lens-token", min_width=180)
    with gr.Row(elem_classes="bt-actions"):
        start = gr.Button("Look into the layers", elem_id="bt-lens-run", scale=0, min_width=190)
        stop = StopButton(elem_id="bt-lens-stop", scale=0, min_width=100)
    lines = chart(None, FILE, "bt-lens-chart")
    result = html("", "bt-lens-result", js_on_load=ROVING)

    def show(screen: LensScreen) -> Updates:
        return {result: screen.html, lines: gr.update(**drawn(screen.chart, FILE))}

    request = ModelRequest(start, stop, [result, lines], show)
    request.wire(LensRequest(on), {"run": run, "of": of, "place": place}, looks.screens)

    def follow(run: EndedRun | None, of: str) -> Updates:
        return {place: gr.skip() if run is None else gr.update(choices=tokens_of(on, run, of), value=parting_place(run, of))}

    listen(of.input, follow, {"run": run, "of": of}, [place])

    def for_run(run: EndedRun) -> Updates:
        names = list(run.answers)
        followed = wished_or_first(run.look.lens_of, [*mixing_of(run), *names])  # only what mixes stands here twice
        choices = tokens_of(on, run, followed)
        wished = run.look.lens_token if run.look.lens_token in range(len(choices)) else parting_place(run, followed)
        return {
            of: gr.update(choices=names, value=followed, visible=len(names) > 1),
            place: gr.update(choices=choices, value=wished),
            **request.updates(LensScreen("")),
            start: gr.update(interactive=True, **start_look(run, "lens")),
        }

    return Part([of, place, *request.components], for_run, {"lens_of": of, "lens_token": place})
