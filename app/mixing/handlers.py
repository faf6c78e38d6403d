"""What happens in the tab Mixing, without the page: requests go in, HTML and plain values come out. Knows no gradio."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from html import escape
from itertools import count

import numpy as np

from app.mixing import charts as mixing_charts
from app.mixing import figures as mixing_figures
from app.mixing.figures import Channel
from app.mixing.log import TrainingSeries, for_programs, series
from app.ui import render
from app.ui.checks import names
from app.ui.errors import sentence
from app.ui.variants import VariantView, views_of, with_what_ifs
from app.ui.what_ifs import add, ratios
from bitune.errors import ConfigError, DataError, PromptError, UnknownNameError
from bitune.inference.sweep import stream_sweep
from bitune.schema.results import SweepPoint
from bitune.schema.variants import PRESETS, MixingRatios, WhatIf

MAX_TOKENS = 1024  # measuring runs every layer's attention once more, and a sweep keeps a cache for each factor
SWEEP_TOKENS = 32
NO_CHECKPOINT = "No checkpoint is loaded, so nothing is mixed. Start the app with --checkpoint DIR to add one."
MIXES_NOTHING = "{} reads the prompt once and mixes nothing, so it has no ratios."

Moved = Mapping[str, tuple[Sequence[float | None], Sequence[float | None]]]


@dataclass(frozen=True)
class Added:
    """After a what-if was added or taken away: what there is now, the name to choose in Compare, and a sentence."""

    what_ifs: dict[str, dict]
    name: str | None
    words: str


@dataclass(frozen=True)
class SweepScreen:
    """What stands under the sweep."""

    html: str
    running: bool = False
    points: Sequence[SweepPoint] = ()
    of: str = ""


class MixingHandlers:
    """The events of Mixing on one engine."""

    def __init__(self, engine):
        self.engine = engine
        self.versions = count()

    @property
    def views(self) -> dict[str, VariantView]:
        """How each variant of the engine is called and coloured."""
        return views_of(self.engine.variants, self.engine.checkpoints)

    @property
    def checkpoints(self) -> list[str]:
        """All of them, in order."""
        return list(self.engine.checkpoints)

    @property
    def mixing(self) -> dict[str, MixingRatios]:
        """The learned ratios of the checkpoints that mix."""
        variants = self.engine.variants
        return {name: variants[name].mixing for name in self.checkpoints if variants[name].mixing is not None}

    def desk(self, chosen: Sequence[str], moved: Moved) -> str:
        """The bars of the chosen checkpoints, and words for those that mix nothing."""
        if not self.checkpoints:
            return render.empty(NO_CHECKPOINT)
        learned, views = self.mixing, self.views
        channels = [Channel(views[name], learned[name], moved.get(name)) for name in learned if name in chosen]
        silent = [name for name in self.checkpoints if name in chosen and name not in learned]
        words = "".join(render.empty(MIXES_NOTHING.format(name)) for name in silent)
        if not channels and not silent:
            words = render.empty("No checkpoint is chosen; choose at least one.")
        return mixing_figures.desk(channels) + words

    def training(self, chosen: Sequence[str]) -> str:
        """How each chosen checkpoint came to its ratios."""
        views = self.views
        drawn = "".join(self.training_of(views[name]) for name in self.checkpoints if name in chosen)
        return f'<div class="bt-trainings">{drawn}</div>'

    def training_of(self, view: VariantView) -> str:
        """One checkpoint's training, or words where there is nothing to draw."""
        try:
            found = self.series(view.name)
        except DataError as error:
            return mixing_charts.untold(view, str(error))
        if not found.last:
            return mixing_charts.untold(view, f"{view.name} came without a training log, so only the end is known.")
        return mixing_charts.training(view, found)

    def series(self, name: str) -> TrainingSeries:
        """The log of a checkpoint as columns; DataError where it cannot be read."""
        mixing = self.mixing.get(name)
        try:
            return series(self.engine.training_log(name), mixing.layers if mixing else self.engine.base_facts.layers)
        except (ValueError, RecursionError, DataError) as error:  # ValueError: a line that is no JSON
            cause = str(error) if isinstance(error, DataError) else "a line is not JSON"
            raise DataError(f"The training log of {name} cannot be read: {cause}.") from error

    def measure(self, prompt: object, chosen: Sequence[str], template: object) -> tuple[Moved, str]:
        """How far each layer's cache was moved for a prompt, per chosen checkpoint that mixes, and a sentence."""
        wanted = [name for name in self.mixing if name in chosen]
        try:
            if not wanted:
                raise ConfigError("None of the chosen checkpoints mixes anything.")
            moved = {name: self.moved(prompt, name, template) for name in wanted}
            return moved, render.empty(
                "Keys moved, values moved: the distance from the first reading's cache to the mixed one, divided by the length of "
                "the first one; the average over this prompt's tokens."
            )
        except Exception as error:
            return {}, render.problem(sentence(error))

    def moved(self, prompt: object, name: str, template: object) -> tuple[list[float | None], list[float | None]]:
        """For keys and values, one number a layer; raises."""
        self.check_length(prompt, name, template)
        maps = self.engine.attention(prompt, name, template=template)
        return means(maps.moved_keys), means(maps.moved_values)

    def check_length(self, prompt: object, name: str, template: object) -> None:
        """PromptError where a prompt is too long for this tab."""
        tokens = len(self.engine.prompt_ids(prompt, name, template=template))
        if tokens > MAX_TOKENS:
            raise PromptError(f"The prompt has {tokens:,} tokens; this works for up to {MAX_TOKENS:,}, so shorten it.")

    def editor(self, of: str, preset: str = "learned") -> str:
        """The faders of a checkpoint, set by a preset."""
        return self.faders(of, PRESETS[preset](self.engine.mixing(of)))

    def editor_with_layers(self, of: str, first: object, last: object, alpha: object) -> tuple[str | None, str]:
        """The faders as learned, with layers `first` to `last` set to `alpha`; or None and a sentence."""
        try:
            if not all(type(value) in (int, float) for value in (first, last, alpha)):
                raise ConfigError("Fill in both layers and the ratio.")
            return self.faders(of, self.engine.mixing(of).with_layers(int(first), int(last), float(alpha))), ""
        except Exception as error:
            return None, render.problem(sentence(error))

    def faders(self, of: str, mixing: MixingRatios) -> str:
        """The faders at these ratios."""
        return mixing_figures.editor(self.views[of], mixing, self.engine.mixing(of), next(self.versions))

    def add(self, what_ifs: Mapping[str, dict], of: str, curve: object) -> Added:
        """The faders' curve as one more what-if."""
        try:
            question = WhatIf(of, ratios(curve))
            more, name = add(what_ifs, question, self.engine.mixing(of), self.engine.variants)
        except Exception as error:
            return Added(dict(what_ifs), None, render.problem(sentence(error)))
        new = "is a column of Compare now: press Run there" if len(more) > len(what_ifs) else "is there already"
        return Added(more, name, f'<p class="bt-empty" role="status">{escape(name)} {new}.</p>')

    def remove(self, what_ifs: Mapping[str, dict], colour: int) -> Added:
        """Without the one of this colour."""
        kept = {name: value for name, value in what_ifs.items() if value["colour"] != colour}
        return Added(kept, None, "")

    def shown(self, what_ifs: Mapping[str, dict]) -> dict[int, str]:
        """Colour -> chip of each what-if."""
        views = with_what_ifs(self.views, what_ifs)
        return {value["colour"]: render.chip(views[name]) for name, value in what_ifs.items()}

    def colours(self, what_ifs: Mapping[str, dict]) -> str:
        """What gives the what-ifs among Compare's variants their colours."""
        return render.chosen_colours(with_what_ifs(self.views, what_ifs))

    def announce_sweep(self) -> SweepScreen:
        """At once after the button: the request may have to wait for others."""
        return SweepScreen(render.empty("Waiting for the model: one request runs at a time."), running=True)

    def sweep(self, prompt: object, of: str, template: object) -> Iterator[SweepScreen]:
        """The answers as they come, and at last the curve. Ends with a screen that is not running, whatever happens."""
        try:
            view, points = self.views[of], []
            self.check_length(prompt, of, template)
            running = stream_sweep(self.engine, prompt, of, template=template, max_new_tokens=SWEEP_TOKENS)
            with closing(running):
                for points in running:
                    yield SweepScreen(mixing_charts.sweep(view, points), running=True, points=points, of=of)
            yield SweepScreen(mixing_charts.sweep(view, points), points=points, of=of)
        except Exception as error:
            yield SweepScreen(render.problem(sentence(error)))

    def settle_sweep(self, latest: SweepScreen) -> SweepScreen:
        """After a sweep. One that was stopped keeps the answers as far as they came."""
        if not latest.running:
            return latest
        if not latest.points:
            return SweepScreen(render.empty("Stopped before the first token."))
        return SweepScreen(
            mixing_charts.sweep(self.views[latest.of], latest.points, stopped=True), points=latest.points, of=latest.of
        )

    def answer(self, checkpoints: object, prompt: object, template: object) -> dict[str, object]:
        """For programs: what the tab shows, as plain JSON. Raises."""
        chosen = self.checkpoints if checkpoints is None else names(checkpoints)
        for name in chosen:
            if name not in self.engine.checkpoints:
                raise UnknownNameError("checkpoint", name, self.checkpoints)
        return {name: self.answer_of(name, prompt, template) for name in dict.fromkeys(chosen)}

    def answer_of(self, name: str, prompt: object, template: object) -> dict[str, object]:
        """One checkpoint; keys, values and what was moved are None where nothing is mixed."""
        mixing = self.mixing.get(name)
        self.series(name)  # refuses a log that cannot be read
        moved = self.moved(prompt, name, template) if mixing and prompt not in (None, "") else (None, None)
        return {
            "method": self.engine.checkpoints[name].method,
            "keys": list(mixing.keys) if mixing else None,
            "values": list(mixing.values) if mixing else None,
            "moved_keys": moved[0],
            "moved_values": moved[1],
            "training_log": for_programs(self.engine.training_log(name)),
        }


def means(moved: np.ndarray) -> list[float | None]:
    """Mean over tokens of [layers, tokens], those left out that a layer no longer holds; None where it holds none."""
    kept = [row[~np.isnan(row)] for row in moved]
    return [float(row.mean()) if row.size else None for row in kept]
