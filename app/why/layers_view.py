"""The effects of mixing as HTML and as a chart. Pure; colours are in layers.css.

In the chart blue is a layer that keeps the first reading alone, orange one that takes the second alone. A token is shaded by the sign of its
change: orange where the answer gets less likely without its second reading, blue where it gets more likely.
"""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.ui.plots import COLOURS, left_titles
from app.ui.templates import render
from bitune.schema.layers import MixingEffects

UNDONE, COMPLETED = "first reading alone", "second reading alone"


def effects_html(effects: MixingEffects) -> str:
    """In words, and the prompt's tokens shaded by what undoing their mixing changes, as text and as a table."""
    return render(
        "why/effects.html",
        effects=effects,
        tokens=shares(effects.tokens, effects.prompt),
        layers=list(
            zip(
                effects.layers.undone_keys,
                effects.layers.completed_keys,
                effects.layers.undone_values,
                effects.layers.completed_values,
                strict=True,
            )
        ),
        signed=signed,
        UNDONE=UNDONE,
        COMPLETED=COMPLETED,
    )


def shares(changes: Sequence[float | None], texts: Sequence[str]) -> list[tuple[str, float | None, float]]:
    """Text, change and depth of shade (0 to 1, the largest change) of each token; the last one has no change."""
    largest = max((abs(change) for change in changes if change is not None), default=0) or 1.0
    padded = (*changes, *[None] * (len(texts) - len(changes)))
    return [(text, change, 0.0 if change is None else abs(change) / largest) for text, change in zip(texts, padded, strict=True)]


def effects_chart(effects: MixingEffects) -> go.Figure | None:
    """Keys above values, the change by layer; None before the first is measured."""
    layers = effects.layers
    if layers.undone_keys[0] is None:
        return None
    figure = make_subplots(
        rows=2, shared_xaxes=True, shared_yaxes="all", vertical_spacing=0.12, subplot_titles=("Keys", "Values")
    )
    left_titles(figure)
    for row, (undone, completed) in enumerate(
        ((layers.undone_keys, layers.completed_keys), (layers.undone_values, layers.completed_values)), 1
    ):
        for name, changes, colour in ((UNDONE, undone, "causal"), (COMPLETED, completed, "bidirectional")):
            figure.add_bar(
                y=list(changes),
                name=f"This layer: {name}",
                legendgroup=name,
                showlegend=row == 1,
                marker={"color": COLOURS[colour]},
                hovertemplate="%{y:+.3f}",
                row=row,
                col=1,
            )
    figure.add_hline(y=0, line={"width": 1, "color": COLOURS["soft"]})
    figure.update_xaxes(range=[-0.5, len(layers.undone_keys) - 0.5])
    figure.update_xaxes(title="Layer", row=2)
    figure.update_yaxes(
        title="Change in<br>log-probability",
        range=room_for([*layers.undone_keys, *layers.completed_keys, *layers.undone_values, *layers.completed_values]),
    )
    figure.update_layout(
        height=420, barmode="group", bargap=0.25, hovermode="x unified", xaxis_unifiedhovertitle_text="Layer %{x}"
    )
    figure.update_layout(xaxis2_unifiedhovertitle_text="Layer %{x}")
    return figure


def room_for(changes: Sequence[float | None]) -> list[float]:
    """The axis of these changes: zero is on it, and the longest bar ends before its end. Plotly finds none for axes that match."""
    known = [0.0, *(change for change in changes if change is not None)]
    margin = 0.06 * (max(known) - min(known)) or 1.0
    return [min(known) - margin, max(known) + margin]


def signed(change: float | None) -> str:
    """A change with its sign and two decimals; a dash where there is none."""
    return "–" if change is None else f"{change:+.2f}".replace("-", "−")
