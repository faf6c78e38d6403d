"""The tab Compare: components and wiring only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.events import Dependency
from markupsafe import Markup

from app.compare import conversation_tab
from app.compare.handlers import CompareHandlers, Screen
from app.compare.link_tab import Below, link_part
from app.compare.request import MAX_NEW_TOKENS, MAX_TEMPERATURE, MIN_TOP_P, CompareRequest
from app.ui.choices import offered
from app.ui.events import AT_ONCE, sent
from app.ui.examples import EXAMPLES
from app.ui.frame import Inputs, ModelRequest, StopButton, Updates, listen, model_api
from app.ui.prompt_templates import TEMPLATES, template_choice, templates_left
from app.ui.shared import LinkPart, PromptSource, PromptTarget, WhatIfTarget, WhenLoaded
from app.ui.templates import empty, introduction, render
from app.ui.variants import with_what_ifs
from app.votes import tab as votes
from app.votes.handlers import Voting
from app.why import tab as why
from app.why.run import EndedRun

FOLDER = Path(__file__).resolve().parent
INTRODUCTION = Markup(
    "Every variant you choose answers the same prompt. Look for the <mark>marked</mark> words: there two answers differ. Compare with any of them."
)
TEMPLATE_INFO = "The one a checkpoint was trained with; the base takes the first one's."
SAMPLING = (
    "At temperature 0 each variant takes its likeliest token; top-p and seed then change nothing. Above 0 tokens are drawn, and "
    "**all variants see the same random draws**, so a difference in text is a difference in the models."
)
PLACES = (
    '<h2 class="bt-unseen-words">Answers</h2><div data-part="answers"></div>'
    '<div class="bt-unseen-words" data-part="said" role="status"></div>'
)
FROM_ANOTHER_TAB = (
    "The prompt comes from another tab, and the template around it is now as there: {}. Press Run to see the answers. Answers from before are "
    "in “Your runs”."
)


@dataclass(frozen=True)
class CompareTab:
    """What other tabs may do with this one: take its prompt, give it one, and make what-ifs variants of it; what the engine changes.

    `link_part`: what a link carries. `request`: where a Screen is shown. `latest`: the one that is shown, a State.
    `ended`: after each kind of run, however it ended. `unveiled`: after which the names of a blind run may be there. `opened`: to be called
    with the listener after which a page that was opened shows what it will.
    """

    prompt_source: PromptSource
    prompt_target: PromptTarget
    what_if_target: WhatIfTarget
    when_loaded: WhenLoaded
    link_part: LinkPart
    request: ModelRequest[Screen]
    latest: gr.State
    ended: Sequence[Dependency]
    unveiled: Sequence[Dependency]
    handlers: CompareHandlers
    opened: Callable[[Dependency], Dependency]


def build(handlers: CompareHandlers, voting: Voting, what_ifs: gr.State, latest_run: gr.State) -> CompareTab:
    """Put the tab's components here and wire them.

    Args:
        handlers: What happens.
        voting: What happens with the votes on its answers.
        what_ifs: This visitor's, as in app/ui/what_ifs.py.
        latest_run: Gets the LatestRun of this visitor, or None.
    """
    gr.HTML(introduction(INTRODUCTION), apply_default_css=False)
    with gr.Row(elem_classes="bt-form"):
        with gr.Column(scale=5, min_width=300, elem_classes="bt-asking"):
            prompt, example_buttons = prompt_box()
        with gr.Column(scale=4, min_width=300):
            fields = {"prompt": prompt, **choices(handlers)}
            colours = gr.HTML("", elem_id="bt-colours", apply_default_css=False)
            with gr.Row(elem_classes="bt-actions"):
                run = gr.Button("Run", variant="primary", elem_id="bt-run", scale=0, min_width=120)
                stop = StopButton(elem_id="bt-stop", scale=0, min_width=100)
                blind = votes.blind_choice()
    latest = gr.State(handlers.first_screen())
    request, panel, talk, shown, reasons = results(handlers, latest, run, stop, latest_run, voting)
    ended = request.wire(handlers, {**fields, "what_ifs": what_ifs, "blind": blind})
    wire_reference(handlers, shown, latest, fields["reference"], reasons)
    unveiled = votes.build(panel, voting, request, latest, handlers.unveiled)
    went_on = conversation_tab.wire(talk, handlers, fields, what_ifs, request, latest)
    wire_examples(handlers, example_buttons, prompt, request)
    model_api(handlers.compare, "compare", handlers, handlers.work)
    source = PromptSource(prompt, fields["template"])
    targets = prompt_target(source, request), what_if_target(handlers, fields["variants"], colours)
    return CompareTab(
        source,
        *targets,
        when_loaded(handlers, fields, targets[1], what_ifs, latest, reasons),
        link_part(handlers, fields, request, Below(talk, reasons, latest)),
        request,
        latest,
        (ended, *went_on),
        unveiled,
        handlers,
        partial(wire_opened, latest, reasons),
    )


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
    gr.HTML("<kbd>Ctrl</kbd> <kbd>Enter</kbd> runs it", apply_default_css=False, min_width=0, elem_classes="bt-hint")
    with gr.Row(elem_classes="bt-examples"):
        gr.HTML("<span>Examples</span>", apply_default_css=False, min_width=0, scale=0)
        examples = [gr.Button(example.title, size="sm", scale=0, min_width=0) for example in EXAMPLES]
    return prompt, examples


def choices(handlers: CompareHandlers) -> Inputs:
    """Which variants run, and how, by the names that CompareRequest has for them."""
    names, info = handlers.names, template_info(handlers.has_chat_template)
    most = min(MAX_NEW_TOKENS, handlers.admission.limits.new_tokens)
    fields = {
        "variants": gr.CheckboxGroup(names, value=names, label="Variants", elem_id="bt-variants"),
        "template": template_choice(handlers.has_chat_template, info=info, elem_id="bt-template"),
    }
    fields["reference"] = gr.State(None)  # the name of the variant that the others are compared with
    fields["wish"] = gr.State(None)  # what a link wants to be looked at below the answers
    with gr.Accordion("Length and sampling", open=False):
        with gr.Row():
            fields["max_new_tokens"] = gr.Slider(1, most, value=min(64, most), step=1, label="New tokens", min_width=180)
            fields["temperature"] = gr.Slider(0, MAX_TEMPERATURE, value=0, step=0.05, label="Temperature", min_width=180)
        with gr.Row():
            fields["top_p"] = gr.Slider(MIN_TOP_P, 1, value=1, step=0.05, label="Top-p", min_width=180)
            fields["seed"] = gr.Number(value=0, precision=0, label="Seed", min_width=180)
        gr.Markdown(SAMPLING)
    return fields


def template_info(has_chat_template: bool) -> str:
    """The words under the choice of a template."""
    return TEMPLATE_INFO if has_chat_template else f"{TEMPLATE_INFO} This base has no chat template."


def when_loaded(
    handlers: CompareHandlers,
    fields: Inputs,
    target: WhatIfTarget,
    what_ifs: gr.State,
    latest: gr.State,
    reasons: why.Section,
) -> WhenLoaded:
    """The variants that there are, and the templates of this base; what is chosen stays as far as it is there. And whether recorded
    answers can be looked into."""

    def fill(variants: list[str], template: str, known: dict[str, dict], shown: Screen, run: EndedRun | None) -> Updates:
        has_chat = handlers.has_chat_template
        templates = templates_left(has_chat, template, info=template_info(has_chat))
        return {**target.show(known, variants, variants), fields["template"]: templates, **reasons.show(shown, run)}

    inputs = {
        "variants": fields["variants"],
        "template": fields["template"],
        "known": what_ifs,
        "shown": latest,
        "run": reasons.run,
    }
    return WhenLoaded(inputs, [*target.components, fields["template"], *reasons.components], fill)


def results(
    handlers: CompareHandlers, latest: gr.State, run: gr.Button, stop: StopButton, latest_run: gr.State, voting: Voting
) -> tuple[ModelRequest[Screen], votes.Panel, conversation_tab.Panel, gr.HTML, why.Section]:
    """Where a Screen is shown, where it is judged, where a conversation goes on from it, the answers, and why they part; `latest` keeps it
    for a visitor."""
    first = latest.value
    before = conversation_tab.above()
    answers = gr.HTML(
        columns(first),
        html_template=PLACES,
        js_on_load=(FOLDER / "answers.js").read_text(encoding="utf-8"),
        elem_id="bt-results",
        apply_default_css=False,
    )
    with gr.Accordion(
        "The exact prompt each variant read", open=False, visible=bool(first.prompts), elem_id="bt-read"
    ) as disclosure:
        prompts = gr.HTML(first.prompts, apply_default_css=False)
    reasons = why.build(handlers, CompareRequest, handlers.not_looked_into)
    panel = votes.panel(voting.kept)
    talk = conversation_tab.below(before)

    def show(screen: Screen) -> Updates:
        return {
            answers: columns(screen),
            prompts: screen.prompts,
            disclosure: gr.update(visible=bool(screen.prompts)),
            latest: screen,
            latest_run: screen.latest_run,
            **reasons.show(screen),
            **panel.show(screen),
            **talk.show(screen),
        }

    outputs = [answers, prompts, disclosure, latest, latest_run, *reasons.components, *panel.components, *talk.components]
    return ModelRequest(run, stop, outputs, show), panel, talk, answers, reasons


def columns(screen: Screen) -> dict[str, object]:
    """The answers as answers.js draws them; Gradio sends only what is new in the texts."""
    return {"html": screen.answers, "live": screen.live}


def wire_reference(
    handlers: CompareHandlers, answers: gr.HTML, latest: gr.State, reference: gr.State, reasons: why.Section
) -> None:
    """A column whose button is pressed becomes the one that the others are compared with; nothing runs for that.

    The next run keeps to it, unless names are hidden: then the choice would tell whose the column is.
    """

    def hold_against(shown: Screen, run: EndedRun | None, event: gr.EventData) -> Updates:
        screen = handlers.compared_with(shown, sent(event, "place", int))
        kept = gr.skip() if screen.blind else screen.reference
        return {answers: columns(screen), latest: screen, reference: kept, reasons.run: reasons.compared(screen, run)}

    chosen = listen(
        answers.select, hold_against, {"shown": latest, "run": reasons.run}, [answers, latest, reference, reasons.run]
    )
    reasons.follow(chosen)


def wire_opened(latest: gr.State, reasons: why.Section, opened: Dependency) -> Dependency:
    """A page that opens with recorded answers says whether they can be looked into."""
    return listen(opened.then, reasons.show, {"shown": latest}, reasons.components)


def wire_examples(handlers: CompareHandlers, buttons: list[gr.Button], prompt: gr.Textbox, request: ModelRequest[Screen]) -> None:
    """An example fills the prompt and shows its recorded answers."""
    for example, button in zip(EXAMPLES, buttons, strict=True):

        def show(example=example) -> Updates:
            return {prompt: example.prompt, **request.updates(handlers.example(example.key))}

        button.click(show, None, [prompt, *request.components], **AT_ONCE)


def prompt_target(source: PromptSource, request: ModelRequest[Screen]) -> PromptTarget:
    """A question of the study may be put into the prompt."""

    def fill(prompt: str, template: str) -> Updates:
        return {
            source.prompt: prompt,
            source.template: template,
            **request.updates(Screen(empty(FROM_ANOTHER_TAB.format(TEMPLATES[template])))),
        }

    return PromptTarget("compare", [source.prompt, source.template, *request.components], fill)


def what_if_target(handlers: CompareHandlers, variants: gr.CheckboxGroup, colours: gr.HTML) -> WhatIfTarget:
    """What-ifs are variants to choose; the colours of the others come from style.css, by place."""

    def show(what_ifs: dict[str, dict], wanted: Sequence[str], chosen: list[str] | None = None) -> Updates:
        names = [*handlers.names, *what_ifs]
        kept = [name for name in names if name in wanted]
        views = with_what_ifs(handlers.views, what_ifs).values()
        return {variants: offered(names, chosen, kept), colours: render("compare/colours.html", views=views)}

    return WhatIfTarget(variants, [variants, colours], show)
