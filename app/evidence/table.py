"""The study's table as HTML, differences drawn as whiskers on one axis. Pure; colours come from evidence.css.

Causal is blue, bidirectional is orange here too: a whisker has the colour of what its variant adds to reading left to right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from app.evidence.data import AVERAGE, Evidence, Row, Share
from app.ui.figures import CAUSAL, passes_icon, picture
from app.ui.render import chip
from app.ui.variants import ABOUT, COLOURS, VariantView
from bitune.schema.variants import BASE, METHODS

WIDTH, HEIGHT, EDGE = 170, 24, 7  # of a whisker; `EDGE` leaves room for the arrow of one that lies outside
NOTE = (
    "Accuracy in percent; below it the 95 % interval over questions and seeds drawn anew, and ± the standard deviation over seeds. "
    "Differences are in "
    "points of the average, paired over the same questions and seeds. A filled dot: the interval does not touch zero. With one seed the "
    "interval is of the questions alone, and another training may come out otherwise, so its dot stays empty."
)


@dataclass(frozen=True)
class Axis:
    """What the whiskers are drawn on, from `low` to `high`, both shares around 0."""

    low: float
    high: float

    def place(self, share: float) -> float:
        """x of a share, held inside the drawing."""
        inside = min(max(share, self.low), self.high)
        return EDGE + (WIDTH - 2 * EDGE) * (inside - self.low) / (self.high - self.low)

    def holds(self, share: float) -> bool:
        return self.low <= share <= self.high


def axis_of(rows: Sequence[Row]) -> Axis:
    """An axis for what was trained; the base is often so far away that it would squeeze the others, and then gets an arrow."""
    shares = [row.minus[AVERAGE] for row in rows if row.minus and row.seeds] or [row.minus[AVERAGE] for row in rows if row.minus]
    low, high = min([0.0, *(share.low for share in shares)]), max([0.0, *(share.high for share in shares)])
    step = step_of(high - low)
    return Axis(step * floor(low / step + 1e-9), -step * floor(-high / step + 1e-9) or step)


def step_of(span: float) -> float:
    """A round number that goes two to five times into `span`."""
    if span <= 0:
        return 0.01
    unit = 10 ** floor(log10(span))
    return next(unit * part for part in (2, 1, 0.5, 0.2) if span / (unit * part) >= 2)


def table(evidence: Evidence, views: dict[str, VariantView]) -> str:
    """A row a variant; wide tables scroll by themselves."""
    axis = axis_of(evidence.rows)
    body = "".join(row_of(evidence, row, views[row.name], axis) for row in evidence.rows)
    return (
        f'<p class="bt-setting">{escape(evidence.text)} The base is {escape(evidence.base)}.</p>'
        f'<div class="bt-scroll" tabindex="0" role="region" aria-label="{escape(evidence.title)}">'
        f'<table class="bt-evidence"><caption class="bt-unseen-words">{escape(evidence.title)}</caption>'
        f'{head(evidence, axis)}<tbody>{body}</tbody></table></div><p class="bt-note">{NOTE}</p>'
    )


def head(evidence: Evidence, axis: Axis) -> str:
    """What the columns hold; for a task also how many questions, and what guessing would get."""
    tasks = "".join(
        f'<th scope="col">{escape(task.title)}<small>{len(task.ids):,} questions{chance(task.chance)}</small></th>'
        for task in evidence.tasks
    )
    average = '<th scope="col">Average</th>' if len(evidence.tasks) > 1 else ""
    words = f"{'Average' if average else 'Accuracy'}, minus {escape(evidence.reference)}"
    return (
        '<thead><tr><th scope="col">Variant</th><th scope="col">Trained parameters</th><th scope="col">Seeds</th>'
        f'{tasks}{average}<th scope="col">{words}{scale(axis)}</th></tr></thead>'
    )


def chance(share: float | None) -> str:
    """What guessing would get, where that is known."""
    return "" if share is None else f"<br>guessing {percent(share)}"


def scale(axis: Axis) -> str:
    """The numbers of the axis: its ends and zero."""
    marks = sorted({axis.low, 0.0, axis.high})
    numbers = "".join(
        f'<text class="bt-mark" x="{axis.place(mark):.1f}" y="10">{f"{100 * mark:+g}".replace("-", MINUS) if mark else "0"}</text>'
        for mark in marks
    )
    return picture(numbers, WIDTH, 13, "the axis in points", "bt-scale")


def row_of(evidence: Evidence, row: Row, view: VariantView, axis: Axis) -> str:
    """One variant."""
    columns = [*(task.name for task in evidence.tasks), *([AVERAGE] if len(evidence.tasks) > 1 else [])]
    cells = "".join(f"<td>{accuracy(row.accuracy[name])}</td>" for name in columns)
    own = ' class="bt-reference"' if row.name == evidence.reference else ""
    seeds = f'<td title="{", ".join(map(str, row.seeds))}">{len(row.seeds) or "–"}</td>'
    return (
        f'<tr{own}><th scope="row">{chip(view)}{passes_icon(view.passes)}<small>{escape(view.about)}<br>{training(row)}</small></th>'
        f"<td>{row.parameters:,}</td>{seeds}{cells}<td>{minus(evidence, row, view, axis)}</td></tr>"
    )


def view_of(row: Row, colour: int) -> VariantView:
    """How a row is called and coloured."""
    passes = tuple(p.attention for p in METHODS.get(row.method, BASE).passes)
    about = ABOUT.get(row.method, "reads once" if len(passes) == 1 else "reads twice")
    if row.method == "lora" and row.peft != "lora":  # not an adapter of LoRA's kind, or none at all
        about = "reads once, trained"
    return VariantView(row.name, about, passes, colour)


def views_of(evidence: Evidence) -> dict[str, VariantView]:
    """Grey for the base, then the first two colours for Bitune and what it is held against; the others share the rest."""
    bitune = next((row.name for row in evidence.rows if row.method == "bitune"), None)
    named = {bitune: 1, evidence.reference: 2}
    views, others = {}, 0
    for row in evidence.rows:
        colour = 0 if row.method == "base" else named.get(row.name)
        if colour is None:
            colour, others = 3 + others % (COLOURS - 3), others + 1
        views[row.name] = view_of(row, colour)
    return views


def training(row: Row) -> str:
    """How it was trained, in a few words."""
    parts = [
        None if row.rank is None else f"rank {row.rank}",
        None if row.learning_rate is None else f"rate {row.learning_rate:g}",
        None if row.minutes is None else f"{row.minutes:,.3g} min",
    ]
    return " · ".join(part for part in parts if part) or "not trained"


def accuracy(share: Share) -> str:
    """A share with its interval, and its spread where there are several seeds."""
    spread = "" if share.spread is None else f"<br>± {percent(share.spread)}"
    return f"<b>{percent(share.mean)}</b><small>{percent(share.low)}–{percent(share.high)}{spread}</small>"


def minus(evidence: Evidence, row: Row, view: VariantView, axis: Axis) -> str:
    """The difference to the reference, drawn and in numbers."""
    if row.name == evidence.reference:
        return '<span class="bt-zero">reference</span>'
    if row.minus is None:
        return '<span class="bt-zero">–</span>'
    share = row.minus[AVERAGE]
    words = f"{signed(share.low)} to {signed(share.high)}"
    other = "" if row.against == evidence.reference else f"<br>minus {escape(row.against)}"
    clear = evidence.is_clear(row)
    verdict = f" <em>{'above' if share.low > 0 else 'below'} zero</em>" if clear else ""
    drawn = whisker(share, view, axis, f"{signed(share.mean)} points, {words}", clear)
    return f"{drawn}<b>{signed(share.mean)}</b>{verdict}<small>{words}{other}</small>"


def whisker(share: Share, view: VariantView, axis: Axis, words: str, clear: bool) -> str:
    """An interval with caps and a dot, filled where it is clear of zero. What lies outside the axis ends in an arrow."""
    middle = HEIGHT / 2
    left, right, zero = axis.place(share.low), axis.place(share.high), axis.place(0)
    line = f'<path class="bt-zero-line" d="M{zero:.1f} 0V{HEIGHT}"/><path class="bt-range" d="M{left:.1f} {middle:g}H{right:.1f}'
    for end, place in ((share.low, left), (share.high, right)):
        line += f"M{place:.1f} {middle - 4:g}v8" if axis.holds(end) else ""
    line += '"/>'
    if axis.holds(share.mean):
        line += f'<circle class="bt-dot" cx="{axis.place(share.mean):.1f}" cy="{middle:g}" r="4.5"/>'
    else:
        way = -1 if share.mean < axis.low else 1
        tip = axis.place(share.mean) + way * (EDGE - 1)
        line += f'<path class="bt-dot" d="M{tip:.1f} {middle:g}l{-way * 8} -5v10z"/>'
    colour = CAUSAL if set(view.passes) == {CAUSAL} else "bidirectional"
    css = f"bt-whisker bt-of-{colour}{' bt-clear' if clear else ''}"
    return picture(line, WIDTH, HEIGHT, escape(words), css)


MINUS = "\u2212"  # as wide as a plus


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """A difference in points, its sign before it."""
    return f"{100 * share:+.1f}".replace("-", MINUS)
