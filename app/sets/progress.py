"""A set as far as it is answered, as plain values; which of its rows are shown. Knows no page and no engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from app.ui.variants import VariantView
from bitune.data.prompt_sets import SetPrompt
from bitune.errors import UnknownNameError
from bitune.sets.rows import Row, SetSettings, in_order

ALL = "all"
PAGE = 20  # rows
NEWEST = 8  # rows that are shown while more come


@dataclass(frozen=True)
class Progress:
    """What is asked and what is answered so far.

    `facts`: what makes the answers, as the head of a file of rows has it. `views`: of the variants that answer, the first of which the
    others are held against. `seconds`: that the batches so far took.
    """

    prompts: tuple[SetPrompt, ...]
    settings: SetSettings
    views: Mapping[str, VariantView]
    what_ifs: Mapping[str, Mapping]
    facts: Mapping[str, object]
    rows: tuple[Row, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def total(self) -> int:
        """Rows that there will be."""
        return len(self.prompts) * self.settings.samples

    @property
    def seconds_left(self) -> float | None:
        """That the other rows will take if they take as long; None before the first."""
        return (self.total - len(self.rows)) * self.seconds / len(self.rows) if self.rows else None


def _rights(row: Row) -> set[bool | None]:
    return {answer.is_right for answer in row.answers.values()}


# Which rows a choice lets through, by its name; those of the second table where somebody says what is right.
FILTERS: dict[str, tuple[str, Callable[[Row], bool]]] = {
    ALL: ("all", lambda row: True),
    "differ": ("not all the same text", lambda row: not row.is_same),
    "same": ("all the same text", lambda row: row.is_same),
    "cut": ("an answer cut at the limit", lambda row: any(one.finish_reason == "length" for one in row.answers.values())),
}
OF_JUDGED: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "split": ("some right, some wrong", lambda row: _rights(row) == {True, False}),
    "right": ("all right", lambda row: _rights(row) == {True}),
    "wrong": ("all wrong", lambda row: _rights(row) == {False}),
}


def filters_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(label with its count, name) of each choice among these rows."""
    judged = any(row.right is not None for row in rows)
    chosen = {**FILTERS, **(OF_JUDGED if judged else {})}
    return [(f"{label} ({sum(map(test, rows)):,})", name) for name, (label, test) in chosen.items()]


def page_of(rows: Sequence[Row], wanted: str, page: int) -> tuple[list[Row], list[Row], int, int]:
    """The rows that a choice lets through, in the order of the set, and those of one page.

    Args:
        rows: all that there are.
        wanted: a name of FILTERS or OF_JUDGED; UnknownNameError for another.
        page: from 0; the nearest that there is.

    Returns:
        Rows let through, rows of the page, the number of the page, how many pages there are.
    """
    known = {**FILTERS, **OF_JUDGED}
    if wanted not in known:
        raise UnknownNameError("choice of rows", str(wanted), known)
    _, test = known[wanted]
    passed = [row for row in in_order(rows) if test(row)]
    pages = max(1, ceil(len(passed) / PAGE))
    page = min(max(page, 0), pages - 1)
    return passed, passed[page * PAGE : (page + 1) * PAGE], page, pages
