"""Mixing over training and along a sweep, as inline SVG with HTML around it. Pure; colours come from mixing.css.

The SVGs are stretched to the space there is; words stand in HTML, so that they keep their size on a phone.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from app.mixing.log import TrainingSeries, thinned
from app.ui.differences import difference
from app.ui.render import chip, faithful
from app.ui.variants import VariantView
from bitune.schema.results import SweepPoint


def training(view: VariantView, log: TrainingSeries) -> str:
    """Ratios of every layer over the steps, keys above values, and the loss below on the same axis of steps."""
    parts = []
    if log.steps:
        chosen = thinned(log.steps)
        edges = [0, *(log.steps[place] for place in chosen)]
        layers = len(log.keys[0])
        for title, table in (("Keys", log.keys), ("Values", log.values)):
            svg = heat([table[place] for place in chosen], edges, log.last, f"{title}: ratio of each layer at each step")
            parts.append(panel(title, svg, [(0, "0"), (1, str(layers - 1))], "bt-heat", "Layer"))
    else:
        parts.append('<p class="bt-empty">Nothing is mixed here, so there is only the loss.</p>')
    parts.append(loss_panel(log))
    return f'<section class="bt-training"><h3>{chip(view)}</h3>{"".join(parts)}{step_axis(log.last)}</section>'


def untold(view: VariantView, words: str) -> str:
    """Words in place of a training."""
    return f'<section class="bt-training"><h3>{chip(view)}</h3><p class="bt-empty">{escape(words)}</p></section>'


def heat(columns: Sequence[Sequence[float]], edges: Sequence[float], width: float, name: str) -> str:
    """`columns` [column][layer] as an SVG, column i from edges[i] to edges[i + 1]; one path a level of two digits.

    Neighbours of one level are one rectangle: ratios move slowly, so a long training stays small.
    """
    levels: dict[int, list[str]] = {}
    for layer in range(len(columns[0])):
        row = [round(100 * column[layer]) for column in columns]
        start = 0
        for place in range(1, len(row) + 1):
            if place == len(row) or row[place] != row[start]:
                levels.setdefault(row[start], []).append(f"M{edges[start]:g} {layer}H{edges[place]:g}v1H{edges[start]:g}z")
                start = place
    paths = "".join(
        f'<path class="bt-{"low" if level < 50 else "high"}" style="--a:{level}" d="{"".join(found)}"><title>{level / 100:.2f}</title></path>'
        for level, found in sorted(levels.items())
    )
    return stretched(paths, max(width, 1), len(columns[0]), name, "crispEdges")


def stretched(content: str, width: float, height: float, name: str, rendering: str = "auto") -> str:
    """An SVG that fills whatever box it gets."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" shape-rendering="{rendering}" role="img" '
        f'aria-label="{escape(name)}">{content}</svg>'
    )


def panel(title: str, svg: str, marks: Iterable[tuple[float, str]], css: str, unit: str) -> str:
    """A plot with its marks at the left, from 0 (top) to 1 (bottom)."""
    labels = "".join(f'<span style="top:{100 * place:.2f}%">{text}</span>' for place, text in marks)
    return f'<div class="bt-panel {css}"><h4>{title}</h4><div class="bt-marks"><em>{unit}</em>{labels}</div><div class="bt-plot">{svg}</div></div>'


def loss_panel(log: TrainingSeries) -> str:
    """The loss of the training, and on examples held back where it was measured; words where nothing was written down."""
    losses = [loss for _, loss in (*log.loss, *log.eval_loss)]
    if not losses:
        return '<p class="bt-empty">This training wrote down no loss.</p>'
    marks = ticks(min(losses), max(losses), 3)
    low, high = min(*losses, *marks), max(*losses, *marks)
    span = (high - low) or 1

    def place(loss: float) -> float:
        return (high - loss) / span

    lines = [line(log.loss, place, "bt-line"), line(log.eval_loss, place, "bt-line bt-held")]
    svg = stretched("".join(lines), max(log.last, 1), 1, f"Loss, from {losses[0]:.3g} to {losses[-1]:.3g}")
    title = 'Loss <small class="bt-held-word">dashed: on examples held back</small>' if log.eval_loss else "Loss"
    return panel(title, svg, [(place(mark), f"{mark:g}") for mark in marks], "bt-loss", "")


def line(points: Sequence[tuple[int, float]], place, css: str) -> str:
    """A curve through (step, loss)."""
    kept = [points[i] for i in thinned(points, 400)]
    way = "L".join(f"{step:g} {place(loss):.4f}" for step, loss in kept)
    # A line of no length is a dot, where there is one point alone.
    return f'<path class="{css}" d="M{way}h0"/>' if kept else ""


def step_axis(last: int) -> str:
    """Steps under all panels."""
    marks = ticks(0, last, 4) if last else [0]
    labels = "".join(f'<span style="left:{100 * mark / max(last, 1):.2f}%">{mark:g}</span>' for mark in marks if mark <= last)
    return f'<div class="bt-steps"><em>Step</em><div>{labels}</div></div>'


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers that span low to high."""
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(index * step, 12) for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def factor_in_words(factor: float) -> str:
    """What a scale factor does to the learned ratios."""
    named = {0: "causal only", 1: "learned", 2: "bidirectional only"}
    if factor in named:
        return named[factor]
    return f"{1 - factor:.0%} towards causal" if factor < 1 else f"{factor - 1:.0%} towards bidirectional"


def sweep(view: VariantView, points: Sequence[SweepPoint], *, stopped: bool = False) -> str:
    """The curve, once it is known, and a row for each factor; answers that were `stopped` are done as they are."""
    learned = next((point.completion.text for point in points if point.factor == 1), points[0].completion.text)
    rows = [sweep_row(point, learned, stopped) for point in points]
    head = '<th scope="col">Ratios</th><th scope="col">Log-probability</th><th scope="col">Answer</th>'
    table = f'<table class="bt-sweep-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<section class="bt-sweep">{sweep_curve(view, points)}{table}</section>'


def sweep_curve(view: VariantView, points: Sequence[SweepPoint]) -> str:
    """Log-probability of the learned answer over the factor, from blue to orange."""
    if any(point.log_probability is None for point in points):
        return ""
    values = [point.log_probability for point in points]
    marks = ticks(min(values), max(values), 3)
    low, high = min(marks), max(marks)
    span = (high - low) or 1
    places = [(50 * point.factor, 100 * (high - point.log_probability) / span) for point in points]
    way = "L".join(f"{x:g} {y:.3f}" for x, y in places)
    dots = "".join(
        f'<i style="left:{x:g}%;top:{y:.3f}%" title="{factor_in_words(point.factor)}: {written(point.log_probability)}"></i>'
        for (x, y), point in zip(places, points, strict=True)
    )
    svg = stretched(
        f'<path class="bt-line" d="M{way}"/>', 100, 100, "Log-probability of the learned answer over the scale factor"
    )
    title = f"{chip(view)} Log-probability of the learned answer"
    return panel(title, svg + dots, [((high - mark) / span, written(mark, "g")) for mark in marks], "bt-curve", "") + SWEEP_AXIS


def written(number: float, kind: str = ".2f") -> str:
    """A number with a minus sign that is as wide as a digit."""
    return format(number, kind).replace("-", "\u2212")


SWEEP_AXIS = '<div class="bt-sweep-axis"><i></i><div><span>causal only</span><span>learned</span><span>bidirectional only</span></div></div>'


def sweep_row(point: SweepPoint, learned: str, stopped: bool) -> str:
    """A factor, its log-probability, and its answer, marked where it differs from the learned one."""
    running = point.completion.finish_reason is None and not stopped
    pieces = ((point.completion.text, False),) if running else difference(learned, point.completion.text).pieces
    body = "".join(f"<mark>{faithful(text)}</mark>" if marked else faithful(text) for text, marked in pieces)
    if not body and not running:
        body = '<span class="bt-silent">no text</span>'
    known = "–" if point.log_probability is None else written(point.log_probability)
    return (
        f'<tr{" class=bt-own-row" if point.factor == 1 else ""}><th scope="row">{factor_in_words(point.factor)}</th>'
        f'<td class="bt-number">{known}</td><td><div class="bt-text{" bt-running" if running else ""}" dir="auto">{body}</div></td></tr>'
    )
