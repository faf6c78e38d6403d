"""The charts of Mixing as plotly figures: ratios by layer, ratios and losses over training, the curve of a sweep.

Pure; what they look like is in app/ui/plots.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.mixing.training_log import TrainingLog
from app.ui.plots import COLOURS, RATIO_SCALE, label, left_titles
from app.ui.variants import VariantView
from bitune.schema.results import SweepPoint
from bitune.schema.variants import MixingRatios

MAX_COLUMNS = 160  # of a heat map: more than a screen shows apart
MAX_POINTS = 400  # of a line
TRAINING_HEIGHT = 360  # of charts that stand beside each other


@dataclass(frozen=True)
class RatioColumn:
    """One checkpoint that mixes."""

    view: VariantView
    mixing: MixingRatios


@dataclass(frozen=True)
class MovedColumn:
    """How far a checkpoint's mixing moved keys and values for a prompt, a number a layer each; None where a layer keeps nothing of it."""

    view: VariantView
    keys: Sequence[float | None]
    values: Sequence[float | None]


def ratios_by_layer(columns: Sequence[RatioColumn]) -> go.Figure | None:
    """Keys above values, a line for each checkpoint; None where there is no checkpoint."""
    if not columns:
        return None
    figure = by_layer([(column.view, (column.mixing.keys, column.mixing.values)) for column in columns])
    figure.add_hline(y=0.5, line={"width": 1, "dash": "dot", "color": COLOURS["soft"]})
    figure.update_yaxes(range=[-0.03, 1.03], tickvals=[0, 0.5, 1])
    figure.update_layout(height=500)
    return figure


def moved_by_layer(columns: Sequence[MovedColumn]) -> go.Figure:
    """How far a prompt's cache was moved, keys above values on axes of one scale, a line for each checkpoint, at least one."""
    figure = by_layer([(column.view, (column.keys, column.values)) for column in columns])
    longest = max(value or 0 for column in columns for side in (column.keys, column.values) for value in side)
    figure.update_yaxes(range=[0, 1.08 * longest or 1])
    figure.update_layout(height=340)
    return figure


def by_layer(lines: Sequence[tuple[VariantView, tuple[Sequence[float | None], ...]]]) -> go.Figure:
    """Keys above values over the layers, a line for each checkpoint."""
    figure = keys_above_values()
    for view, sides in lines:
        for row, numbers in enumerate(sides, 1):
            look = {"mode": "lines+markers", "marker": {"size": 5}, "hovertemplate": "%{y:.2f}", "showlegend": row == 1}
            figure.add_scatter(y=numbers, **named(view, view.name), **look, row=row, col=1)
    figure.update_xaxes(range=[-0.5, len(lines[0][1][0]) - 0.5])
    figure.update_xaxes(title="Layer", row=2)
    figure.update_layout(hovermode="x unified", xaxis_unifiedhovertitle_text="Layer %{x}")
    figure.update_layout(xaxis2_unifiedhovertitle_text="Layer %{x}")
    return figure


def ratios_over_training(log: TrainingLog) -> go.Figure:
    """The ratio of every layer at each step, keys above values, as heat maps on one axis of steps."""
    figure = keys_above_values()
    entries = thinned(log.mixed, MAX_COLUMNS)
    for row, ratios in enumerate(([e.alpha_k for e in entries], [e.alpha_v for e in entries]), 1):
        figure.add_heatmap(
            x=[entry.step for entry in entries],
            z=[[round(alpha, 4) for alpha in layer] for layer in zip(*ratios, strict=True)],
            coloraxis="coloraxis",
            hovertemplate="step %{x}, layer %{y}: %{z:.2f}<extra></extra>",
            row=row,
            col=1,
        )
    last_layer = len(entries[0].alpha_k) - 1
    figure.update_yaxes(autorange="reversed", tickvals=[0, last_layer], title="Layer", showgrid=False)
    figure.update_xaxes(title="Step", showgrid=False, row=2)
    scale = {"cmin": 0, "cmax": 1, "colorscale": RATIO_SCALE, "showscale": False}
    figure.update_layout(height=TRAINING_HEIGHT, coloraxis=scale)
    return figure


def losses(logs: Mapping[str, TrainingLog], views: Mapping[str, VariantView]) -> go.Figure | None:
    """The losses of all trainings on one pair of axes: a line for each, dashed on held-out examples; None where no loss is known."""
    figure = go.Figure()
    for name, log in logs.items():
        for points, words, dash in ((log.loss, "training", "solid"), (log.eval_loss, "held out", "dash")):
            kept = thinned(points, MAX_POINTS)
            if kept:
                steps, values = zip(*kept, strict=True)
                figure.add_scatter(
                    x=steps,
                    y=values,
                    mode="lines+markers" if len(kept) == 1 or dash == "dash" else "lines",
                    **named(views[name], f"{name}, {words}", dash),
                    hovertemplate="%{y:.3g}",
                )
    if not figure.data:
        return None
    figure.update_xaxes(title="Step", unifiedhovertitle_text="Step %{x}", rangemode="tozero")
    figure.update_yaxes(title="Loss")
    figure.update_layout(height=TRAINING_HEIGHT, hovermode="x unified", showlegend=True)
    return figure


def sweep_curve(view: VariantView, points: Sequence[SweepPoint]) -> go.Figure | None:
    """Log-probability of the learned answer over the factor that scales the ratios; None until every point has one."""
    if not points or any(point.log_probability is None for point in points):
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=[point.factor for point in points],
        y=[point.log_probability for point in points],
        text=[factor_in_words(point.factor) for point in points],
        mode="lines+markers",
        marker={"size": 9},
        **named(view, view.name),
        showlegend=True,
        hovertemplate="%{text}: %{y:.2f}<extra></extra>",
    )
    figure.update_xaxes(tickvals=[0, 1, 2], ticktext=[factor_in_words(factor) for factor in (0, 1, 2)], range=[-0.05, 2.05])
    figure.update_yaxes(title="Log-probability of<br>the learned answer")
    figure.update_layout(height=300, margin_r=60)  # room for half of the last label
    return figure


def keys_above_values() -> go.Figure:
    """Two empty subplots on one horizontal axis."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=("Keys", "Values"))
    left_titles(figure)
    return figure


def named(view: VariantView, name: str, dash: str = "solid") -> dict[str, object]:
    """What a line needs to be known for a variant's; the lines of one variant go and come together."""
    line = {"color": COLOURS[str(view.colour)], "width": 2, "dash": dash}
    return {"name": label(name), "legendgroup": view.name, "line": line}


def thinned(items: Sequence, most: int) -> list:
    """At most `most` of these, evenly spread, the last one among them."""
    if len(items) <= most:
        return list(items)
    return [items[round((number + 1) * len(items) / most) - 1] for number in range(most)]


def factor_in_words(factor: float) -> str:
    """What a scale factor does to the learned ratios."""
    named_factors = {0: "causal only", 1: "learned", 2: "bidirectional only"}
    if factor in named_factors:
        return named_factors[factor]
    return f"{1 - factor:.0%} towards causal" if factor < 1 else f"{factor - 1:.0%} towards bidirectional"
