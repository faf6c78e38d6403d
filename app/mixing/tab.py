"""The tab Mixing: components and wiring only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gradio as gr

from app.mixing.handlers import NO_CHECKPOINT, Added, MixingHandlers, SweepScreen
from app.ui.errors import sentence
from app.ui.events import MODEL_QUEUE, STOPPING
from app.ui.examples import EXAMPLES
from app.ui.shared import PromptSource, WhatIfTarget
from app.ui.what_ifs import MAX_WHAT_IFS
from bitune.schema.variants import PRESETS

INTRODUCTION = (
    "Every layer remembers the prompt as keys and values; the bars show how much of the second reading went into each. "
    "Training began at 0.50: look for the layers that moved far from there, and whether keys and values agree."
)
WHAT_IF = (
    "Set the ratios yourself and let the result answer beside the learned one. Look for the layers that change the answer. "
    "Only you see your what-ifs, and they are gone when you reload the page."
)
SWEEP = (
    "All ratios together go from causal only over the learned ones to bidirectional only. Look for where the answer changes, and "
    "whether the learned ratios are the ones that like their own answer best."
)
TRAINING = (
    "The same ratios, step by step, one row a layer, in the colours of the bars; below them the loss on the same steps. Look for "
    "when the layers part, and whether the loss falls at that time."
)
TOGETHER = '<label class="bt-together"><input type="checkbox" id="bt-together"> Move keys and values together</label>'
# What the faders show stands in the browser alone until it is asked for.
READ_FADERS = """(_, ...rest) => {
    const read = (kind) => [...document.querySelectorAll(`#bt-faders input[data-kind=${kind}]`)]
        .map((input) => Number(input.dataset.exact ?? input.value));
    return [{keys: read("keys"), values: read("values")}, ...rest];
}"""
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE = {**QUIET, "queue": False}
MODEL = {**QUIET, "concurrency_id": MODEL_QUEUE, "concurrency_limit": 1}


@dataclass(frozen=True)
class WhatIfs:
    """What shows a visitor's what-ifs, here and in Compare. `slots`: one for each colour: the row, its chip and its button."""

    state: gr.State
    target: WhatIfTarget
    add: gr.Button
    note: gr.HTML
    slots: tuple[tuple[gr.Row, gr.HTML, gr.Button], ...]

    def all(self) -> list:
        rows = [component for row, chip, _ in self.slots for component in (row, chip)]
        return [self.state, *self.target.components, self.note, *rows]

    def show(self, handlers: MixingHandlers, added: Added, chosen: list[str]) -> dict:
        """The component updates after `added`; `chosen` are the variants chosen in Compare until now."""
        chips = handlers.shown(added.what_ifs)
        updates = {
            self.state: added.what_ifs,
            **self.target.show(added.what_ifs, chosen, added.name),
            self.note: added.words,
        }
        for colour, (row, chip, _) in enumerate(self.slots):
            updates |= {row: gr.update(visible=colour in chips), chip: chips.get(colour, "")}
        return updates


def build(handlers: MixingHandlers, compare: PromptSource, what_ifs: gr.State, target: WhatIfTarget) -> None:
    """Put the tab's components here and wire them. `compare`: that tab's fields, which give a prompt and take a what-if."""
    gr.api(api_of(handlers), api_name="mixing", concurrency_id=MODEL_QUEUE, concurrency_limit=1)
    if not handlers.checkpoints:
        words(NO_CHECKPOINT)
        return
    words(INTRODUCTION)
    chosen = gr.CheckboxGroup(
        handlers.checkpoints,
        value=handlers.checkpoints,
        label="Checkpoints",
        elem_id="bt-mixing-chosen",
        visible=len(handlers.checkpoints) > 1,
    )
    moved = gr.State({})
    desk = gr.HTML(handlers.desk(handlers.checkpoints, {}), elem_id="bt-desk", apply_default_css=False)
    if handlers.mixing:
        prompt = prompt_row(handlers, compare, chosen, moved, desk)
    heading("Over training", TRAINING)
    training = gr.HTML(handlers.training(handlers.checkpoints), elem_id="bt-mixing-training", apply_default_css=False)
    chosen.change(
        lambda names, far: (handlers.desk(names, far), handlers.training(names)), [chosen, moved], [desk, training], **AT_ONCE
    )
    if handlers.mixing:
        heading("What if it were mixed otherwise?", WHAT_IF)
        of = what_if(handlers, target, what_ifs)
        heading("From causal only to bidirectional only", SWEEP)
        sweep(handlers, prompt, of, compare)


def words(text: str) -> None:
    """A sentence or two of ours."""
    gr.HTML(f'<p class="bt-introduction">{text}</p>', apply_default_css=False)


def heading(title: str, text: str) -> None:
    """What a part of the tab is called, and what one sees there."""
    gr.HTML(f'<h2 class="bt-heading">{title}</h2><p class="bt-introduction">{text}</p>', apply_default_css=False)


def prompt_row(
    handlers: MixingHandlers, compare: PromptSource, chosen: gr.CheckboxGroup, moved: gr.State, desk: gr.HTML
) -> gr.Textbox:
    """A prompt, and how far mixing moves its cache: more columns of the desk."""
    prompt = gr.Textbox(
        value=EXAMPLES[0].prompt,
        label="How far does mixing move the cache of a prompt?",
        info="Read with the template that is chosen in Compare. The sweep below takes this prompt too.",
        lines=3,
        max_lines=8,
        elem_id="bt-mixing-prompt",
    )
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        measure = gr.Button("Measure", variant="primary", elem_id="bt-measure", scale=0, min_width=120)
        take = gr.Button("Take the prompt from Compare", elem_id="bt-take", scale=0, min_width=220)
    note = gr.HTML("", elem_id="bt-moved", apply_default_css=False)
    take.click(None, compare.prompt, prompt, js="(prompt) => prompt", api_visibility="private")

    def run(text: str, names: list[str], template: str) -> tuple:
        far, said = handlers.measure(text, names, template)
        return far, handlers.desk(names, far), said

    measure.click(run, [prompt, chosen, compare.template], [moved, desk, note], **{**MODEL, "show_progress": "minimal"})
    return prompt


def what_if(handlers: MixingHandlers, target: WhatIfTarget, state: gr.State) -> gr.Radio:
    """Presets, faders, and the what-ifs that there are."""
    names = list(handlers.mixing)
    of = gr.Radio(names, value=names[0], label="Of", elem_id="bt-of", visible=len(names) > 1)
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        presets = [gr.Button(name.capitalize(), scale=0, min_width=0, elem_classes="bt-preset") for name in PRESETS]
    last = handlers.mixing[names[0]].layers - 1
    with gr.Row(elem_classes="bt-actions bt-layers"):
        first_layer = gr.Number(0, label="Learned, but layers", precision=0, minimum=0, maximum=last, min_width=130)
        last_layer = gr.Number(last, label="to", precision=0, minimum=0, maximum=last, min_width=90)
        alpha = gr.Number(0, label="at ratio", minimum=0, maximum=1, step=0.05, min_width=90)
        put = gr.Button("Set", scale=0, min_width=80, elem_id="bt-set")
    note = gr.HTML("", elem_id="bt-what-if-note", apply_default_css=False)
    gr.HTML(TOGETHER, apply_default_css=False)
    faders = gr.HTML(handlers.editor(names[0]), elem_id="bt-editor", apply_default_css=False)
    for name, button in zip(PRESETS, presets, strict=True):
        button.click(lambda of, name=name: handlers.editor(of, name), of, faders, **AT_ONCE)
    of.change(handlers.editor, of, faders, **AT_ONCE)

    def set_layers(of: str, *values) -> tuple:
        drawn, said = handlers.editor_with_layers(of, *values)
        return gr.skip() if drawn is None else drawn, said

    put.click(set_layers, [of, first_layer, last_layer, alpha], [faders, note], **AT_ONCE)
    wire_what_ifs(handlers, of, WhatIfs(state, target, *what_if_list()))
    return of


def what_if_list() -> tuple:
    """Below the faders: the button that adds, words, and a row for each what-if."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        add = gr.Button("Add to Compare", variant="primary", elem_id="bt-add", scale=0, min_width=160)
    note = gr.HTML("", elem_id="bt-added", apply_default_css=False)
    slots = []
    for _ in range(MAX_WHAT_IFS):
        with gr.Row(visible=False, elem_classes="bt-slot") as row:
            chip = gr.HTML("", apply_default_css=False, min_width=0)
            remove = gr.Button("Remove", size="sm", scale=0, min_width=90)
        slots.append((row, chip, remove))
    return add, note, tuple(slots)


def wire_what_ifs(handlers: MixingHandlers, of: gr.Radio, shown: WhatIfs) -> None:
    """Adding what the faders show, and taking it away again."""
    curve = gr.JSON(visible=False)

    def add(curve: object, of: str, there: dict, chosen: list[str]) -> dict:
        return shown.show(handlers, handlers.add(there, of, curve), chosen)

    asked = [shown.state, shown.target.chosen]
    shown.add.click(add, [curve, of, *asked], shown.all(), js=READ_FADERS, **AT_ONCE)
    for colour, (_, _, button) in enumerate(shown.slots):

        def remove(there: dict, chosen: list[str], colour=colour) -> dict:
            return shown.show(handlers, handlers.remove(there, colour), chosen)

        button.click(remove, asked, shown.all(), **AT_ONCE)


def sweep(handlers: MixingHandlers, prompt: gr.Textbox, of: gr.Radio, compare: PromptSource) -> None:
    """Run, Stop and what comes of it, wired as in Compare."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        run = gr.Button("Sweep", variant="primary", elem_id="bt-sweep-run", scale=0, min_width=120)
        stop = gr.Button("Stop", interactive=False, elem_id="bt-sweep-stop", scale=0, min_width=100)
    result = gr.HTML("", elem_id="bt-sweep", apply_default_css=False)
    latest = gr.State(SweepScreen(""))
    outputs = [result, run, stop, latest]

    def show(screen: SweepScreen) -> dict:
        return {
            result: screen.html,
            run: gr.update(interactive=not screen.running),
            stop: gr.update(value="Stop", interactive=screen.running),
            latest: screen,
        }

    def stream(*values) -> Iterator[dict]:
        for screen in handlers.sweep(*values):
            yield show(screen)

    announced = run.click(lambda: show(handlers.announce_sweep()), None, outputs, **AT_ONCE)
    running = announced.then(stream, [prompt, of, compare.template], outputs, **MODEL)
    running.then(lambda screen: show(handlers.settle_sweep(screen)), latest, outputs, **AT_ONCE)
    stop.click(None, None, stop, js=STOPPING, cancels=running, **QUIET)


def api_of(handlers: MixingHandlers) -> Callable:
    """The function behind /mixing. Its signature and docstring are what clients and MCP tools read."""

    def mixing(checkpoints: list[str] | None = None, prompt: str = "", template: str = "own") -> dict:
        """How much of its second, bidirectional reading of a prompt each layer of a Bitune checkpoint keeps, and how it learned that.

        Args:
            checkpoints: Names of the checkpoints; all that are loaded if left out.
            prompt: If given, also how far mixing moves each layer's cache for this prompt, up to 1,024 tokens.
            template: Template around the prompt: "own" the checkpoint's, "chat" the base's chat template, "none" nothing.

        Returns:
            For every checkpoint its method; keys and values, one ratio a layer from 0 (first, causal reading only) to 1 (second
            reading only); moved_keys and moved_values, one number a layer: the mean over tokens of the distance between mixed and
            causal cache as a share of the causal one; training_log as one list a field, alpha_k and alpha_v with one list of
            ratios a step. null where nothing is mixed or no prompt was given.
        """
        try:
            return handlers.answer(checkpoints, prompt, template)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return mixing
