"""How often two variants were right and how often they chose the same, on the questions that are chosen. Pure; knows no page and no file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.evidence.data import OPEN_ANSWER, Row
from app.evidence.items import Item
from app.evidence.table import percent, signed
from app.ui.templates import render
from bitune.evaluation.intervals import Interval, paired_shares, wilson


@dataclass(frozen=True)
class Counted:
    """Shares with 95 % intervals over these questions alone. `ahead`: the first one's share minus the second one's, paired by question.
    `same`: how often both chose the same, a pair of seeds at a time; None where an answer is open."""

    questions: int
    first: Interval
    second: Interval
    ahead: Interval
    same: Interval | None


def counted(items: Sequence[Item], first: Row, second: Row) -> Counted:
    """The figures of some questions, at least one; of several seeds most have to be right, as in the filters."""
    sides = Counter((item.first_right, item.second_right) for item in items)
    both, only_first, only_second, neither = (
        sides[pair] for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    open_ended = any(item.task.measure == OPEN_ANSWER for item in items)
    return Counted(
        questions=len(items),
        first=wilson(both + only_first, len(items)),
        second=wilson(both + only_second, len(items)),
        ahead=paired_shares(both, only_second, only_first, neither),
        same=None if open_ended else wilson(sum(share_alike(item, first, second) for item in items), len(items)),
    )


def share_alike(item: Item, first: Row, second: Row) -> float:
    """In what share of the pairs of a seed of one and a seed of the other both chose the same."""
    one, other = first.picks(item.task.name, item.index), second.picks(item.task.name, item.index)
    alike = sum(seeds * other.get(choice, 0) for choice, seeds in one.items())
    return alike / (sum(one.values()) * sum(other.values()))


def figures_of(items: Sequence[Item], first: Row, second: Row) -> str:
    """The figures as HTML; nothing for no question."""
    if not items:
        return ""
    values = {"of": counted(items, first, second), "first": first, "second": second}
    return render("evidence/counted.html", **values, percent=percent, signed=signed)
