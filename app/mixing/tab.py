"""The tab Mixing: components and wiring only."""

from collections.abc import Callable

import gradio as gr

from app.mixing.handlers import NO_CHECKPOINT, MixingHandlers, Training, WhatIfUpdate
from app.mixing.requests import MeasureRequest, MeasureScreen, SweepRequest, SweepScreen
from app.ui.events import AT_ONCE, ONE_AT_A_TIME, PRIVATE
from app.ui.examples import EXAMPLES
from app.ui.frame import ModelRequest, Updates, api, listen
from app.ui.plots import chart, drawn
from app.ui.shared import PromptSource, WhatIfTarget
from app.ui.templates import heading, introduction, problem
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
    "The same ratios, step by step, one row a layer: blue where the first reading counts more, orange where the second does. Below them "
    "the loss of all chosen checkpoints on one axis. Look for when the layers part, and whether the loss falls at that time."
)
TOGETHER = '<label class="bt-together"><input type="checkbox" id="bt-together"> Move keys and values together</label>'
# Where the sliders stand is known in the browser alone until it is asked for.
READ_SLIDERS = """(_, ...rest) => {
    const read = (kind) => [...document.querySelectorAll(`#bt-sliders input[data-kind=${kind}]`)]
        .map((input) => Number(input.dataset.exact ?? input.value));
    return [{keys: read("keys"), values: read("values")}, ...rest];
}"""


def build(handlers: MixingHandlers, source: PromptSource, what_ifs: gr.State, target: WhatIfTarget) -> None:
    """Put the tab's components here and wire them.

    Args:
        handlers: What happens here.
        source: Where a prompt and its template can be taken from.
        what_ifs: This visitor's, as in app.ui.what_ifs.
        target: Where a what-if becomes a variant.
    """
    api(api_of(handlers), "mixing", **ONE_AT_A_TIME)
    if not handlers.checkpoints:
        html(introduction(NO_CHECKPOINT))
        return
    html(introduction(INTRODUCTION))
    chosen = gr.CheckboxGroup(
        handlers.checkpoints,
        value=handlers.checkpoints,
        label="Checkpoints",
        elem_id="bt-mixing-chosen",
        visible=len(handlers.checkpoints) > 1,
    )
    moved = gr.State({})
    table = html(handlers.ratio_table(handlers.checkpoints, {}), "bt-ratios")
    lines = chart(handlers.by_layer(handlers.checkpoints), "bitune-ratios", "bt-mixing-layers")
    if handlers.mixing:
        prompt = prompt_row(handlers, source, chosen, moved, table)
    html(heading("Over training", TRAINING))
    draw_training, training_outputs = training(handlers)

    def choose(names: list[str], moved: dict) -> Updates:
        figure = gr.update(**drawn(handlers.by_layer(names), "bitune-ratios"))
        return {table: handlers.ratio_table(names, moved), lines: figure, **draw_training(handlers.training(names))}

    listen(chosen.change, choose, {"names": chosen, "moved": moved}, [table, lines, *training_outputs])
    if handlers.mixing:
        html(heading("What if it were mixed otherwise?", WHAT_IF))
        of = slider_form(handlers)
        what_if_list(handlers, of, what_ifs, target)
        html(heading("From causal only to bidirectional only", SWEEP))
        sweep(handlers, prompt, of, source)


def html(text: str = "", elem_id: str | None = None, **options: object) -> gr.HTML:
    """HTML of ours."""
    return gr.HTML(text, elem_id=elem_id, apply_default_css=False, **options)


def prompt_row(
    handlers: MixingHandlers, source: PromptSource, chosen: gr.CheckboxGroup, moved: gr.State, table: gr.HTML
) -> gr.Textbox:
    """A prompt, and how far mixing moves its cache: more columns of the table."""
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
    note = html(elem_id="bt-moved")
    take.click(None, source.prompt, prompt, js="(prompt) => prompt", **PRIVATE)

    def show(screen: MeasureScreen) -> Updates:
        return {note: screen.html} if screen.moved is None else {note: screen.html, moved: screen.moved}

    request = ModelRequest(measure, None, [note, moved], show)
    measured = request.wire(MeasureRequest(handlers), {"prompt": prompt, "chosen": chosen, "template": source.template})

    def redraw(names: list[str], moved: dict) -> Updates:
        return {table: handlers.ratio_table(names, moved)}

    listen(measured.then, redraw, {"names": chosen, "moved": moved}, [table])
    return prompt


def training(handlers: MixingHandlers) -> tuple[Callable[[Training], Updates], list]:
    """A heat map for each checkpoint that mixes, the losses of all, and words where something is not known.

    Returns what draws a Training, and on what.
    """
    first = handlers.training(handlers.checkpoints)
    with gr.Row(elem_classes="bt-heat-maps"):
        columns = {}
        for name in handlers.mixing:
            with gr.Column(min_width=320, visible=name in first.heat_maps) as column:
                html(handlers.chip(name))
                chart(first.heat_maps.get(name), f"bitune-training-{name}")
                columns[name] = column
    losses = chart(first.losses, "bitune-loss", "bt-losses")
    notes = html(first.notes, "bt-mixing-training")

    def draw(training: Training) -> Updates:
        visible = {column: gr.update(visible=name in training.heat_maps) for name, column in columns.items()}
        return {**visible, losses: gr.update(**drawn(training.losses, "bitune-loss")), notes: training.notes}

    return draw, [*columns.values(), losses, notes]


def slider_form(handlers: MixingHandlers) -> gr.Radio:
    """Presets, one ratio for some layers, and the sliders; returned is the choice of the checkpoint that they belong to."""
    names = list(handlers.mixing)
    of = gr.Radio(names, value=names[0], label="Of", elem_id="bt-of", visible=len(names) > 1)
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        presets = {name: gr.Button(name.capitalize(), scale=0, min_width=0, elem_classes="bt-preset") for name in PRESETS}
    last = handlers.mixing[names[0]].layers - 1
    with gr.Row(elem_classes="bt-actions bt-layers"):
        first_layer = gr.Number(0, label="Learned, but layers", precision=0, minimum=0, maximum=last, min_width=130)
        last_layer = gr.Number(last, label="to", precision=0, minimum=0, maximum=last, min_width=90)
        alpha = gr.Number(0, label="at ratio", minimum=0, maximum=1, step=0.05, min_width=90)
        set_layers = gr.Button("Set", scale=0, min_width=80, elem_id="bt-set")
    note = html(elem_id="bt-what-if-note")
    html(TOGETHER)
    sliders = html(handlers.sliders(names[0]), "bt-editor")

    def draw(of: str, preset: str = "learned") -> Updates:
        return {sliders: handlers.sliders(of, preset)}

    for name, button in presets.items():
        listen(button.click, lambda of, name=name: draw(of, name), {"of": of}, [sliders])
    listen(of.change, lambda of: draw(of), {"of": of}, [sliders])

    def draw_layers(**values: object) -> Updates:
        return {sliders: handlers.sliders_with_layers(**values), note: ""}

    inputs = {"of": of, "first": first_layer, "last": last_layer, "alpha": alpha}
    listen(set_layers.click, draw_layers, inputs, [sliders, note], lambda words: {note: problem(words)})
    return of


def what_if_list(handlers: MixingHandlers, of: gr.Radio, what_ifs: gr.State, target: WhatIfTarget) -> None:
    """The button that adds what the sliders show, and a row for each what-if, by its colour, to take it away again."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        add_button = gr.Button("Add to Compare", variant="primary", elem_id="bt-add", scale=0, min_width=160)
    note = html(elem_id="bt-added")
    rows, chips, removers = [], [], []
    for _ in range(MAX_WHAT_IFS):
        with gr.Row(visible=False, elem_classes="bt-slot") as row:
            chips.append(html(min_width=0))
            removers.append(gr.Button("Remove", size="sm", scale=0, min_width=90))
        rows.append(row)
    outputs = [what_ifs, note, *rows, *chips, *target.components]

    def show(update: WhatIfUpdate, chosen: list[str]) -> Updates:
        by_colour = handlers.chips(update.what_ifs)
        updates = {what_ifs: update.what_ifs, note: update.words, **target.show(update.what_ifs, chosen, update.name)}
        for colour, (row, chip) in enumerate(zip(rows, chips, strict=True)):
            updates |= {row: gr.update(visible=colour in by_colour), chip: by_colour.get(colour, "")}
        return updates

    def add(slider_ratios: object, of: str, known: dict, chosen: list[str]) -> Updates:
        return show(handlers.add(known, of, slider_ratios), chosen)

    inputs = {"slider_ratios": gr.JSON(visible=False), "of": of, "known": what_ifs, "chosen": target.chosen}
    listen(add_button.click, add, inputs, outputs, lambda words: {note: problem(words)}, js=READ_SLIDERS, **AT_ONCE)
    for colour, button in enumerate(removers):

        def remove(known: dict, chosen: list[str], colour=colour) -> Updates:
            return show(handlers.remove(known, colour), chosen)

        listen(button.click, remove, {"known": what_ifs, "chosen": target.chosen}, outputs)


def sweep(handlers: MixingHandlers, prompt: gr.Textbox, of: gr.Radio, source: PromptSource) -> None:
    """Run, Stop and what comes of it."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        run = gr.Button("Sweep", variant="primary", elem_id="bt-sweep-run", scale=0, min_width=120)
        stop = gr.Button("Stop", interactive=False, elem_id="bt-sweep-stop", scale=0, min_width=100)
    curve = chart(None, "", "bt-sweep-curve")
    result = html(elem_id="bt-sweep")

    def show(screen: SweepScreen) -> Updates:
        return {result: screen.html, curve: gr.update(**drawn(screen.curve, "bitune-sweep"))}

    request = ModelRequest(run, stop, [result, curve], show, SweepScreen(""))
    request.wire(SweepRequest(handlers), {"prompt": prompt, "of": of, "template": source.template})


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
        return handlers.answer(checkpoints, prompt, template)

    return mixing
