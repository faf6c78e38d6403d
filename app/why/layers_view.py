"""The effects of mixing as HTML and as a chart. Pure; colours are in layers.css.

In the chart blue is a layer that keeps the first reading alone, orange one that takes the second alone, as everywhere on the page. A token of the
prompt has no colour: it is shaded where the answer gets less likely without its second reading, and underlined where it gets more likely.
"""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.ui.plots import COLOURS, left_titles
from app.ui.templates import render
from app.why.signs import EMPTY, SPREAD, Written, notation
from bitune.schema.layers import MixingEffects

UNDONE, COMPLETED = "first reading alone", "second reading alone"


def effects_html(effects: MixingEffects, prompt: Sequence[Written]) -> str:
    """In words, and the prompt's tokens shaded by what undoing their mixing changes, as text and as a table. `prompt`: how they are written."""
    return render(
        "why/effects.html",
        effects=effects,
        tokens=list(zip(prompt, shares(effects.tokens, len(prompt)), strict=True)),
        words=" ".join(filter(None, (notation(token.label for token in prompt), spread_words(prompt)))),
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


def spread_words(prompt: Sequence[Written]) -> str:
    """A sentence where a character of the prompt takes several tokens."""
    return SPREAD if any(token.text == EMPTY for token in prompt) else ""


def shares(changes: Sequence[float | None], count: int) -> list[tuple[float | None, float]]:
    """Change and depth of shade (0 to 1, the largest change) of each of so many tokens; the last one has no change."""
    largest = max((abs(change) for change in changes if change is not None), default=0) or 1.0
    padded = (*changes, *[None] * (count - len(changes)))
    return [(change, 0.0 if change is None else abs(change) / largest) for change in padded]


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
