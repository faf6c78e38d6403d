"""The tab Attention: components and wiring only. What the browser does with a result is in view.html and the *.js beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from app.attention.handlers import AttentionHandlers
from app.attention.request import FrameQuestion, HeadQuestion, LayerQuestion, Link
from app.ui.checks import not_here
from app.ui.examples import EXAMPLES
from app.ui.frame import Inputs, ModelRequest, StopButton, Updates, browser_function, listen, model_api
from app.ui.latest_run import LatestRun
from app.ui.prompt_templates import template_choice, templates_left
from app.ui.shared import LinkPart, PromptTarget, WhenLoaded
from app.ui.templates import introduction

FOLDER = Path(__file__).resolve().parent
SCRIPTS = (
    "view.js",
    "look.js",
    "paint.js",
    "files.js",
    "text.js",
    "buttons.js",
)  # one scope; the last shows what is there already
INTRODUCTION = (
    "What each word of the prompt looks at while the model reads it. Look at the upper right half of a map: "
    "the first reading cannot look there, the second one can, and the difference shows what it does with it."
)
FROM_LINK = "The fields come from the link. Press Read to see the maps that it opens."


@dataclass(frozen=True)
class AttentionTab:
    """What others may do with this tab: give it a question of the study; what the engine changes, and what a link carries."""

    prompt_target: PromptTarget
    when_loaded: WhenLoaded
    link_part: LinkPart


def build(tab: gr.Tab, handlers: AttentionHandlers, what_ifs: gr.State, latest_run: gr.State) -> AttentionTab:
    """Put the tab's components here and wire them.

    Args:
        tab: This tab; coming to it brings Compare's latest run along.
        handlers: What happens.
        what_ifs: This visitor's, as in app/ui/what_ifs.py.
        latest_run: Holds the LatestRun of this visitor, or None.
    """
    gr.HTML(introduction(INTRODUCTION), apply_default_css=False)
    with gr.Row(elem_classes="bt-form"):
        with gr.Column(scale=5, min_width=300):
            prompt = text_box("Prompt", "bt-attention-prompt", 6, value=EXAMPLES[0].prompt)
            answer = text_box("Answer", "bt-attention-answer", 2, info="Its tokens become rows of the maps; may be left empty.")
        with gr.Column(scale=4, min_width=300):
            variant = gr.Radio(handlers.names, value=handlers.first_choice(), label="Variant", elem_id="bt-attention-variant")
            template = template_choice(handlers.has_chat_template, elem_id="bt-attention-template")
            with gr.Row(elem_classes="bt-actions"):
                start = gr.Button("Read", variant="primary", elem_id="bt-read-attention", scale=0, min_width=120)
                stop = StopButton(elem_id="bt-stop-attention", scale=0, min_width=100)
    fields = {"prompt": prompt, "variant": variant, "template": template, "answer": answer}
    view = browser_view(handlers)
    request = ModelRequest(start, stop, [view], lambda screen: {view: screen.value})
    request.wire(handlers, {**fields, "what_ifs": what_ifs})
    wire_latest_run(tab, handlers, fields, what_ifs, latest_run)
    model_api(handlers.attention, "attention", handlers, handlers.work)

    def fill(question: str, around: str) -> Updates:
        return {prompt: question, template: around, answer: "", latest_run: None}  # so that Compare does not replace it

    target = PromptTarget("attention", [prompt, template, answer, latest_run], fill)
    return AttentionTab(target, when_loaded(handlers, variant, template), link_part(handlers, fields, view))


def when_loaded(handlers: AttentionHandlers, variant: gr.Radio, template: gr.Radio) -> WhenLoaded:
    """The variants that there are, and the templates of this base; what is chosen stays as far as it is there."""

    def fill(read_by: str | None, around: str) -> Updates:
        names = handlers.names
        return {
            variant: gr.update(choices=names, value=read_by if read_by in names else handlers.first_choice()),
            template: gr.update(**templates_left(handlers.has_chat_template, around)),
        }

    return WhenLoaded({"read_by": variant, "around": template}, [variant, template], fill)


def link_part(handlers: AttentionHandlers, fields: Inputs, view: gr.HTML) -> LinkPart:
    """A link fills in the fields, and says what to open; reading is left to the visitor. What is open says look.js."""

    def restore(link: Link, what_ifs: Sequence[str]) -> tuple[Updates, list[str]]:
        look, words = handlers.look(link)
        values = link.model_dump(exclude_none=True, include=set(fields) - {"variant"})
        updates = {fields[name]: value for name, value in values.items()}
        if link.variant is not None:
            here = [*handlers.names, *what_ifs]
            words += not_here([link.variant] if link.variant not in here else [])
            value = link.variant if link.variant in here else handlers.first_choice()
            updates[fields["variant"]] = gr.update(choices=here, value=value)
        return {**updates, view: {"words": FROM_LINK, "look": look}}, words

    return LinkPart("attention", Link, fields, [*fields.values(), view], restore)


def text_box(label: str, name: str, lines: int, **options) -> gr.Textbox:
    """A box for prompt or answer."""
    return gr.Textbox(label=label, lines=lines, max_lines=16, elem_id=name, **options)


def browser_view(handlers: AttentionHandlers) -> gr.HTML:
    """The part that lives in the browser. Its template is fixed text: what a prompt holds never becomes part of a template."""
    questions = {handlers.picture: HeadQuestion, handlers.arrays: LayerQuestion, handlers.frame: FrameQuestion}
    return gr.HTML(
        html_template=(FOLDER / "view.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[
            browser_function(method, handlers, partial(handlers.work_of_question, kind)) for method, kind in questions.items()
        ],
        apply_default_css=False,
        elem_id="bt-attention",
    )


def wire_latest_run(tab: gr.Tab, handlers: AttentionHandlers, fields: Inputs, what_ifs: gr.State, latest_run: gr.State) -> None:
    """Coming here brings Compare's latest run along, once; then another variant brings its own answer."""
    last = gr.State(None)  # the LatestRun that came last
    variant = fields["variant"]

    def take(latest_run: LatestRun | None, taken: LatestRun | None, what_ifs: dict, chosen: str) -> Updates:
        choices = [*handlers.names, *what_ifs]
        if latest_run is None or latest_run == taken:
            value = chosen if chosen in choices else handlers.first_choice()
            return {variant: gr.update(choices=choices, value=value)}
        first = handlers.chosen_first(latest_run)
        return {
            fields["prompt"]: latest_run.prompt,
            fields["answer"]: latest_run.answers[first],
            fields["template"]: latest_run.template,
            variant: gr.update(choices=choices, value=first if first in choices else handlers.first_choice()),
            last: latest_run,
        }

    def change_variant(taken: LatestRun | None, chosen: str, prompt: str, answer: str) -> Updates:
        return {fields["answer"]: handlers.answer_beside(taken, chosen, prompt, answer)}

    inputs = {"latest_run": latest_run, "taken": last, "what_ifs": what_ifs, "chosen": variant}
    listen(tab.select, take, inputs, [*fields.values(), last])
    inputs = {"taken": last, "chosen": variant, "prompt": fields["prompt"], "answer": fields["answer"]}
    listen(variant.input, change_variant, inputs, [fields["answer"]])
