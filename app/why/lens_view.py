"""What variants would say after each layer, as HTML and as a chart. Pure; colours are in layers.css."""

import math
from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from app.ui.plots import COLOURS, label
from app.ui.templates import render
from app.ui.variants import VariantView
from app.why.signs import notation
from bitune.schema.layers import LayerReading

LEAST = 1e-12
"""The least probability that the chart has room for; what lies below is drawn there."""


def lens_html(
    readings: Sequence[LayerReading], views: Mapping[str, VariantView], followed: str, label_of: Callable[[int, str], str]
) -> str:
    """A row for each layer, a column for each cache: the likeliest token, shaded by the probability of the followed one.

    `followed`: how the followed token is written. `label_of`: how any other is, by its id and its text.
    """
    texts = {guess.token: guess.text for reading in readings for row in reading.guesses for guess in row}
    labels = {token: label_of(token, text) for token, text in texts.items()}
    return render(
        "why/lens.html",
        readings=readings,
        views=views,
        layers=len(readings[0].probabilities),
        share=share,
        followed=followed,
        labels=labels,
        notation=notation([followed, *labels.values()]),
        places=first_places(readings),
    )


def first_places(readings: Sequence[LayerReading]) -> list[tuple[int | None, list[LayerReading]]]:
    """The layers from which on the followed token is the likeliest, each with its readings, the earliest first; None for never."""
    found: dict[int | None, list[LayerReading]] = {}
    for reading in readings:
        found.setdefault(first_place(reading), []).append(reading)
    return sorted(found.items(), key=lambda item: math.inf if item[0] is None else item[0])


def first_place(reading: LayerReading) -> int | None:
    """The layer after which the followed token is the likeliest, and stays so up to the last one; None where it is not in the end."""
    since = None
    for layer, (probability, guesses) in enumerate(zip(reading.probabilities, reading.guesses, strict=True)):
        is_first = probability >= guesses[0].probability
        since = (layer if since is None else since) if is_first else None
    return since


def lens_chart(readings: Sequence[LayerReading], views: Mapping[str, VariantView]) -> go.Figure:
    """The probability of the followed token after each layer: a line for each cache, dotted where it is the first reading's alone.

    The axis is logarithmic: in most layers the token is far below one percent, and how far says how soon it comes up.
    """
    figure = go.Figure()
    for reading in readings:
        view, is_own = views[reading.variant], reading.cache == "own"
        figure.add_scatter(
            y=[max(value, LEAST) for value in reading.probabilities],
            customdata=[exact(value) for value in reading.probabilities],
            mode="lines",
            name=label(view.name if is_own else f"{view.name}, first reading alone"),
            line={"color": COLOURS[str(view.colour)], "width": 2, "dash": "solid" if is_own else "dot"},
            hovertemplate="%{customdata}",
        )
    last = len(readings[0].probabilities) - 1
    figure.update_xaxes(title="After layer", dtick=max(1, round(last / 10)), unifiedhovertitle_text="After layer %{x}")
    least = max(min(value for reading in readings for value in reading.probabilities), LEAST)
    ticks = powers(least)
    figure.update_yaxes(
        title="Probability of<br>the followed token",
        type="log",
        range=[ticks[-1] - 0.2, 0.2],
        tickvals=[10.0**power for power in ticks],
        ticktext=[exact(10.0**power) for power in ticks],
    )
    figure.update_layout(height=340, hovermode="x unified", showlegend=True)
    return figure


def powers(least: float) -> list[int]:
    """The powers of ten that are marked on an axis from 1 down to `least` or below: every second one."""
    return list(range(0, min(math.floor(math.log10(least)), -1) - 2, -2))


def share(probability: float) -> str:
    """A probability in percent, as short as it can be told apart from nothing."""
    return f"{probability:.0%}".replace("%", " %") if probability >= 0.005 else "<1 %"


def exact(probability: float) -> str:
    """A probability in percent with two significant digits, however small: 100 %, 1 %, 0.01 %, 0.000001 %."""
    percent = 100 * probability
    digits = 0 if percent >= 10 else 12 if percent <= 0 else 1 - math.floor(math.log10(percent))
    written = f"{percent:.{min(digits, 12)}f}"
    return f"{written.rstrip('0').rstrip('.') if '.' in written else written} %"
