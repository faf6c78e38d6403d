"""The HTML of Mixing: ratios as bars to look at and as sliders, and the answers along a sweep. Pure; colours are in mixing.css.

A bar runs from 0, the first reading alone (blue), to 1, the second alone (orange); its cap stands at the ratio.
"""

from collections.abc import Sequence

from app.mixing.charts import MovedColumn, RatioColumn, factor_in_words
from app.ui.differences import difference
from app.ui.templates import render
from app.ui.variants import VariantView
from bitune.schema.results import SweepPoint
from bitune.schema.variants import MixingRatios


def ratio_table(columns: Sequence[RatioColumn]) -> str:
    """The checkpoints side by side, a row a layer. All have the layers of one base."""
    if not columns:
        return ""
    return render("mixing/ratio_table.html", columns=columns, layers=columns[0].mixing.layers)


def moved_table(columns: Sequence[MovedColumn]) -> str:
    """How far a prompt was moved, a row a layer, folded below words that say what the numbers are; the longest movement fills its bar."""
    longest = max(value or 0 for column in columns for side in (column.keys, column.values) for value in side)
    return render("mixing/moved_table.html", columns=columns, layers=len(columns[0].keys), longest=longest)


def sliders(view: VariantView, mixing: MixingRatios, learned: MixingRatios, version: int) -> str:
    """Bars that can be moved, in three columns; a line marks what was learned. `version` makes the browser draw them anew, so that a preset
    also undoes what was moved by hand."""
    third = -(-mixing.layers // 3)
    thirds = [range(start, min(start + third, mixing.layers)) for start in range(0, mixing.layers, third)]
    return render("mixing/sliders.html", view=view, mixing=mixing, learned=learned, version=version, thirds=thirds)


def sweep_table(view: VariantView, points: Sequence[SweepPoint], *, stopped: bool = False) -> str:
    """Which checkpoint is swept, and a row for each factor, words marked where they differ from the learned answer; answers that were
    `stopped` are done as they are."""
    learned = next((point.completion.text for point in points if point.factor == 1), points[0].completion.text)
    values = {"view": view, "points": points, "learned": learned, "stopped": stopped}
    return render("mixing/sweep.html", **values, difference=difference, factor_in_words=factor_in_words)
