"""What a variant answers along a sweep, as HTML. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.mixing.charts import factor_in_words
from app.ui.differences import difference
from app.ui.templates import render
from bitune.schema.results import SweepPoint


@dataclass(frozen=True)
class SweepRow:
    """One factor. `pieces`: of the answer, marked where they differ from the learned one; `running`: it is still being written."""

    words: str
    log_probability: str
    pieces: Sequence[tuple[str, bool]]
    running: bool
    learned: bool


def sweep_table(points: Sequence[SweepPoint], *, stopped: bool = False) -> str:
    """A row for each factor; answers that were `stopped` are done as they are."""
    learned = next((point.completion.text for point in points if point.factor == 1), points[0].completion.text)
    return render("mixing/sweep.html", rows=[row_of(point, learned, stopped) for point in points])


def row_of(point: SweepPoint, learned: str, stopped: bool) -> SweepRow:
    """A factor, its log-probability with a minus sign as wide as a digit, and its answer."""
    text, running = point.completion.text, point.completion.finish_reason is None and not stopped
    return SweepRow(
        factor_in_words(point.factor),
        "–" if point.log_probability is None else f"{point.log_probability:.2f}".replace("-", "\u2212"),
        [(text, False)] if running else difference(learned, text).pieces,
        running,
        point.factor == 1,
    )
