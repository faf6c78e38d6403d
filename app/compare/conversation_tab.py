"""More than one turn in Compare: components and wiring only."""

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.compare.conversation import UNTESTED, WAYS, GoingOn, again, can_go_on, follow_up, questions_in, story
from app.compare.handlers import CompareHandlers, Screen
from app.ui.events import PRIVATE, sent
from app.ui.frame import Inputs, ModelRequest, Updates, from_shown, listen
from app.ui.pieces import html
from app.ui.templates import problem
from bitune.schema.conversation import RECOMPUTE

SAMPLING = ("max_new_tokens", "temperature", "top_p", "seed")
ASK, ASK_AGAIN = "Ask a follow-up", "Edit question {} and ask again"
ASK_INFO = "One question to all columns; each variant goes on from its own answers."
EDIT_INFO = "What came after this question is left out. Variants and template stay as they are."
EARLIER_INFO = f"{UNTESTED} Variants that read once, left to right, answer the same either way."
ON_LOAD = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-turn]");
    if (button) trigger("select", { turn: Number(button.dataset.turn) });
});"""
PRESS_ASK = "() => document.querySelector('#bt-ask:not(:disabled)')?.click()"
# In the browser, as somebody may be typing the next one.
WITHOUT_ASKED = "(question, asked) => (question === asked ? '' : question)"
TO_QUESTION = "() => document.querySelector('#bt-question textarea')?.focus()"


@dataclass(frozen=True)
class Panel:
    """The turns before the answers, and what goes on below them.

    `kept`: how many turns stay where a question is edited, or None. `asked`: the question of the run that is shown.
    """

    story: gr.HTML
    place: gr.Column
    question: gr.Textbox
    asked: gr.Textbox
    ask: gr.Button
    again: gr.Button
    edit: gr.Button
    earlier: gr.Radio
    note: gr.HTML
    kept: gr.State

    @property
    def components(self) -> list[Component]:
        """Everything that a screen may change."""
        return [self.story, self.place, self.question, self.asked, self.ask, self.again, self.edit, self.note, self.kept]

    def show(self, screen: Screen) -> Updates:
        """A screen on these components. While a request runs nothing here can be pressed; what is typed meanwhile stays."""
        buttons = {button: gr.update(interactive=not screen.running) for button in (self.ask, self.again, self.edit)}
        updates = {self.story: story(screen), self.note: problem(screen.note) if screen.note else "", **buttons}
        if screen.running:
            return updates
        updates[self.place] = gr.update(visible=can_go_on(screen))
        if screen.note:
            return updates
        asked = "" if screen.request is None else screen.request.prompt
        return {**updates, self.asked: asked, self.question: gr.update(label=ASK, info=ASK_INFO), self.kept: None}

    def editing(self, question: str, kept: int) -> Updates:
        """The box with a question to edit."""
        return {self.question: gr.update(value=question, label=ASK_AGAIN.format(kept + 1), info=EDIT_INFO), self.kept: kept}


def above() -> gr.HTML:
    """Where the turns before the answers stand."""
    return html("", "bt-story", js_on_load=ON_LOAD)


def below(before: gr.HTML) -> Panel:
    """What goes on from the answers; `before` is what `above` returned."""
    with gr.Column(visible=False, elem_id="bt-go-on") as place:
        question = gr.Textbox(label=ASK, info=ASK_INFO, lines=1, max_lines=8, elem_id="bt-question")
        with gr.Row(elem_classes="bt-actions"):
            ask = gr.Button("Ask", variant="primary", elem_id="bt-ask", scale=0, min_width=100)
            regenerate = gr.Button("Regenerate", elem_id="bt-again", scale=0, min_width=140)
            edit = gr.Button("Edit and ask again", elem_id="bt-edit", scale=0, min_width=190)
        note, asked = html("", "bt-go-on-note"), gr.Textbox(visible=False)
        ways = [(words[0].upper() + words[1:], way) for way, words in WAYS.items()]
        earlier = gr.Radio(
            ways, value=RECOMPUTE, label="For a follow-up, the turns before are", info=EARLIER_INFO, elem_id="bt-earlier"
        )
    return Panel(before, place, question, asked, ask, regenerate, edit, earlier, note, gr.State(None))


def wire(
    panel: Panel,
    handlers: CompareHandlers,
    fields: Inputs,
    what_ifs: gr.State,
    request: ModelRequest[Screen],
    latest: gr.State,
) -> list[Dependency]:
    """Ask, Regenerate and Edit, on the screens of `request`, which is what Run asks for; `fields` are those of the form.

    Returns the listeners of what comes last after Ask and Regenerate.
    """
    inputs = {"shown": latest, "what_ifs": what_ifs, **{name: fields[name] for name in SAMPLING}}
    asked = {**inputs, "question": panel.question, "kept": panel.kept, "earlier": panel.earlier}
    ended = [
        go_on(panel, panel.ask, GoingOn(handlers, follow_up), asked, fields, request),
        go_on(panel, panel.again, GoingOn(handlers, again), inputs, fields, request),
    ]
    for run in ended:
        run.then(None, [panel.question, panel.asked], panel.question, js=WITHOUT_ASKED, **PRIVATE)
    panel.question.submit(None, None, None, js=PRESS_ASK, **PRIVATE)

    def edit_last(shown: Screen) -> Updates:
        return edit(shown, len(shown.request.history))

    def edit_earlier(shown: Screen, event: gr.EventData) -> Updates:
        return edit(shown, sent(event, "turn", int))

    def edit(shown: Screen, turn: int) -> Updates:
        questions = questions_in(shown) if can_go_on(shown) else []
        return panel.editing(questions[turn], turn) if 0 <= turn < len(questions) else {panel.kept: gr.skip()}

    for trigger, handler in ((panel.edit.click, edit_last), (panel.story.select, edit_earlier)):
        edited = listen(trigger, handler, {"shown": latest}, [panel.question, panel.kept])
        edited.then(None, None, None, js=TO_QUESTION, **PRIVATE)
    return ended


def go_on(
    panel: Panel,
    button: gr.Button,
    going: GoingOn,
    inputs: Mapping[str, Component],
    fields: Inputs,
    request: ModelRequest[Screen],
) -> Dependency:
    """A button of the panel whose screens appear where those of Run do, and whose request the form shows at its end."""

    def show(screen: Screen) -> Updates:
        updates = {component: value for component, value in request.updates(screen).items() if component not in mine}
        if screen.running and screen.request is None:  # it waits: the conversation stands there as before
            del updates[panel.story]
        if screen.running or screen.request is None or screen.note:
            return updates
        updates[fields["seed"]] = screen.request.seed
        return updates if screen.request.history else {**updates, fields["prompt"]: screen.request.prompt}

    mine = (button, request.stop.button)
    outputs = [component for component in request.components if component not in mine]
    asking = ModelRequest(button, request.stop, [*outputs, fields["seed"], fields["prompt"]], show)
    return asking.wire(going, inputs, from_shown)
