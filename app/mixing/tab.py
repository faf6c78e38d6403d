"""The tab Mixing: components and wiring only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.mixing.editor import WHAT_IF, slider_form, what_if_list
from app.mixing.handlers import NO_CHECKPOINT, MixingHandlers, Training
from app.mixing.requests import Link, MeasureRequest, MeasureScreen, SweepRequest, SweepScreen
from app.ui.api_types import MixingAnswer, Template
from app.ui.checks import not_here
from app.ui.events import PRIVATE
from app.ui.examples import EXAMPLES
from app.ui.frame import ModelRequest, StopButton, Updates, listen, model_api
from app.ui.pieces import html
from app.ui.plots import chart, drawn
from app.ui.shared import LinkPart, PromptSource, WhatIfList, WhatIfTarget, WhenLoaded
from app.ui.templates import heading, introduction

INTRODUCTION = (
    "Every layer remembers the prompt as keys and values; the bars show how much of the second reading went into each. "
    "Training began at 0.50: look for the layers that moved far from there, and whether keys and values agree."
)
SWEEP = (
    "All ratios together go from causal only over the learned ones to bidirectional only. Look for where the answer changes, and "
    "whether the learned ratios are the ones that like their own answer best."
)
TRAINING = (
    "The same ratios, step by step, one row a layer: blue where the first reading counts more, orange where the second does. Below them "
    "the loss of all chosen checkpoints on one axis. Look for when the layers part, and whether the loss falls at that time."
)


@dataclass(frozen=True)
class TrainingView:
    """How the checkpoints were trained: a column with a heat map for each that may mix, the losses of all, and words."""

    columns: Mapping[str, gr.Column]
    chips: Mapping[str, gr.HTML]
    maps: Mapping[str, gr.Plot]
    losses: gr.Plot
    notes: gr.HTML

    @property
    def outputs(self) -> list[Component]:
        return [*self.columns.values(), self.losses, self.notes]

    def draw(self, training: Training) -> Updates:
        """Of chosen checkpoints."""
        visible = {column: gr.update(visible=name in training.heat_maps) for name, column in self.columns.items()}
        return {**visible, self.losses: gr.update(**drawn(training.losses, "bitune-loss")), self.notes: training.notes}

    def fill(self, handlers: MixingHandlers, shown: Sequence[str]) -> Updates:
        """Of all checkpoints that there are; visible are those that are shown."""
        heat_maps = handlers.training(handlers.checkpoints).heat_maps
        maps = {plot: gr.update(**drawn(heat_maps.get(name), of_training(name))) for name, plot in self.maps.items()}
        return {**self.draw(handlers.training(shown)), **maps, **{chip: handlers.chip(name) for name, chip in self.chips.items()}}


@dataclass(frozen=True)
class MixingTab:
    """What the engine changes here; what a link carries and where what-ifs are listed, None where there is no checkpoint."""

    when_loaded: WhenLoaded
    link_part: LinkPart | None = None
    what_ifs: WhatIfList | None = None


def build(handlers: MixingHandlers, source: PromptSource, what_ifs: gr.State, target: WhatIfTarget) -> MixingTab:
    """Put the tab's components here and wire them. What the checkpoints are needed for is not to be seen while they are loading.

    Args:
        handlers: What happens here.
        source: Where a prompt and its template can be taken from.
        what_ifs: This visitor's, as in app.ui.what_ifs.
        target: Where a what-if becomes a variant.
    """
    model_api(api_of(handlers), "mixing", handlers, handlers.work)
    names, ready, may_mix = handlers.expected, handlers.loading.ready, bool(handlers.may_mix)
    if not names:
        html(introduction(NO_CHECKPOINT))
        return MixingTab(WhenLoaded({}, [], dict))
    html(introduction(INTRODUCTION))
    look = {"label": "Checkpoints", "elem_id": "bt-mixing-chosen", "visible": ready and len(names) > 1}
    chosen, moved = gr.CheckboxGroup(names, value=names, **look), gr.State({})
    table = html(handlers.ratio_table(names, {}), "bt-ratios")
    lines = chart(handlers.by_layer(names), "bitune-ratios", "bt-mixing-layers")
    with gr.Column(visible=may_mix) as measuring:
        prompt = prompt_row(handlers, source, chosen, moved, table)
    with gr.Column(visible=ready) as over_training:
        html(heading("Over training", TRAINING))
        view = training(handlers)

    def choose(names: list[str], moved: dict) -> Updates:
        figure = gr.update(**drawn(handlers.by_layer(names), "bitune-ratios"))
        return {table: handlers.ratio_table(names, moved), lines: figure, **view.draw(handlers.training(names))}

    listen(chosen.change, choose, {"names": chosen, "moved": moved}, [table, lines, *view.outputs])
    with gr.Column(visible=ready and may_mix) as editing:
        html(heading("What if it were mixed otherwise?", WHAT_IF))
        form = slider_form(handlers)
        listed = what_if_list(handlers, form.of, what_ifs, target)
    with gr.Column(visible=may_mix) as sweeping:
        html(heading("From causal only to bidirectional only", SWEEP))
        sweep(handlers, prompt, form.of, source)

    def fill(shown: list[str]) -> Updates:
        names, mixes = handlers.checkpoints, bool(handlers.mixing)
        seen = {measuring: mixes, over_training: True, editing: mixes, sweeping: mixes}
        return {
            chosen: gr.update(choices=names, value=[name for name in names if name in shown], visible=len(names) > 1),
            table: handlers.ratio_table(shown, {}),
            lines: gr.update(**drawn(handlers.by_layer(shown), "bitune-ratios")),
            **{column: gr.update(visible=visible) for column, visible in seen.items()},
            **view.fill(handlers, shown),
            **form.fill(handlers),
        }

    filled = [chosen, table, lines, measuring, over_training, editing, sweeping]
    filled += [*view.outputs, *view.chips.values(), *view.maps.values()]
    filled += [form.of, form.first_layer, form.last_layer, form.sliders]
    return MixingTab(WhenLoaded({"shown": chosen}, filled, fill), link_part(handlers, chosen, prompt), listed)


def link_part(handlers: MixingHandlers, chosen: gr.CheckboxGroup, prompt: gr.Textbox) -> LinkPart:
    """A link chooses checkpoints, which shows them, and fills in the prompt; measuring is left to the visitor."""

    def restore(link: Link, what_ifs: Sequence[str]) -> tuple[Updates, list[str]]:
        updates, here, named = {}, handlers.expected, link.chosen or []
        if link.chosen is not None:
            updates[chosen] = [name for name in here if name in named]
        if link.prompt is not None:
            updates[prompt] = link.prompt
        return updates, not_here(name for name in named if name not in here)

    return LinkPart("mixing", Link, {"chosen": chosen, "prompt": prompt}, [chosen, prompt], restore)


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
        stop = StopButton(elem_id="bt-measure-stop", scale=0, min_width=100)
        take = gr.Button("Take the prompt from Compare", elem_id="bt-take", scale=0, min_width=220)
    note = html(elem_id="bt-moved")
    take.click(None, source.prompt, prompt, js="(prompt) => prompt", **PRIVATE)

    def show(screen: MeasureScreen) -> Updates:
        return {note: screen.html} if screen.moved is None else {note: screen.html, moved: screen.moved}

    request = ModelRequest(measure, stop, [note, moved], show)
    measured = request.wire(MeasureRequest(handlers), {"prompt": prompt, "chosen": chosen, "template": source.template})

    def redraw(names: list[str], moved: dict) -> Updates:
        return {table: handlers.ratio_table(names, moved)}

    listen(measured.then, redraw, {"names": chosen, "moved": moved}, [table])
    return prompt


def training(handlers: MixingHandlers) -> TrainingView:
    """A heat map for each checkpoint that mixes, the losses of all, and words where something is not known."""
    first = handlers.training(handlers.expected)
    columns, chips, maps = {}, {}, {}
    with gr.Row(elem_classes="bt-heat-maps"):
        for name in handlers.may_mix:
            with gr.Column(min_width=320, visible=name in first.heat_maps) as columns[name]:
                chips[name] = html(handlers.chip(name))
                maps[name] = chart(first.heat_maps.get(name), of_training(name))
    losses = chart(first.losses, "bitune-loss", "bt-losses")
    return TrainingView(columns, chips, maps, losses, html(first.notes, "bt-mixing-training"))


def of_training(name: str) -> str:
    """What a saved heat map of this checkpoint is called."""
    return f"bitune-training-{name}"


def sweep(handlers: MixingHandlers, prompt: gr.Textbox, of: gr.Radio, source: PromptSource) -> None:
    """Run, Stop and what comes of it."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        run = gr.Button("Sweep", variant="primary", elem_id="bt-sweep-run", scale=0, min_width=120)
        stop = StopButton(elem_id="bt-sweep-stop", scale=0, min_width=100)
    curve = chart(None, "", "bt-sweep-curve")
    result = html(elem_id="bt-sweep")

    def show(screen: SweepScreen) -> Updates:
        return {result: screen.html, curve: gr.update(**drawn(screen.curve, "bitune-sweep"))}

    request = ModelRequest(run, stop, [result, curve], show)
    request.wire(SweepRequest(handlers), {"prompt": prompt, "of": of, "template": source.template})


def api_of(handlers: MixingHandlers) -> Callable:
    """The function behind /mixing. Its signature and docstring are what clients and MCP tools read."""

    def mixing(checkpoints: list[str] | None = None, prompt: str = "", template: Template = "own") -> dict[str, MixingAnswer]:
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
