"""What happens in the tab Mixing, without the page: requests go in, HTML, figures and plain values come out. Knows no gradio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from app.mixing import charts
from app.mixing.charts import MovedColumn, RatioColumn
from app.mixing.html import ratio_table, sliders
from app.mixing.training_log import TrainingLog, read_log
from app.ui.admission import Admission
from app.ui.checks import names
from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.templates import chip, empty, render
from app.ui.variants import VariantView, views_of, with_what_ifs
from app.ui.what_ifs import add, ratios
from app.ui.work import work_of
from bitune.errors import ConfigError, DataError, PromptError, UnknownNameError
from bitune.schema.variants import PRESETS, MixingRatios, WhatIf

MAX_TOKENS = 1024  # a sweep keeps a cache for each factor
NO_CHECKPOINT = "No checkpoint is loaded, so nothing is mixed. Start the app with --checkpoint DIR to add one."
NOT_YET = "The learned ratios appear here when the checkpoints are loaded."
Moved = dict[str, tuple[Sequence[float | None], Sequence[float | None]]]


@dataclass(frozen=True)
class WhatIfUpdate:
    """After a what-if was added or taken away: what there is now, the name to choose in Compare, and a sentence."""

    what_ifs: dict[str, dict]
    name: str | None
    words: str


@dataclass(frozen=True)
class Training:
    """How the chosen checkpoints were trained. `heat_maps`: by checkpoint; `notes`: HTML, what cannot be drawn."""

    heat_maps: Mapping[str, go.Figure]
    losses: go.Figure | None
    notes: str


class MixingHandlers(OnEngine):
    """The events of Mixing on one engine."""

    def __init__(self, engine, admission: Admission | None = None, most: int = 0):
        """On an engine; `most`: how many checkpoints there may be later, where they are loaded from the page."""
        super().__init__(engine, admission)
        self.versions = count()
        self.most = most

    @property
    def views(self) -> dict[str, VariantView]:
        """How each variant of the engine is called and coloured."""
        return views_of(self.engine)

    @property
    def checkpoints(self) -> list[str]:
        """All of them, in order."""
        return list(self.engine.checkpoints)

    @property
    def expected(self) -> list[str]:
        """All of them, in order; until they are loaded, those that will be if they fit."""
        return self.checkpoints if self.loading.ready else self.names[1:]

    @property
    def may_mix(self) -> list[str]:
        """The checkpoints that mix, as far as is known."""
        return list(self.mixing) if self.loading.ready else self.expected

    @property
    def mixing(self) -> dict[str, MixingRatios]:
        """The learned ratios of the checkpoints that mix; of none while they are loading."""
        if not self.loading.ready:
            return {}
        variants = self.engine.variants
        return {name: variants[name].mixing for name in self.checkpoints if variants[name].mixing is not None}

    def first_mixing(self) -> str:
        """The first checkpoint that mixes; ConfigError where none does."""
        if not self.mixing:
            raise ConfigError("None of the loaded checkpoints mixes anything.")
        return next(iter(self.mixing))

    def ratio_table(self, chosen: Sequence[str]) -> str:
        """The bars of the chosen checkpoints, and words for those that mix nothing."""
        if not self.loading.ready:
            return empty(NOT_YET)
        if not self.checkpoints:
            return empty(NO_CHECKPOINT)
        unmixed = [name for name in self.checkpoints if name in chosen and name not in self.mixing]
        words = (
            [f"{' and '.join(unmixed)}: the prompt is read once and nothing is mixed, so there are no ratios."] if unmixed else []
        )
        columns = self.columns(chosen)
        if not columns and not words:
            words = ["No checkpoint is chosen; choose at least one."]
        return ratio_table(columns) + Markup().join(map(empty, words))

    def columns(self, chosen: Sequence[str]) -> list[RatioColumn]:
        """The chosen checkpoints that mix."""
        if not self.mixing:
            return []
        views = self.views
        return [RatioColumn(views[name], mixing) for name, mixing in self.mixing.items() if name in chosen and name in views]

    def moved_columns(self, moved: Moved) -> list[MovedColumn]:
        """What was measured, to be drawn."""
        views = self.views
        return [MovedColumn(views[name], *sides) for name, sides in moved.items() if name in views]  # it may have been unloaded

    def by_layer(self, chosen: Sequence[str]) -> go.Figure | None:
        """The ratios of the chosen checkpoints as lines."""
        return charts.ratios_by_layer(self.columns(chosen))

    def training(self, chosen: Sequence[str]) -> Training:
        """How each chosen checkpoint came to its ratios, and words where there is nothing to draw."""
        if not self.loading.ready:
            return Training({}, None, "")
        logs, heat_maps, notes = {}, {}, {}
        for name in (name for name in self.checkpoints if name in chosen):
            try:
                logs[name] = log = self.training_log(name)
                if not log.entries:
                    notes[name] = f"{name} came without a training log, so only the end is known."
                elif not log.mixed:
                    notes[name] = "Nothing is mixed here, so there is only the loss."
                else:
                    heat_maps[name] = charts.ratios_over_training(log)
                if log.entries and not (log.loss or log.eval_loss):
                    notes[name] = "This training wrote down no loss."
            except DataError as error:
                notes[name] = str(error)
        views = self.views
        words = render("mixing/training_notes.html", notes=[(views[name], text) for name, text in notes.items()])
        return Training(heat_maps, charts.losses(logs, views), words)

    def training_log(self, name: str) -> TrainingLog:
        """The log of a checkpoint; DataError where it cannot be read."""
        mixing = self.mixing.get(name)
        lines = self.engine.training_log(name)
        try:
            return read_log(lines, mixing.layers if mixing else self.engine.base_facts.layers)
        except DataError as error:
            raise DataError(
                f"The training log of {name} cannot be read: {error}. Copy its training_log.jsonl again, or remove it."
            ) from error

    def moved(self, prompt: object, names: Sequence[str], template: object) -> Moved:
        """By checkpoint, for keys and values, one number a layer; raises."""
        distances = self.runner.moved(prompt, names, template)
        return {name: (means(keys), means(values)) for name, (keys, values) in distances.items()}

    def work_of_measuring(self, prompt: object, names: Sequence[str], template: object) -> Work:
        """How much it is to measure these checkpoints, if nothing of it is remembered; raises as `moved`."""
        return work_of(self.engine, prompt, names, template, {})

    def check_length(self, prompt: object, name: str, template: object) -> int:
        """Tokens of a prompt; PromptError where they are too many for this tab."""
        tokens = len(self.engine.prompt_ids(prompt, name, template=template))
        if tokens > MAX_TOKENS:
            raise PromptError(f"The prompt has {tokens:,} tokens; this works for up to {MAX_TOKENS:,}, so shorten it.")
        return tokens

    def sliders(self, of: str | None, preset: str = "learned") -> str:
        """The sliders of a checkpoint, set by a preset; nothing while there is none."""
        if of is None:
            return ""
        return self.sliders_at(of, PRESETS[preset](self.engine.mixing(of)))

    def sliders_with_layers(self, of: str, first: object, last: object, alpha: object) -> str:
        """The sliders as learned, with layers `first` to `last` set to `alpha`; raises."""
        if not all(type(value) in (int, float) for value in (first, last, alpha)):
            raise ConfigError("Fill in both layers and the ratio.")
        return self.sliders_at(of, self.engine.mixing(of).with_layers(int(first), int(last), float(alpha)))

    def sliders_at(self, of: str, mixing: MixingRatios) -> str:
        """The sliders at these ratios."""
        return sliders(self.views[of], mixing, self.engine.mixing(of), next(self.versions))

    def add(self, what_ifs: Mapping[str, dict], of: str, slider_ratios: object) -> WhatIfUpdate:
        """The ratios of the sliders as one more what-if; raises."""
        question = WhatIf(of, ratios(slider_ratios))
        more, name = add(what_ifs, question, self.engine.mixing(of), self.engine.variants)
        new = "is a column of Compare now: press Run there" if len(more) > len(what_ifs) else "is there already"
        return WhatIfUpdate(more, name, empty(f"{name} {new}."))

    def remove(self, what_ifs: Mapping[str, dict], colour: int) -> WhatIfUpdate:
        """Without the one of this colour."""
        kept = {name: value for name, value in what_ifs.items() if value["colour"] != colour}
        return WhatIfUpdate(kept, None, "")

    def chip(self, name: str) -> str:
        """Colour and name of a checkpoint; nothing for one that is not there, or not yet."""
        return chip(self.views[name]) if self.loading.ready and name in self.views else ""

    def chips(self, what_ifs: Mapping[str, dict]) -> dict[int, str]:
        """Colour -> chip of each what-if."""
        views = with_what_ifs(self.views, what_ifs)
        return {value["colour"]: chip(views[name]) for name, value in what_ifs.items()}

    def answer(self, checkpoints: object, prompt: object, template: object) -> dict[str, object]:
        """For programs: what the tab shows, as plain JSON. Raises."""
        asked = self.asked(checkpoints)
        mixing = [name for name in asked if name in self.mixing]
        moved = self.moved(prompt, mixing, template) if mixing and prompt not in (None, "") else {}
        return {name: self.answer_of(name, moved.get(name, (None, None))) for name in asked}

    def asked(self, checkpoints: object) -> list[str]:
        """The checkpoints that a program names, all of them if None; raises."""
        chosen = self.checkpoints if checkpoints is None else names(checkpoints, "checkpoints")
        for name in chosen:
            if name not in self.engine.checkpoints:
                raise UnknownNameError("checkpoint", name, self.checkpoints)
        return list(dict.fromkeys(chosen))

    def work(self, checkpoints: object, prompt: object, template: object) -> Work | None:
        """What such a call asks of the model; None where it measures nothing. Raises."""
        measured = [name for name in self.asked(checkpoints) if name in self.mixing]
        return self.work_of_measuring(prompt, measured, template) if measured and prompt not in (None, "") else None

    def answer_of(self, name: str, moved: tuple[Sequence[float | None] | None, ...]) -> dict[str, object]:
        """One checkpoint; keys, values and what was moved are None where nothing is mixed."""
        mixing, log = self.mixing.get(name), self.training_log(name)
        return {
            "method": self.engine.checkpoints[name].method,
            "keys": list(mixing.keys) if mixing else None,
            "values": list(mixing.values) if mixing else None,
            "moved_keys": moved[0],
            "moved_values": moved[1],
            "training_log": log.as_json(),
        }


def means(moved: np.ndarray) -> list[float | None]:
    """Mean over tokens of [layers, tokens], those left out that a layer no longer holds; None where it holds none."""
    kept = [row[~np.isnan(row)] for row in moved]
    return [float(row.mean()) if row.size else None for row in kept]
