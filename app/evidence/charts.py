"""The study's differences with their intervals as a plotly figure. Pure; what it looks like is in app/ui/plots.py.

Causal is blue, bidirectional is orange here too: a whisker has the colour of what its variant adds to reading left to right.
"""

from collections.abc import Mapping
from textwrap import wrap

import plotly.graph_objects as go

from app.evidence.data import AVERAGE, Evidence, Row
from app.evidence.table import signed
from app.ui.plots import COLOURS, label
from app.ui.variants import VariantView

CAUSAL, OTHER = "causal", "bidirectional"
LEGEND = {CAUSAL: "only reads left to right", OTHER: "reads otherwise too"}
ROW_HEIGHT = 44


def whiskers(evidence: Evidence, views: Mapping[str, VariantView]) -> go.Figure | None:
    """A dot for each row's difference with its 95 % interval, filled where that is clear of zero; None where there is none."""
    rows = [row for row in evidence.rows if row.minus is not None]
    if not rows:
        return None
    figure = go.Figure()
    for colour, words in LEGEND.items():
        numbers = [number for number, row in enumerate(rows) if colour_of(views[row.name]) == colour]
        if numbers:
            figure.add_scatter(
                y=numbers, name=words, **intervals(evidence, [rows[number] for number in numbers], COLOURS[colour])
            )
    shares = [row.minus[AVERAGE] for row in rows]
    low, high = 100 * min(0.0, *(share.low for share in shares)), 100 * max(0.0, *(share.high for share in shares))
    room = 0.05 * (high - low) or 1
    what = "Average" if len(evidence.tasks) > 1 else "Accuracy"
    title = f"{what} minus {label(evidence.reference)},<br>in points, with 95 % interval"
    figure.update_xaxes(title=title, range=[low - room, high + room], zeroline=True, zerolinecolor=COLOURS["soft"])
    labels = [row_label(row, evidence.reference) for row in rows]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, range=[len(rows) - 0.4, -0.7], showgrid=False)
    figure.update_layout(height=ROW_HEIGHT * len(rows) + 130, showlegend=True)
    return figure


def intervals(evidence: Evidence, rows: list[Row], colour: str) -> dict[str, object]:
    """What a scatter of these rows needs besides their places: dots, intervals and their words, in points."""
    shares = [row.minus[AVERAGE] for row in rows]
    return {
        "x": [100 * share.mean for share in shares],
        "error_x": {
            "array": [100 * (share.high - share.mean) for share in shares],
            "arrayminus": [100 * (share.mean - share.low) for share in shares],
            "color": colour,
            "thickness": 2,
            "width": 4,
        },
        "mode": "markers+text",
        "text": [signed(share.mean) for share in shares],
        "textposition": "top center",
        "textfont": {"color": COLOURS["ink"], "size": 11},
        "marker": {
            "size": 10,
            "color": [colour if evidence.is_clear(row) else COLOURS["paper"] for row in rows],
            "line": {"color": colour, "width": 2},
            "opacity": 1,
        },
        "customdata": [
            f"{label(row.name)}: {signed(share.mean)} points, {signed(share.low)} to {signed(share.high)}"
            for row, share in zip(rows, shares, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def colour_of(view: VariantView) -> str:
    """Blue where a variant only reads left to right."""
    return CAUSAL if set(view.passes) == {CAUSAL} else OTHER


def row_label(row: Row, reference: str) -> str:
    """A row's name in lines that leave room on a phone, and what it is held against where that is not the reference."""
    lines = [label(line) for line in wrap(row.name, 16)]
    return "<br>".join([*lines, *([] if row.against == reference else [f"minus {label(row.against or '')}"])])
