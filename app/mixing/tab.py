"""The tab Mixing: components and wiring only. Its parts are in the order of the questions that people ask of the ratios."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.mixing.editor import WHAT_IF, SliderForm, slider_form, what_if_list, what_ifs_left
from app.mixing.handlers import NO_CHECKPOINT, MixingHandlers
from app.mixing.requests import Link, MeasureRequest, MeasureScreen, SweepRequest, SweepScreen
from app.ui.api_types import MixingAnswer, Template
from app.ui.checks import not_here
from app.ui.choices import offered
from app.ui.events import PRIVATE
from app.ui.examples import EXAMPLES
from app.ui.frame import ModelRequest, StopButton, Updates, listen, model_api
from app.ui.pieces import html
from app.ui.plots import chart, drawn
from app.ui.shared import LinkPart, PromptSource, WhatIfList, WhatIfTarget, WhenLoaded
from app.ui.templates import heading, introduction

INTRODUCTION = (
    "Every layer remembers the prompt as keys and values, mixed of two readings. First what was learned and how it came, then what if it "
    "were otherwise, and what it does to a prompt of yours."
)
LEARNED = (
    "The bars show how much of the second reading goes into each layer. Training began at 0.50: look for the layers that moved far from "
    "there, and whether keys and values agree."
)
TRAINING = (
    "The same ratios, step by step, one row a layer: blue where the first reading counts more, orange where the second does. Beside them "
    "the loss of all chosen checkpoints on one axis. Look for when the layers part, and whether the loss falls at that time."
)
PROMPT = (
    "Measure how far mixing moves the memory of a prompt. Or sweep: all ratios together go from causal only over the learned ones to "
    "bidirectional only; look for where the answer changes, and whether the learned ratios like their own answer best."
)


@dataclass(frozen=True)
class Learned:
    """Which checkpoints are looked at, and their ratios."""

    chosen: gr.CheckboxGroup
    table: gr.HTML
    lines: gr.Plot

    def show(self, handlers: MixingHandlers, names: Sequence[str]) -> Updates:
        """The ratios of these checkpoints."""
        figure = gr.update(**drawn(handlers.by_layer(names), "bitune-ratios"))
        return {self.table: handlers.ratio_table(names), self.lines: figure}


@dataclass(frozen=True)
class TrainingView:
    """How the checkpoints were trained: a column with a heat map for each that may mix, in their order, the losses of all, and words."""

    columns: Sequence[gr.Column]
    chips: Sequence[gr.HTML]
    maps: Sequence[gr.Plot]
    losses: gr.Plot
    notes: gr.HTML

    @property
    def outputs(self) -> list[Component]:
        return [*self.columns, self.losses, self.notes]

    def names(self, handlers: MixingHandlers) -> list[str]:
        """The checkpoint of each column, "" for a column that has none."""
        names = handlers.may_mix[: len(self.columns)]
        return names + [""] * (len(self.columns) - len(names))

    def draw(self, handlers: MixingHandlers, shown: Sequence[str]) -> Updates:
        """Of chosen checkpoints."""
        training = handlers.training(shown)
        columns = zip(self.columns, self.names(handlers), strict=True)
        visible = {column: gr.update(visible=name in training.heat_maps) for column, name in columns}
        return {**visible, self.losses: gr.update(**drawn(training.losses, "bitune-loss")), self.notes: training.notes}

    def fill(self, handlers: MixingHandlers, shown: Sequence[str]) -> Updates:
        """Of all checkpoints that there are; visible are those that are shown."""
        heat_maps, names = handlers.training(handlers.checkpoints).heat_maps, self.names(handlers)
        maps = {
            plot: gr.update(**drawn(heat_maps.get(name), of_training(name))) for plot, name in zip(self.maps, names, strict=True)
        }
        chips = {chip: handlers.chip(name) for chip, name in zip(self.chips, names, strict=True)}
        return {**self.draw(handlers, shown), **maps, **chips}


@dataclass(frozen=True)
class MixingTab:
    """What the engine changes here; what a link carries and where what-ifs are listed, None where there is no checkpoint."""

    when_loaded: Sequence[WhenLoaded]
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
    if not names and not handlers.most:
        html(introduction(NO_CHECKPOINT))
        return MixingTab(())
    html(introduction(INTRODUCTION))
    learned = what_was_learned(handlers, names)
    with gr.Column(visible=ready) as over_training:
        html(heading("How did it come?", TRAINING))
        view = training(handlers)

    def choose(names: list[str]) -> Updates:
        return {**learned.show(handlers, names), **view.draw(handlers, names)}

    listen(learned.chosen.change, choose, {"names": learned.chosen}, [learned.table, learned.lines, *view.outputs])
    with gr.Column(visible=ready and may_mix) as editing:
        html(heading("What if it were mixed otherwise?", WHAT_IF))
        form = slider_form(handlers)
        listed = what_if_list(handlers, form.of, what_ifs, target)
    with gr.Column(visible=may_mix) as asking:
        html(heading("What does it do to a prompt?", PROMPT))
        prompt = prompt_row(source)
        with gr.Row(elem_classes="bt-beside bt-asked-of"):
            with gr.Column(min_width=320):
                measure(handlers, prompt, learned.chosen, source)
            with gr.Column(min_width=320):
                sweep(handlers, prompt, form.of, source)
    parts = {over_training: lambda: True, editing: lambda: bool(handlers.mixing), asking: lambda: bool(handlers.mixing)}
    filled = when_loaded(handlers, learned, view, form, parts), what_ifs_left(handlers, listed, what_ifs, target)
    return MixingTab(filled, link_part(handlers, learned.chosen, prompt), listed)


def what_was_learned(handlers: MixingHandlers, names: list[str]) -> Learned:
    """Which checkpoints are looked at, and their ratios as bars and as lines beside each other."""
    look = {"label": "Checkpoints", "elem_id": "bt-mixing-chosen", "visible": handlers.loading.ready and len(names) > 1}
    chosen = gr.CheckboxGroup(names, value=names, **look)
    html(heading("What was learned?", LEARNED))
    with gr.Row(elem_classes="bt-beside"):
        with gr.Column(min_width=320):
            table = html(handlers.ratio_table(names), "bt-ratios")
        with gr.Column(min_width=320):
            lines = chart(handlers.by_layer(names), "bitune-ratios", "bt-mixing-layers")
    return Learned(chosen, table, lines)


def when_loaded(
    handlers: MixingHandlers,
    learned: Learned,
    view: TrainingView,
    form: SliderForm,
    parts: Mapping[gr.Column, Callable[[], bool]],
) -> WhenLoaded:
    """What the checkpoints bring; `parts`: which columns are then to be seen."""

    def fill(shown: list[str], of: str | None) -> Updates:
        names = handlers.checkpoints
        kept = [name for name in names if name in shown] if len(names) > 1 else names  # of one there is no choice
        return {
            learned.chosen: offered(names, shown, kept, visible=len(names) > 1),
            **learned.show(handlers, kept),
            **{column: gr.update(visible=visible()) for column, visible in parts.items()},
            **view.fill(handlers, kept),
            **form.fill(handlers, of),
        }

    filled = [learned.chosen, learned.table, learned.lines, *parts]
    filled += [*view.outputs, *view.chips, *view.maps]
    filled += [form.of, form.first_layer, form.last_layer, form.sliders]
    return WhenLoaded({"shown": learned.chosen, "of": form.of}, filled, fill)


def link_part(handlers: MixingHandlers, chosen: gr.CheckboxGroup, prompt: gr.Textbox) -> LinkPart:
    """A link chooses checkpoints, which shows them, and fills in the prompt; measuring is left to the visitor."""

    def restore(link: Link, what_ifs: Mapping[str, dict]) -> tuple[Updates, list[str]]:
        updates, here, named = {}, handlers.expected, link.chosen or []
        if link.chosen is not None:
            updates[chosen] = [name for name in here if name in named]
        if link.prompt is not None:
            updates[prompt] = link.prompt
        return updates, not_here(name for name in named if name not in here)

    return LinkPart("mixing", Link, {"chosen": chosen, "prompt": prompt}, [chosen, prompt], restore)


def prompt_row(source: PromptSource) -> gr.Textbox:
    """A prompt for both questions about one."""
    prompt = gr.Textbox(
        value=EXAMPLES[0].prompt,
        label="A prompt",
        info="Read with the template that is chosen in Compare.",
        lines=3,
        max_lines=8,
        elem_id="bt-mixing-prompt",
    )
    take = gr.Button("Take the prompt from Compare", size="sm", elem_id="bt-take", scale=0, min_width=220)
    take.click(None, source.prompt, prompt, js="(prompt) => prompt", **PRIVATE)
    return prompt


def measure(handlers: MixingHandlers, prompt: gr.Textbox, chosen: gr.CheckboxGroup, source: PromptSource) -> None:
    """How far mixing moves the prompt's cache: Measure, Stop, and below them the words and the chart that come of it."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        start = gr.Button("Measure", variant="primary", elem_id="bt-measure", scale=0, min_width=120)
        stop = StopButton(elem_id="bt-measure-stop", scale=0, min_width=100)
    result, figure = html(elem_id="bt-moved"), chart(None, "", "bt-moved-layers")

    def show(screen: MeasureScreen) -> Updates:
        return {result: screen.html, figure: gr.update(**drawn(screen.chart, "bitune-moved"))}

    request = ModelRequest(start, stop, [result, figure], show)
    request.wire(MeasureRequest(handlers), {"prompt": prompt, "chosen": chosen, "template": source.template})


def training(handlers: MixingHandlers) -> TrainingView:
    """A heat map for each checkpoint that mixes, the losses of all beside them, and words where something is not known."""
    first, names = handlers.training(handlers.expected), handlers.may_mix
    columns, chips, maps = [], [], []
    with gr.Row(elem_classes="bt-heat-maps bt-beside"):
        for name in names + [""] * (handlers.most - len(names)):
            with gr.Column(min_width=320, visible=name in first.heat_maps) as column:
                chips.append(html(handlers.chip(name)))
                maps.append(chart(first.heat_maps.get(name), of_training(name)))
            columns.append(column)
        with gr.Column(min_width=320):
            losses = chart(first.losses, "bitune-loss", "bt-losses")
    return TrainingView(columns, chips, maps, losses, html(first.notes, "bt-mixing-training"))


def of_training(name: str) -> str:
    """What a saved heat map of this checkpoint is called."""
    return f"bitune-training-{name}"


def sweep(handlers: MixingHandlers, prompt: gr.Textbox, of: gr.Radio, source: PromptSource) -> None:
    """Sweep, Stop and below them the answers and the curve that come of it."""
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        run = gr.Button("Sweep", variant="primary", elem_id="bt-sweep-run", scale=0, min_width=120)
        stop = StopButton(elem_id="bt-sweep-stop", scale=0, min_width=100)
    result, curve = html(elem_id="bt-sweep"), chart(None, "", "bt-sweep-curve")

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
            prompt: If given, also how far mixing moves each layer's cache for this prompt.
            template: Template around the prompt: "own" the checkpoint's, "chat" the base's chat template, "none" nothing.

        Returns:
            For every checkpoint its method; keys and values, one ratio a layer from 0 (first, causal reading only) to 1 (second
            reading only); moved_keys and moved_values, one number a layer: the mean over tokens of the distance between mixed and
            causal cache as a share of the causal one; training_log as one list a field, alpha_k and alpha_v with one list of
            ratios a step. null where nothing is mixed or no prompt was given.
        """
        return handlers.answer(checkpoints, prompt, template)

    return mixing
