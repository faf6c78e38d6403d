"""What variants would say after each layer, as HTML and as a chart. Pure; colours are in layers.css."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.ui.plots import COLOURS, label
from app.ui.templates import render
from app.ui.variants import VariantView
from bitune.schema.layers import LayerReading


def lens_html(readings: Sequence[LayerReading], views: Mapping[str, VariantView]) -> str:
    """A row for each layer, a column for each cache: the likeliest token, shaded by the probability of the followed one."""
    return render("why/lens.html", readings=readings, views=views, layers=len(readings[0].probabilities), share=share)


def lens_chart(readings: Sequence[LayerReading], views: Mapping[str, VariantView]) -> go.Figure:
    """The probability of the followed token after each layer: a line for each cache, dotted where it is the first reading's alone."""
    figure = go.Figure()
    for reading in readings:
        view, is_own = views[reading.variant], reading.cache == "own"
        figure.add_scatter(
            y=list(reading.probabilities),
            mode="lines",
            name=label(view.name if is_own else f"{view.name}, first reading alone"),
            line={"color": COLOURS[str(view.colour)], "width": 2, "dash": "solid" if is_own else "dot"},
            hovertemplate="%{y:.1%}",
        )
    last = len(readings[0].probabilities) - 1
    figure.update_xaxes(title="After layer", dtick=max(1, round(last / 10)), unifiedhovertitle_text="After layer %{x}")
    figure.update_yaxes(title="Probability of<br>the followed token", range=[-0.02, 1.02], tickvals=[0, 0.5, 1], tickformat=".0%")
    figure.update_layout(height=340, hovermode="x unified", showlegend=True)
    return figure


def share(probability: float) -> str:
    """A probability in percent, as short as it can be told apart from nothing."""
    return f"{probability:.0%}".replace("%", " %") if probability >= 0.005 else "<1 %"
