"""The part of Mixing in which a person sets the ratios: presets, sliders, and the what-ifs made of them. Components and wiring only."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from app.mixing.handlers import MixingHandlers, WhatIfUpdate
from app.ui.events import AT_ONCE
from app.ui.frame import Updates, listen
from app.ui.pieces import html
from app.ui.shared import WhatIfList, WhatIfTarget, WhenLoaded
from app.ui.templates import problem
from app.ui.what_ifs import MAX_WHAT_IFS
from bitune.schema.variants import PRESETS

WHAT_IF = (
    "Set the ratios yourself and let the result answer beside the learned one. Look for the layers that change the answer. "
    "Only you see your what-ifs, and they are gone when you reload the page."
)
TOGETHER = '<label class="bt-together"><input type="checkbox" id="bt-together"> Move keys and values together</label>'
# Where the sliders stand is known in the browser alone until it is asked for.
READ_SLIDERS = """(_, ...rest) => {
    const read = (kind) => [...document.querySelectorAll(`#bt-sliders input[data-kind=${kind}]`)]
        .map((input) => Number(input.dataset.exact ?? input.value));
    return [{keys: read("keys"), values: read("values")}, ...rest];
}"""


@dataclass(frozen=True)
class SliderForm:
    """What of the form belongs to the checkpoints: which one the sliders are of, and the last of its layers."""

    of: gr.Radio
    first_layer: gr.Number
    last_layer: gr.Number
    sliders: gr.HTML

    def fill(self, handlers: MixingHandlers, of: str | None) -> Updates:
        """For the first of the checkpoints that there are; where `of`, which it was for, is there, all stays as somebody has set it."""
        mixing = handlers.mixing
        names = list(mixing)
        if of in names:
            kept = dict.fromkeys((self.first_layer, self.last_layer, self.sliders), gr.skip())
            return {self.of: gr.update(choices=names, visible=len(names) > 1), **kept}
        of = names[0] if names else None
        last = mixing[of].layers - 1 if names else 0
        return {
            self.of: gr.update(choices=names, value=of, visible=len(names) > 1),
            self.first_layer: gr.update(maximum=last),
            self.last_layer: gr.update(value=last, maximum=last),
            self.sliders: handlers.sliders(of),
        }


def slider_form(handlers: MixingHandlers) -> SliderForm:
    """Presets, one ratio for some layers, and the sliders."""
    names = list(handlers.mixing)
    first = names[0] if names else None
    with gr.Row(elem_classes="bt-actions bt-buttons bt-begin"):
        of = gr.Radio(names, value=first, label="Of", elem_id="bt-of", min_width=0, visible=len(names) > 1)
        presets = {name: gr.Button(name.capitalize(), scale=0, min_width=0, elem_classes="bt-preset") for name in PRESETS}
    last = handlers.mixing[first].layers - 1 if names else 0
    with gr.Row(elem_classes="bt-actions bt-layers"):
        first_layer = gr.Number(0, label="Learned, but layers", precision=0, minimum=0, maximum=last, min_width=130)
        last_layer = gr.Number(last, label="to", precision=0, minimum=0, maximum=last, min_width=90)
        alpha = gr.Number(0, label="at ratio", minimum=0, maximum=1, step=0.05, min_width=90)
        set_layers = gr.Button("Set", scale=0, min_width=80, elem_id="bt-set")
        html(TOGETHER, min_width=0)
    note = html(elem_id="bt-what-if-note")
    sliders = html(handlers.sliders(first), "bt-editor")

    def draw(of: str, preset: str = "learned") -> Updates:
        return {sliders: handlers.sliders(of, preset)}

    for name, button in presets.items():
        listen(button.click, lambda of, name=name: draw(of, name), {"of": of}, [sliders])
    listen(of.change, lambda of: draw(of), {"of": of}, [sliders])

    def draw_layers(**values: object) -> Updates:
        return {sliders: handlers.sliders_with_layers(**values), note: ""}

    inputs = {"of": of, "first": first_layer, "last": last_layer, "alpha": alpha}
    listen(set_layers.click, draw_layers, inputs, [sliders, note], lambda words: {note: problem(words)})
    return SliderForm(of, first_layer, last_layer, sliders)


def what_if_list(handlers: MixingHandlers, of: gr.Radio, what_ifs: gr.State, target: WhatIfTarget) -> WhatIfList:
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

    def show(update: WhatIfUpdate, wanted: Sequence[str], chosen: list[str] | None = None) -> Updates:
        by_colour = handlers.chips(update.what_ifs)
        updates = {what_ifs: update.what_ifs, note: update.words, **target.show(update.what_ifs, wanted, chosen)}
        for colour, (row, chip) in enumerate(zip(rows, chips, strict=True)):
            updates |= {row: gr.update(visible=colour in by_colour), chip: by_colour.get(colour, "")}
        return updates

    def add(slider_ratios: object, of: str, known: dict, chosen: list[str]) -> Updates:
        update = handlers.add(known, of, slider_ratios)
        return show(update, [*chosen, update.name], chosen)

    inputs = {"slider_ratios": gr.JSON(visible=False), "of": of, "known": what_ifs, "chosen": target.chosen}
    listen(add_button.click, add, inputs, outputs, lambda words: {note: problem(words)}, js=READ_SLIDERS, **AT_ONCE)
    for colour, button in enumerate(removers):

        def remove(known: dict, chosen: list[str], colour=colour) -> Updates:
            return show(handlers.remove(known, colour), chosen, chosen)

        listen(button.click, remove, {"known": what_ifs, "chosen": target.chosen}, outputs)

    return WhatIfList(outputs, lambda known, *variants: show(WhatIfUpdate(known, None, ""), *variants))


def what_ifs_left(handlers: MixingHandlers, listed: WhatIfList, what_ifs: gr.State, target: WhatIfTarget) -> WhenLoaded:
    """A visitor's what-ifs, without those of a checkpoint that is not there any more."""

    def fill(known: dict, chosen: list[str]) -> Updates:
        mixing = handlers.mixing
        kept = {name: value for name, value in known.items() if value["of"] in mixing}
        return listed.show(kept, chosen, chosen) if kept != known else dict.fromkeys(listed.components, gr.skip())

    return WhenLoaded({"known": what_ifs, "chosen": target.chosen}, listed.components, fill)
