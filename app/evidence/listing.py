"""The items of the study as HTML: question, choices, and who chose what. Pure; colours come from evidence.css."""

from collections.abc import Mapping, Sequence
from html import escape

from app.evidence.data import Row
from app.evidence.items import Item, ItemText
from app.ui.render import empty, faithful
from app.ui.variants import VariantView

NOTHING = "No question is like this."


def listed(
    items: Sequence[Item], rows: Sequence[Row], views: Mapping[str, VariantView], texts: Mapping[str, ItemText], number: int
) -> str:
    """The items of a page; `number` is that of the first. `rows`: whose answers are shown."""
    found = "".join(article(item, rows, views, texts.get(item.id), number + place) for place, item in enumerate(items))
    return f'<div class="bt-items">{found}</div>' if found else empty(NOTHING)


def article(item: Item, rows: Sequence[Row], views: Mapping[str, VariantView], text: ItemText | None, number: int) -> str:
    """One item; where its text is known, with the buttons that send it to the other tabs."""
    question = "" if text is None else f'<div class="bt-question" dir="auto">{faithful(text.question)}</div>'
    buttons = "" if text is None else "".join(
        f'<button type="button" data-to="{tab.lower()}" data-item="{escape(item.id)}">To {tab}</button>' for tab in ("Compare", "Attention")
    )  # fmt: skip
    return (
        f'<article class="bt-item"><header><b>{number:,}</b><span>{escape(item.task.title)}</span><code>{escape(item.id)}</code>'
        f'<span class="bt-send">{buttons}</span></header>{question}<ul>{answers(item, rows, views, text)}</ul></article>'
    )


def answers(item: Item, rows: Sequence[Row], views: Mapping[str, VariantView], text: ItemText | None) -> str:
    """A line for every choice, or for every answer that was given; the right one is marked, and behind each stand those who gave it."""
    picks = {row.name: row.picks(item.task.name, item.place) for row in rows}
    lines = []
    for value in values_of(item, picks, text):
        given = [name for name in picks if value in picks[name]]
        who = "".join(chosen(views[name], picks[name][value], sum(picks[name].values())) for name in given)
        is_right = item.task.is_right(item.place, value)
        mark = '<span class="bt-yes"><i aria-hidden="true">✓</i> right</span>' if is_right else ""
        css = "bt-is-right" if is_right else "bt-is-wrong"
        lines.append(f'<li class="{css}"><span class="bt-choice" dir="auto">{words(value, item, text)}</span>{mark}{who}</li>')
    return "".join(lines)


def values_of(item: Item, picks: Mapping[str, Mapping[int, int]], text: ItemText | None) -> list[int]:
    """What there is to list: all choices where their texts are known, else the right one and those that were picked."""
    named = {item.right, *(value for found in picks.values() for value in found)}
    return sorted(named | set(range(len(text.choices)))) if text and text.choices else sorted(named)


def words(value: int, item: Item, text: ItemText | None) -> str:
    """A choice as HTML, or whether an open answer was the right one."""
    if item.task.measure == "answer":
        return "the right answer" if value == item.right else "another answer"
    if text and text.choices and 0 <= value < len(text.choices):
        return faithful(text.choices[value])
    return f"Choice {value + 1}"


def chosen(view: VariantView, seeds: int, of: int) -> str:
    """Who gave this answer, and in how many of its seeds."""
    share = f" <small>{seeds}/{of}</small>" if of > 1 else ""
    return f'<span class="bt-chip bt-v{view.colour}"><i></i>{escape(view.name)}{share}</span>'
