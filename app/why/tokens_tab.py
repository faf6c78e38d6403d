"""Token probabilities and each other's answers as a part of the section: components and wiring only. The browser's side is in tokens.js."""

from pathlib import Path

import gradio as gr
from gradio.events import Dependency

from app.ui.events import PRIVATE, sent
from app.ui.frame import ModelRequest, StopButton, Updates, listen
from app.ui.loading import OnEngine
from app.ui.pieces import as_text, html
from app.ui.templates import heading
from app.why.looks import Looks
from app.why.part import Part, start_look
from app.why.run import EndedRun
from app.why.tokens import GoneOn, GoOn, Screen, TokenScores
from bitune.schema.parting import Parting

FOLDER = Path(__file__).resolve().parent
TITLE, WORDS = (
    "Token by token",
    "How sure each variant was of every token, where the answers part, and what the others would have said there.",
)
PRESS_GO_ON = "() => document.querySelector('#bt-go-on-from:not(:disabled)')?.click()"
NOTHING, NOBODY = Screen({}), GoneOn("")


def build(on: OnEngine, run: gr.State, looks: Looks) -> Part:
    """Put the components here and wire them; a `part.Build`."""
    html(heading(TITLE, WORDS, level=3))
    with gr.Row(elem_classes="bt-actions"):
        look = gr.Button("Look at the tokens", elem_id="bt-look-tokens", scale=0, min_width=190)
        stop = StopButton(elem_id="bt-stop-tokens", scale=0, min_width=100)
    view = gr.HTML(
        as_text(NOTHING.value),
        html_template='<div data-part="tokens"></div>',
        js_on_load=(FOLDER / "tokens.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="bt-tokens",
    )

    found = gr.State(None)  # what the view is made of

    def show(screen: Screen) -> Updates:
        return {view: as_text(screen.value), found: screen.found}

    scores, request = TokenScores(on), ModelRequest(look, stop, [view, found], show)
    ended = request.wire(scores, {"run": run}, looks.screens)
    going_on = build_going_on(on, run, looks, view)

    def redrawn(run: EndedRun | None, found: Parting | None) -> Updates:
        return {view: gr.skip() if run is None or found is None else as_text(scores.screen(run, found).value)}

    def follow(chosen: Dependency) -> None:
        for listener in (chosen, ended):  # another reference may have been chosen while the model was looking
            listen(listener.then, redrawn, {"run": run, "found": found}, [view])

    def emptied(run: EndedRun) -> Updates:
        start = gr.update(interactive=True, **start_look(run, "tokens"))
        return {**request.updates(NOTHING), **going_on.updates(NOBODY), look: start}

    return Part([*request.components, *going_on.components], emptied, follow=follow)


def build_going_on(on: OnEngine, run: gr.State, looks: Looks, view: gr.HTML) -> ModelRequest[GoneOn]:
    """Where a variant goes on from a token that was pressed in `view`. The press fills `chosen` and presses the button."""
    chosen = gr.State(None)
    answer = html("", "bt-gone-on")
    # Shown with the answer, by why.css: what Gradio hides is not on the page, and could not be pressed.
    with gr.Row(elem_classes="bt-actions", elem_id="bt-go-on-row"):
        start = gr.Button("Go on", elem_id="bt-go-on-from", scale=0, min_width=120)
        stop = StopButton(elem_id="bt-stop-going-on", scale=0, min_width=100)

    def show(screen: GoneOn) -> Updates:
        return {answer: screen.html}

    request = ModelRequest(start, stop, [answer], show)
    request.wire(GoOn(on), {"run": run, "chosen": chosen}, looks.screens)

    def choose(event: gr.EventData) -> Updates:
        return {chosen: sent(event, "chosen", dict)}

    pressed = listen(view.select, choose, {}, [chosen])
    pressed.then(None, None, None, js=PRESS_GO_ON, **PRIVATE)
    return request
