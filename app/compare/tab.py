"""The tab Compare: components and wiring only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gradio as gr

from app.compare.handlers import CompareHandlers, Screen
from app.compare.request import MAX_NEW_TOKENS, from_query
from app.ui.errors import sentence
from app.ui.events import MODEL_QUEUE, STOPPING
from app.ui.examples import EXAMPLES
from app.ui.prompt_templates import TEMPLATES
from bitune.errors import BituneError

INTRODUCTION = (
    "One prompt, answered by every variant you choose, at the same time. Look for the <mark>marked</mark> words: "
    "there an answer parts from the one in the first column."
)
TEMPLATE_INFO = "A checkpoint's own is the one it was trained with; the base then reads what the first checkpoint reads."
SAMPLING = (
    "At temperature 0 each variant takes its likeliest token; top-p and seed then change nothing. Above 0 tokens are drawn, and "
    "**all variants see the same random draws**, so a difference in text is a difference in the models."
)
# Builds the address from the fields themselves, so it holds what stands on the page and not what ran last.
COPY_LINK = """(prompt, variants, template, max_new_tokens, temperature, top_p, seed) => {
    const url = new URL(window.location.href);
    const fields = {prompt, variants: variants.join(","), template, max_new_tokens, temperature, top_p, seed};
    for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, value ?? "");
    window.history.replaceState(null, "", url);
    if (navigator.clipboard) navigator.clipboard.writeText(url.href);
    return navigator.clipboard ? "Link copied" : "Link is in the address bar";
}"""


@dataclass(frozen=True)
class Fields:
    """What a person fills in, in the order in which CompareRequest takes it. `colours`: of the what-ifs among the variants."""

    prompt: gr.Textbox
    variants: gr.CheckboxGroup
    template: gr.Radio
    max_new_tokens: gr.Slider
    temperature: gr.Slider
    top_p: gr.Slider
    seed: gr.Number
    colours: gr.HTML

    def all(self) -> list:
        return [self.prompt, self.variants, self.template, self.max_new_tokens, self.temperature, self.top_p, self.seed]


@dataclass(frozen=True)
class Outputs:
    """What a Screen is shown on."""

    answers: gr.HTML
    prompts: gr.HTML
    disclosure: gr.Accordion
    run: gr.Button
    stop: gr.Button
    latest: gr.State

    def all(self) -> list:
        return [self.answers, self.prompts, self.disclosure, self.run, self.stop, self.latest]

    def show(self, screen: Screen) -> dict:
        """The component updates of a screen."""
        return {
            self.answers: screen.answers,
            self.prompts: screen.prompts,
            self.disclosure: gr.update(visible=bool(screen.prompts)),
            self.run: gr.update(interactive=not screen.running),
            self.stop: gr.update(value="Stop", interactive=screen.running),
            self.latest: screen,
        }


def build(page: gr.Blocks, handlers: CompareHandlers, what_ifs: gr.State) -> tuple[Fields, Outputs]:
    """Put the tab's components here and wire them. `what_ifs`: this visitor's, as in app.ui.what_ifs.

    Returned for the other tabs: the fields, and what a Screen is shown on.
    """
    gr.HTML(f'<p class="bt-introduction">{INTRODUCTION}</p>', apply_default_css=False)
    with gr.Row(elem_classes="bt-form"):
        with gr.Column(scale=5, min_width=300):
            prompt, example_buttons = prompt_box()
        with gr.Column(scale=4, min_width=300):
            fields = choices(handlers, prompt)
            run, stop, link = buttons()
    outputs = results(handlers.first_screen(), run, stop)
    wire_run(handlers, fields, outputs, what_ifs)
    wire_examples(handlers, example_buttons, fields, outputs)
    wire_link(page, handlers, fields, outputs)
    link.click(None, fields.all(), link, js=COPY_LINK, api_visibility="private")
    gr.api(api_of(handlers), api_name="compare", concurrency_id=MODEL_QUEUE, concurrency_limit=1)
    return fields, outputs


def prompt_box() -> tuple[gr.Textbox, list[gr.Button]]:
    """The prompt and the examples below it."""
    prompt = gr.Textbox(
        value=EXAMPLES[0].prompt,
        label="Prompt",
        lines=7,
        max_lines=16,
        elem_id="bt-prompt",
        placeholder="A question, an instruction, the start of a text …",
    )
    with gr.Row(elem_classes="bt-examples"):
        gr.HTML("<span>Examples</span>", apply_default_css=False, min_width=0, scale=0)
        examples = [gr.Button(example.title, size="sm", scale=0, min_width=0) for example in EXAMPLES]
    return prompt, examples


def choices(handlers: CompareHandlers, prompt: gr.Textbox) -> Fields:
    """Which variants run, and how."""
    names = list(handlers.engine.variants)
    has_chat = handlers.engine.base_facts.has_chat_template
    variants = gr.CheckboxGroup(names, value=names, label="Variants", elem_id="bt-variants")
    template = gr.Radio(
        [(label, key) for key, label in TEMPLATES.items() if has_chat or key != "chat"],
        value="own",
        label="Template around the prompt",
        info=TEMPLATE_INFO if has_chat else f"{TEMPLATE_INFO} This base has no chat template.",
        elem_id="bt-template",
    )
    with gr.Accordion("Length and sampling", open=False):
        with gr.Row():
            max_new_tokens = gr.Slider(1, MAX_NEW_TOKENS, value=64, step=1, label="New tokens", min_width=180)
            temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature", min_width=180)
        with gr.Row():
            top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", min_width=180)
            seed = gr.Number(value=0, precision=0, label="Seed", min_width=180)
        gr.Markdown(SAMPLING)
    colours = gr.HTML("", elem_id="bt-colours", apply_default_css=False)
    return Fields(prompt, variants, template, max_new_tokens, temperature, top_p, seed, colours)


def buttons() -> tuple[gr.Button, gr.Button, gr.Button]:
    """Run, Stop, Copy link."""
    with gr.Row(elem_classes="bt-actions"):
        run = gr.Button("Run", variant="primary", elem_id="bt-run", scale=0, min_width=120)
        stop = gr.Button("Stop", interactive=False, elem_id="bt-stop", scale=0, min_width=100)
        link = gr.Button("Copy link", elem_id="bt-link", scale=0, min_width=110)
        gr.HTML("or <kbd>Ctrl</kbd> <kbd>Enter</kbd>", apply_default_css=False, min_width=0, elem_classes="bt-hint")
    return run, stop, link


def results(first: Screen, run: gr.Button, stop: gr.Button) -> Outputs:
    """Where a Screen is shown."""
    answers = gr.HTML(first.answers, elem_id="bt-results", apply_default_css=False)
    with gr.Accordion(
        "The exact prompt each variant read", open=False, visible=bool(first.prompts), elem_id="bt-read"
    ) as disclosure:
        prompts = gr.HTML(first.prompts, apply_default_css=False)
    return Outputs(answers, prompts, disclosure, run, stop, latest=gr.State(first))


def wire_run(handlers: CompareHandlers, fields: Fields, outputs: Outputs, what_ifs: gr.State) -> None:
    """Run and Stop. The announcement is not queued: it says that the request waits.

    Stop only cancels. What comes after a run, whether it ended or was cancelled, then finds the last screen still running and
    replaces it; were it wired to Stop itself, an update on its way would overwrite it.
    """

    def announce(chosen: list[str], questions: dict) -> dict:
        return outputs.show(handlers.announce(chosen, questions))

    def run(questions: dict, *values) -> Iterator[dict]:
        for screen in handlers.run(*values, what_ifs=questions):
            yield outputs.show(screen)

    def settle(latest: Screen) -> dict:
        return outputs.show(handlers.settle(latest))

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    announced = outputs.run.click(announce, [fields.variants, what_ifs], outputs.all(), queue=False, **quiet)
    running = announced.then(
        run, [what_ifs, *fields.all()], outputs.all(), concurrency_id=MODEL_QUEUE, concurrency_limit=1, **quiet
    )
    running.then(settle, outputs.latest, outputs.all(), queue=False, **quiet)
    outputs.stop.click(None, None, outputs.stop, js=STOPPING, cancels=running, **quiet)


def wire_examples(handlers: CompareHandlers, buttons: list[gr.Button], fields: Fields, outputs: Outputs) -> None:
    """An example fills the prompt and shows its recorded answers."""
    for example, button in zip(EXAMPLES, buttons, strict=True):

        def show(example=example) -> dict:
            return {fields.prompt: example.prompt, **outputs.show(handlers.example(example.key))}

        button.click(show, None, [fields.prompt, *outputs.all()], queue=False, api_visibility="private", show_progress="hidden")


def wire_link(page: gr.Blocks, handlers: CompareHandlers, fields: Fields, outputs: Outputs) -> None:
    """A page opened by a shared link has its fields filled in; running it is left to the visitor."""

    def follow(request: gr.Request) -> dict:
        try:
            asked = from_query(dict(request.query_params), handlers.engine.variants)
        except BituneError as error:
            return outputs.show(handlers.refused(error))
        if asked is None:
            return {outputs.latest: gr.skip()}
        options = (value for name, value in asked.options.items() if name != "what_ifs")  # a link carries none
        values = (asked.prompt, list(asked.variants), *options)
        return {**dict(zip(fields.all(), values, strict=True)), **outputs.show(handlers.from_link())}

    page.load(follow, None, [*fields.all(), *outputs.all()], queue=False, api_visibility="private", show_progress="hidden")


def api_of(handlers: CompareHandlers) -> Callable:
    """The function behind /compare. Its signature and docstring are what clients and MCP tools read."""

    def compare(
        prompt: str,
        variants: list[str] | None = None,
        template: str = "own",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        what_ifs: dict | None = None,
    ) -> dict:
        """Answer one prompt with several variants of one language model: the base, and the Bitune and LoRA checkpoints on it.

        Args:
            prompt: What the model reads.
            variants: Names of the variants to run; all that are loaded if left out.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            max_new_tokens: Most tokens to write, 1 to 512.
            temperature: 0 takes the likeliest token each time; above 0 tokens are drawn, the same draws for every variant.
            top_p: Share of the probability to draw from, above 0 and up to 1.
            seed: Start of the random draws.
            what_ifs: More variants of this request alone: Bitune checkpoints mixed by other ratios, as
                {name: {"of": checkpoint, "keys": [one ratio a layer], "values": [one ratio a layer]}}; a ratio goes from 0
                (first, causal reading only) to 1 (second, bidirectional reading only). /mixing has the learned ones.

        Returns:
            For every variant its text, tokens, seconds_to_first_token, tokens_per_second and finish_reason; and the prompts as read.
        """
        try:
            return handlers.answer(prompt, variants, template, max_new_tokens, temperature, top_p, seed, what_ifs=what_ifs)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return compare
