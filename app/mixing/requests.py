"""What in the tab Mixing runs the model, as the frame of app/ui/frame.py takes it. Knows no gradio."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated

import plotly.graph_objects as go
from pydantic import BaseModel, ConfigDict, Field

from app.mixing.charts import moved_by_layer, sweep_curve
from app.mixing.handlers import MixingHandlers, Moved
from app.mixing.html import moved_table, sweep_table
from app.ui.checks import MAX_CHARACTERS, NameList
from app.ui.pace import Work
from app.ui.requests import HtmlRequest
from app.ui.templates import empty, render
from app.ui.variants import VariantView
from bitune.errors import ConfigError
from bitune.schema.results import SweepPoint

SWEEP_TOKENS = 32
STOPPED = "Stopped before anything was measured."


class Link(BaseModel):
    """What a link may say of Mixing: the checkpoints that are shown, and the prompt. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    chosen: NameList | None = None
    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None


@dataclass(frozen=True)
class MeasureScreen:
    """What stands under the button. `chart`: once something is measured. `moved`: of each checkpoint that is done."""

    html: str
    running: bool = False
    chart: go.Figure | None = None
    moved: Moved = field(default_factory=dict)


class MeasureRequest(HtmlRequest[MeasureScreen, MixingHandlers]):
    """How far each layer's cache is moved for a prompt, per chosen checkpoint that mixes."""

    screen_type = MeasureScreen

    def work(self, prompt: object, chosen: Sequence[str], template: object) -> Work:
        return self.on.work_of_measuring(prompt, self.wanted(chosen), template)

    def wanted(self, chosen: Sequence[str]) -> list[str]:
        """The chosen checkpoints that mix; ConfigError where none does."""
        wanted = [name for name in self.on.mixing if name in chosen]
        if not wanted:
            raise ConfigError("None of the chosen checkpoints mixes anything.")
        return wanted

    def run(self, prompt: object, chosen: Sequence[str], template: object) -> Iterator[MeasureScreen]:
        """One checkpoint after the other; what is measured is drawn at once."""
        moved, wanted = {}, self.wanted(chosen)
        for number, name in enumerate(wanted, 1):
            words = f"Measuring {name}" + (f", {number} of {len(wanted)}" if len(wanted) > 1 else "")
            yield self.screen(moved, busy(words), running=True)
            moved |= self.on.moved(prompt, [name], template)
        yield self.screen(moved)

    def screen(self, moved: Moved, words: str = "", *, running: bool = False) -> MeasureScreen:
        """What is measured so far, below `words`."""
        if not moved:
            return MeasureScreen(words, running)
        columns = self.on.moved_columns(moved)
        return MeasureScreen(words + moved_table(columns), running, moved_by_layer(columns), dict(moved))

    def finish(self, latest: MeasureScreen) -> MeasureScreen:
        """One that was stopped keeps the checkpoints that are done."""
        return self.screen(latest.moved) if latest.moved else MeasureScreen(empty(STOPPED))


def busy(words: str) -> str:
    """What is being done just now; the browser counts the seconds."""
    return render("mixing/busy.html", words=words)


@dataclass(frozen=True)
class SweepScreen:
    """What stands under the sweep; `curve` once it is known. `points`, of the checkpoint `view`, are what Stop leaves."""

    html: str
    running: bool = False
    curve: go.Figure | None = None
    points: Sequence[SweepPoint] = ()
    view: VariantView | None = None


class SweepRequest(HtmlRequest[SweepScreen, MixingHandlers]):
    """The answers of a checkpoint with its ratios scaled from causal only to bidirectional only."""

    screen_type = SweepScreen

    def work(self, prompt: object, of: str | None, template: object) -> Work:
        from bitune.inference.sweep import FACTORS  # imports torch, and the page opens before that

        of = self.of(of)
        tokens = self.on.check_length(prompt, of, template)
        return Work(tokens, len(self.on.engine.variants[of].passes), SWEEP_TOKENS, len(FACTORS) + 1)

    def of(self, of: str | None) -> str:
        """The checkpoint; None where Sweep was pressed before the checkpoints were there, then the first one."""
        return self.on.first_mixing() if of is None else of

    def run(self, prompt: object, of: str | None, template: object) -> Iterator[SweepScreen]:
        """The answers as they come, and at last the curve."""
        of = self.of(of)
        running = self.on.runner.sweep(prompt, of, template=template, max_new_tokens=SWEEP_TOKENS)
        view = self.on.views[of]
        with closing(running):
            yield SweepScreen(busy("Reading the prompt"), running=True)
            for points in running:
                yield SweepScreen(sweep_table(view, points), running=True, points=points, view=view)
        yield SweepScreen(sweep_table(view, points), curve=sweep_curve(view, points), points=points)

    def finish(self, latest: SweepScreen) -> SweepScreen:
        """One that was stopped keeps the answers as far as they came."""
        if not latest.points:
            return SweepScreen(empty("Stopped before the first token."))
        return SweepScreen(sweep_table(latest.view, latest.points, stopped=True), points=latest.points)
