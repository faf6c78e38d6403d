"""The items of the study as HTML: question, choices, and who chose what. Pure; colours come from evidence.css."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.evidence.data import OPEN_ANSWER, Row
from app.evidence.items import Item, ItemText
from app.ui.templates import render
from app.ui.variants import VariantView


@dataclass(frozen=True)
class Answer:
    """One answer to an item. `given_by`: variant, how many of its seeds gave this answer, and how many it has."""

    words: str
    is_right: bool
    given_by: Sequence[tuple[VariantView, int, int]]


def listed(
    items: Sequence[Item], rows: Sequence[Row], views: Mapping[str, VariantView], texts: Mapping[str, ItemText], number: int
) -> str:
    """The items of a page; `number` is that of the first. `rows`: whose answers are shown."""
    articles = [(item, texts.get(item.id), answers(item, rows, views, texts.get(item.id))) for item in items]
    return render("evidence/listing.html", articles=articles, number=number)


def answers(item: Item, rows: Sequence[Row], views: Mapping[str, VariantView], text: ItemText | None) -> list[Answer]:
    """All choices where their texts are known, else the right one and those that were picked; each with those who picked it."""
    picks = {row.name: row.picks(item.task.name, item.index) for row in rows}
    values = {item.right, *(value for picked in picks.values() for value in picked)}
    if text and text.choices:
        values |= set(range(len(text.choices)))
    return [
        Answer(
            words(value, item, text),
            value == item.right,
            [(views[name], picked[value], sum(picked.values())) for name, picked in picks.items() if value in picked],
        )
        for value in sorted(values)
    ]


def words(value: int, item: Item, text: ItemText | None) -> str:
    """A choice, or whether an open answer was the right one."""
    if item.task.measure == OPEN_ANSWER:
        return "the right answer" if value == item.right else "another answer"
    if text and text.choices and 0 <= value < len(text.choices):
        return text.choices[value]
    return f"Choice {value + 1}"
