"""The study's table as HTML, with the numbers of everything that was measured. Pure; colours come from evidence.css."""

from app.evidence.data import AVERAGE, Evidence, Row
from app.ui.templates import render
from app.ui.variants import ABOUT, COLOURS, VariantView, colour_of
from bitune.schema.variants import BASE, METHODS

MINUS = "\u2212"  # as wide as a plus


def table(evidence: Evidence) -> str:
    """A row a variant; wide tables scroll by themselves."""
    columns = [*([AVERAGE] if len(evidence.tasks) > 1 else []), *(task.name for task in evidence.tasks)]
    values = {"evidence": evidence, "views": views_of(evidence), "columns": columns, "average": AVERAGE}
    return render("evidence/table.html", **values, percent=percent, signed=signed, training=training)


def view_of(row: Row, colour: int) -> VariantView:
    """How a row is called and coloured."""
    passes = tuple(p.attention for p in METHODS.get(row.method, BASE).passes)
    about = ABOUT.get(row.method, "reads once" if len(passes) == 1 else "reads twice")
    if row.method == "lora" and row.peft != "lora":  # not an adapter of LoRA's kind, or none at all
        about = "reads once, trained"
    return VariantView(row.name, about, passes, colour)


def views_of(evidence: Evidence) -> dict[str, VariantView]:
    """Grey for the base, then the first two colours for Bitune and what it is held against; the others share the rest. The checkpoints
    that answered our own questions are those of the page, and have the colours that they have there."""
    if evidence.made is not None:
        return {row.name: view_of(row, colour_of(place)) for place, row in enumerate(evidence.rows)}
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


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """A difference in points, its sign before it."""
    return f"{100 * share:+.1f}".replace("-", MINUS)
