"""The items of the study as HTML: question, choices, and who chose what. Pure; colours come from evidence.css."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

from app.evidence.data import OPEN_ANSWER, Row
from app.evidence.items import Item, ItemText
from app.ui.templates import render
from app.ui.variants import VariantView


@dataclass(frozen=True)
class Giver:
    """A variant that gave an answer: how many of its seeds did, and how many it has. `share`: of the probability of all choices together
    what this one has, in a variant of one seed whose log-probabilities were kept."""

    view: VariantView
    seeds: int
    all_seeds: int
    share: float | None


@dataclass(frozen=True)
class Answer:
    """One answer to an item, and who gave it. `logprobs`: by variant, where they were kept."""

    words: str
    is_right: bool
    given_by: Sequence[Giver]
    logprobs: Sequence[float]


def listed(
    items: Sequence[Item], rows: Sequence[Row], views: Mapping[str, VariantView], texts: Mapping[str, ItemText], number: int
) -> str:
    """The items of a page, all of a known text; `number` is that of the first. `rows`: whose answers are shown."""
    articles = [(item, texts[item.id], answers(item, rows, views, texts[item.id])) for item in items]
    return render("evidence/listing.html", articles=articles, number=number, views=[views[row.name] for row in rows])


def answers(item: Item, rows: Sequence[Row], views: Mapping[str, VariantView], text: ItemText) -> list[Answer]:
    """All choices of an item, or how an open answer came out; each with those who picked it."""
    picks = {row.name: row.picks(item.task.name, item.index) for row in rows}
    values = {item.right, *(value for picked in picks.values() for value in picked), *range(len(text.choices or ()))}
    logprobs = {row.name: logprobs_of(row, item) for row in rows}
    return [
        Answer(
            words(value, item, text),
            value == item.right,
            [
                Giver(views[name], picked[value], sum(picked.values()), share(logprobs[name], value))
                for name, picked in picks.items()
                if value in picked
            ],
            [known[value] for known in logprobs.values() if value < len(known)],
        )
        for value in sorted(values)
    ]


def logprobs_of(row: Row, item: Item) -> Sequence[float]:
    """The log-probability of each choice of an item, of a row of one seed; empty where it was not kept."""
    seeds = (row.logprobs or {}).get(item.task.name, ())
    return seeds[0][item.index] if len(seeds) == 1 else ()


def share(logprobs: Sequence[float], value: int) -> float | None:
    """What one choice has of the probability of all choices together."""
    if value >= len(logprobs):
        return None
    best = max(logprobs)
    return exp(logprobs[value] - best) / sum(exp(other - best) for other in logprobs)


def words(value: int, item: Item, text: ItemText) -> str:
    """A choice, or whether an open answer was the right one."""
    if item.task.measure == OPEN_ANSWER:
        return "the right answer" if value == item.right else "another answer"
    if text.choices and 0 <= value < len(text.choices):
        return text.choices[value]
    return f"Choice {value + 1}"
