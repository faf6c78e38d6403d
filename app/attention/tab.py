"""The tab Attention: components and wiring only. What the browser does with a result is in view.html and the *.js beside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from app.attention.arrival import Arrival, arrival
from app.attention.handlers import AttentionHandlers
from app.attention.recorded import RecordedReading
from app.attention.request import FrameQuestion, HeadQuestion, LayerQuestion, Link
from app.ui.checks import not_here
from app.ui.choices import offered
from app.ui.events import QUIET
from app.ui.examples import EXAMPLES
from app.ui.frame import Inputs, ModelRequest, StopButton, Updates, browser_function, listen, model_api
from app.ui.latest_run import LatestRun
from app.ui.pieces import as_text
from app.ui.prompt_templates import template_choice, templates_left
from app.ui.shared import LinkPart, PromptTarget, WhenLoaded
from app.ui.templates import introduction

FOLDER = Path(__file__).resolve().parent
SCRIPTS = (
    "view.js",
    "look.js",
    "paint.js",
    "files.js",
    "pairs.js",
    "cells.js",
    "text.js",
    "buttons.js",
)  # one scope; the last shows what is there already
INTRODUCTION = (
    "What each word of the prompt looks at while the model reads it. Look at the upper right half of a map: "
    "the first reading cannot look there, the second one can, and the difference shows what it does with it."
)
BESIDE = "A second variant that reads the same, and the difference between the two; the same variant again stands alone."
FROM_LINK = "The fields come from the link. Press Read to see the maps that it opens."


@dataclass(frozen=True)
class AttentionTab:
    """What others may do with this tab: give it a question of the study; what the engine changes, and what a link carries."""

    prompt_target: PromptTarget
    when_loaded: WhenLoaded
    link_part: LinkPart


def build(
    tab: gr.Tab,
    handlers: AttentionHandlers,
    what_ifs: gr.State,
    latest_run: gr.State,
    recorded: RecordedReading | None = None,
) -> AttentionTab:
    """Put the tab's components here and wire them.

    Args:
        tab: This tab; coming to it brings Compare's latest run along.
        handlers: What happens.
        what_ifs: This visitor's, as in app/ui/what_ifs.py.
        latest_run: Holds the LatestRun of this visitor, or None.
        recorded: What is shown before anything was read, if there is something.
    """
    gr.HTML(introduction(INTRODUCTION), apply_default_css=False)
    with gr.Row(elem_classes="bt-form"):
        with gr.Column(scale=5, min_width=300):
            prompt = text_box("Prompt", "bt-attention-prompt", 6, value=EXAMPLES[0].prompt)
            answer = text_box("Answer", "bt-attention-answer", 2, info="Its tokens become rows of the maps; may be left empty.")
        with gr.Column(scale=4, min_width=300):
            variant = gr.Radio(handlers.names, value=handlers.first_choice(), label="Variant", elem_id="bt-attention-variant")
            beside = gr.Dropdown(
                variants_beside(handlers.names), value="", label="Beside it", elem_id="bt-attention-beside", info=BESIDE
            )
            template = template_choice(handlers.has_chat_template, elem_id="bt-attention-template")
            with gr.Row(elem_classes="bt-actions"):
                start = gr.Button("Read", variant="primary", elem_id="bt-read-attention", scale=0, min_width=120)
                stop = StopButton(elem_id="bt-stop-attention", scale=0, min_width=100)
    fields = {"prompt": prompt, "variant": variant, "beside": beside, "template": template, "answer": answer}
    view = browser_view(handlers, recorded)
    request = ModelRequest(start, stop, [view], lambda screen: {view: as_text(screen.value)})
    arrived = gr.State(None)  # the id of the run that was read by itself, once
    request.wire(handlers, {**fields, "what_ifs": what_ifs}, also=[arrived.change])
    wire_latest_run(tab, handlers, Places(fields, view, what_ifs, latest_run, arrived))
    model_api(handlers.attention, "attention", handlers, handlers.work)

    def fill(question: str, around: str) -> Updates:
        return {prompt: question, template: around, answer: "", latest_run: None}  # so that Compare does not replace it

    target = PromptTarget("attention", [prompt, template, answer, latest_run], fill)
    return AttentionTab(target, when_loaded(handlers, fields, what_ifs), link_part(handlers, fields, view))


def variants_beside(names: Iterable[str]) -> list[tuple[str, str]]:
    """The choices for a second variant."""
    return [("nothing", ""), *((name, name) for name in names)]


@dataclass(frozen=True)
class Choice:
    """A variant, and the one beside it ("" for nothing)."""

    variant: str | None
    beside: str


def choosing(
    handlers: AttentionHandlers, fields: Inputs, here: Sequence[str], wanted: Choice, chosen: Choice | None = None
) -> Updates:
    """The choice `wanted` among the variants that are `here`; what is not there gives way to the first choice, or nothing.

    `chosen`: what the request found in the fields; None where they are to be set whatever they hold.
    """
    variant = wanted.variant if wanted.variant in here else handlers.first_choice()
    beside = wanted.beside if wanted.beside in here else ""
    return {
        fields["variant"]: offered(here, chosen and chosen.variant, variant),
        fields["beside"]: offered(variants_beside(here), chosen and chosen.beside, beside),
    }


def when_loaded(handlers: AttentionHandlers, fields: Inputs, what_ifs: gr.State) -> WhenLoaded:
    """The variants that there are, and the templates of this base; what is chosen stays as far as it is there."""
    chosen = {name: fields[name] for name in ("variant", "beside", "template")}

    def fill(variant: str | None, beside: str, template: str, known: dict) -> Updates:
        now = Choice(variant, beside)
        updates = choosing(handlers, fields, [*handlers.names, *known], now, now)
        return {**updates, fields["template"]: templates_left(handlers.has_chat_template, template)}

    return WhenLoaded({**chosen, "known": what_ifs}, list(chosen.values()), fill)


def link_part(handlers: AttentionHandlers, fields: Inputs, view: gr.HTML) -> LinkPart:
    """A link fills in the fields, and says what to open; reading is left to the visitor. What is open says look.js."""

    def restore(link: Link, what_ifs: Mapping[str, dict]) -> tuple[Updates, list[str]]:
        look, words = handlers.look(link)
        values = link.model_dump(exclude_none=True, include=set(fields) - {"variant", "beside"})
        updates = {fields[name]: value for name, value in values.items()}
        if link.variant is not None:
            here = [*handlers.names, *what_ifs]
            words += not_here(name for name in (link.variant, link.beside) if name and name not in here)
            updates |= choosing(handlers, fields, here, Choice(link.variant, link.beside or ""))
        return {**updates, view: as_text({"words": FROM_LINK, "look": look})}, words

    return LinkPart("attention", Link, fields, [*fields.values(), view], restore)


def text_box(label: str, name: str, lines: int, **options) -> gr.Textbox:
    """A box for prompt or answer."""
    return gr.Textbox(label=label, lines=lines, max_lines=16, elem_id=name, **options)


def browser_view(handlers: AttentionHandlers, recorded: RecordedReading | None) -> gr.HTML:
    """The part that lives in the browser. Its template is fixed text: what a prompt holds never becomes part of a template."""
    questions = {handlers.picture: HeadQuestion, handlers.arrays: LayerQuestion, handlers.frame: FrameQuestion}
    return gr.HTML(
        as_text(None if recorded is None else recorded.screen),
        html_template=(FOLDER / "view.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[
            browser_function(method, handlers, partial(handlers.work_of_question, kind)) for method, kind in questions.items()
        ],
        apply_default_css=False,
        elem_id="bt-attention",
    )


@dataclass(frozen=True)
class Places:
    """What coming to the tab looks at and changes."""

    fields: Inputs
    view: gr.HTML
    what_ifs: gr.State
    latest_run: gr.State
    arrived: gr.State


def wire_latest_run(tab: gr.Tab, handlers: AttentionHandlers, places: Places) -> None:
    """Coming here brings Compare's latest run along, and reads it, once; then another variant brings its own answer."""
    last = gr.State(None)  # the LatestRun that came last
    fields = places.fields

    def take(latest_run: LatestRun | None, taken: LatestRun | None, what_ifs: dict, chosen: str, beside: str) -> Updates:
        here = [*handlers.names, *what_ifs]
        if latest_run is None or latest_run == taken:
            now = Choice(chosen, beside)
            return choosing(handlers, fields, here, now, now)
        first = handlers.chosen_first(latest_run)
        found = arrival(handlers, latest_run, first, what_ifs) if first in here else Arrival(False)
        return {
            fields["prompt"]: latest_run.prompt,
            fields["answer"]: latest_run.answers[first],
            fields["template"]: latest_run.template,
            **choosing(handlers, fields, here, Choice(first, beside), Choice(chosen, beside)),
            last: latest_run,
            places.arrived: latest_run.id if found.reads else gr.skip(),
            places.view: as_text({"words": found.words}) if found.words else gr.skip(),
        }

    def change_variant(taken: LatestRun | None, chosen: str, prompt: str, answer: str) -> Updates:
        return {fields["answer"]: handlers.answer_beside(taken, chosen, prompt, answer)}

    choices = {"chosen": fields["variant"], "beside": fields["beside"]}
    inputs = {"latest_run": places.latest_run, "taken": last, "what_ifs": places.what_ifs, **choices}
    # Queued: only then does Gradio tell the page that `arrived` has changed.
    queued = {**QUIET, "concurrency_limit": None}
    listen(tab.select, take, inputs, [*fields.values(), last, places.arrived, places.view], **queued)
    inputs = {"taken": last, "chosen": fields["variant"], "prompt": fields["prompt"], "answer": fields["answer"]}
    listen(fields["variant"].input, change_variant, inputs, [fields["answer"]])
