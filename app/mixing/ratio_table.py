"""The ratios as HTML: per layer a bar for the keys and one for the values, to look at and as sliders. Pure; colours are in mixing.css.

A bar runs from 0, the first reading alone (blue), to 1, the second alone (orange); its cap stands at the ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.ui.templates import render
from app.ui.variants import VariantView
from bitune.schema.variants import MixingRatios


@dataclass(frozen=True)
class RatioColumn:
    """One checkpoint in the table. `moved`: how far mixing moved keys and values for a prompt, a number a layer each, or None."""

    view: VariantView
    mixing: MixingRatios
    moved: tuple[Sequence[float | None], Sequence[float | None]] | None = None


def ratio_table(columns: Sequence[RatioColumn]) -> str:
    """The checkpoints side by side, a row a layer. All have the layers of one base; the longest movement fills its bar."""
    if not columns:
        return ""
    most = max((value or 0 for column in columns for side in column.moved or () for value in side), default=0)
    return render("mixing/ratio_table.html", columns=columns, layers=columns[0].mixing.layers, most=most)


def sliders(view: VariantView, mixing: MixingRatios, learned: MixingRatios, version: int) -> str:
    """Bars that can be moved; a line marks what was learned. `version` makes the browser draw them anew, so that a preset also
    undoes what was moved by hand."""
    return render("mixing/sliders.html", view=view, mixing=mixing, learned=learned, version=version)
