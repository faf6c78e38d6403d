"""The tab Attention: components and wiring only. What the browser does with a reading is in attention_view/."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from app.attention.handlers import AttentionHandlers, Offer
from app.compare.handlers import Screen
from app.ui.errors import sentence
from app.ui.events import MODEL_QUEUE
from app.ui.examples import EXAMPLES
from app.ui.prompt_templates import TEMPLATES

VIEW = Path(__file__).resolve().parent
SCRIPTS = ("view.js", "paint.js", "files.js", "text.js", "buttons.js")  # one scope; the last shows what is there already
STYLE = VIEW / "view.css"
INTRODUCTION = (
    "What each word of the prompt looks at while the model reads it. Look at the upper right half of a map: "
    "the first reading cannot look there, the second one can, and the difference shows what it does with it."
)


@dataclass(frozen=True)
class Fields:
    """What a person fills in. `taken`: the Offer that came from Compare last, so that each comes once."""

    prompt: gr.Textbox
    variant: gr.Radio
    template: gr.Radio
    answer: gr.Textbox
    taken: gr.State

    def all(self) -> list:
        return [self.prompt, self.variant, self.template, self.answer]

    def fill(self, prompt: str, template: str, taken: Offer | None) -> dict:
        """The component updates for a prompt from another tab, which then is not replaced by what Compare offers."""
        return {self.prompt: prompt, self.template: template, self.answer: "", self.taken: taken}


def build(tab: gr.Tab, handlers: AttentionHandlers, latest: gr.State, what_ifs: gr.State) -> Fields:
    """Put the tab's components here and wire them; `latest` holds Compare's latest Screen, `what_ifs` this visitor's.

    Returned for the other tabs: the fields.
    """
    gr.HTML(f'<p class="bt-introduction">{INTRODUCTION}</p>', apply_default_css=False)
    with gr.Row(elem_classes="bt-form"):
        with gr.Column(scale=5, min_width=300):
            prompt = text_box("Prompt", "bt-attention-prompt", 6, value=EXAMPLES[0].prompt)
            answer = text_box("Answer", "bt-attention-answer", 2, info="Its tokens become rows of the maps; may be left empty.")
        with gr.Column(scale=4, min_width=300):
            names = list(handlers.engine.variants)
            variant = gr.Radio(names, value=handlers.first_choice(), label="Variant", elem_id="bt-attention-variant")
            has_chat = handlers.engine.base_facts.has_chat_template
            template = gr.Radio(
                [(label, key) for key, label in TEMPLATES.items() if has_chat or key != "chat"],
                value="own",
                label="Template around the prompt",
                elem_id="bt-attention-template",
            )
            with gr.Row(elem_classes="bt-actions"):
                read = gr.Button("Read", variant="primary", elem_id="bt-read-attention", scale=0, min_width=120)
    fields = Fields(prompt, variant, template, answer, taken=gr.State(None))
    wire_read(handlers, fields.all(), what_ifs, read, view(handlers))
    wire_offer(tab, handlers, fields, latest, what_ifs)
    gr.api(api_of(handlers), api_name="attention", concurrency_id=MODEL_QUEUE, concurrency_limit=1)
    return fields


def text_box(label: str, name: str, lines: int, **options) -> gr.Textbox:
    """A box for prompt or answer."""
    return gr.Textbox(label=label, lines=lines, max_lines=16, elem_id=name, **options)


def view(handlers: AttentionHandlers) -> gr.HTML:
    """The part that lives in the browser. Its template is fixed text: what a prompt holds never becomes part of a template."""

    # Gradio marks what the browser may call, and a method cannot be marked.
    def picture(question: dict) -> dict:
        return handlers.picture(question)

    def arrays(question: dict) -> dict:
        return handlers.arrays(question)

    def frame(question: dict) -> dict:
        return handlers.frame(question)

    return gr.HTML(
        html_template=(VIEW / "view.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((VIEW / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[picture, arrays, frame],
        apply_default_css=False,
        elem_id="bt-attention",
    )


def wire_read(handlers: AttentionHandlers, fields: list, what_ifs: gr.State, read: gr.Button, view: gr.HTML) -> None:
    """Read runs the passes once. The announcement is not queued: it says that the request waits."""

    def announce() -> dict:
        return {view: handlers.waiting(), read: gr.update(interactive=False)}

    def run(*values) -> dict:
        return {view: handlers.read(*values), read: gr.update(interactive=True)}

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    announced = read.click(announce, None, [view, read], queue=False, **quiet)
    announced.then(run, [*fields, what_ifs], [view, read], concurrency_id=MODEL_QUEUE, concurrency_limit=1, **quiet)


def wire_offer(tab: gr.Tab, handlers: AttentionHandlers, fields: Fields, latest: gr.State, what_ifs: gr.State) -> None:
    """Coming from Compare brings its latest run along, once; then another variant brings its own answer."""
    variant = fields.variant

    def come(screen: Screen, before: object, questions: dict, chosen: str) -> dict:
        choices = [*handlers.engine.variants, *questions]
        kept = {variant: gr.update(choices=choices, value=chosen if chosen in choices else handlers.first_choice())}
        offer = handlers.offer(screen)
        if offer is None or offer == before:
            return kept
        return {
            fields.prompt: offer.prompt,
            fields.answer: offer.answer,
            fields.template: offer.template,
            variant: gr.update(choices=choices, value=offer.variant if offer.variant in choices else handlers.first_choice()),
            fields.taken: offer,
        }

    def choose(offer: Offer | None, chosen: str, asked: str, answered: str) -> str:
        return handlers.answer_of(offer, chosen, asked, answered)

    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    tab.select(come, [latest, fields.taken, what_ifs, variant], [*fields.all(), fields.taken], **quiet)
    variant.input(choose, [fields.taken, variant, fields.prompt, fields.answer], fields.answer, **quiet)


def api_of(handlers: AttentionHandlers) -> Callable:
    """The function behind /attention. Its signature and docstring are what clients and MCP tools read."""

    def attention(
        prompt: str,
        variant: str,
        layer: int = 0,
        head: int | None = None,
        answer: str = "",
        template: str = "own",
        what_ifs: dict | None = None,
    ) -> dict:
        """What the tokens of a prompt attend to in one layer, in each reading of the prompt that a variant makes.

        Args:
            prompt: What the model reads.
            variant: Name of the variant that reads it.
            layer: Which layer, counted from 0.
            head: Which head, counted from 0; all heads of the layer if left out.
            answer: A text whose tokens attend too, after the prompt; may be empty.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            what_ifs: More variants of this request alone, as /compare takes them: {name: {"of": ..., "keys": [...], "values": [...]}}.

        Returns:
            tokens; passes: for every reading, [heads][query][key] over all prompt tokens but the last; answer: [heads][query][key] of
            the last prompt token and the answer, on the mixed cache and on the first reading's alone; summaries: per reading and measure
            [layers][heads]; moved_keys and moved_values: how far mixing moved the cache, [layers][tokens].
        """
        try:
            return handlers.answer(prompt, variant, layer, head, answer, template, what_ifs)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return attention
