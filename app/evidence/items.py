"""The items of a setting as two variants answered them: chosen, filtered, counted, in pages. Pure; knows no page and no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from app.evidence.data import Evidence, Row, Task

ALL = "all"
# First right, second right -> name.
FILTERS = {(True, False): "first", (False, True): "second", (False, False): "neither", (True, True): "both"}
PAGE = 10  # questions: two beside each other, about two screens


@dataclass(frozen=True)
class ItemText:
    """`prompt` is the very text that was measured, `question` what it asks, `choices` None for open answers."""

    prompt: str
    question: str
    choices: tuple[str, ...] | None


@dataclass(frozen=True)
class Item:
    """One item: its index in its task, and whether either row was right in more than half of its seeds."""

    task: Task
    index: int
    first_right: bool
    second_right: bool

    @property
    def id(self) -> str:
        return self.task.items[self.index].id

    @property
    def right(self) -> int:
        return self.task.items[self.index].right

    @property
    def topic(self) -> str | None:
        return self.task.items[self.index].topic

    @property
    def kind(self) -> str:
        """The filter that it passes, besides `all`."""
        return FILTERS[self.first_right, self.second_right]


def items_of(evidence: Evidence, first: Row, second: Row, task: str = ALL, topic: str = ALL) -> list[Item]:
    """The items of a task and a topic, or of all of them, in the order of the file."""
    right = evidence.rightness
    items = [
        Item(one, index, *pair)
        for one in evidence.tasks
        if task in (ALL, one.name)
        for index, pair in enumerate(zip(right[first.name][one.name], right[second.name][one.name], strict=True))
    ]
    return [item for item in items if topic in (ALL, item.topic)]


def counts(items: Sequence[Item]) -> dict[str, int]:
    """How many items each filter lets through."""
    kinds = [item.kind for item in items]
    return {**{kind: kinds.count(kind) for kind in FILTERS.values()}, ALL: len(items)}


def kept(items: Sequence[Item], wanted: str) -> list[Item]:
    """The items that a filter lets through."""
    return [item for item in items if wanted in (ALL, item.kind)]


def page_of(items: Sequence[Item], page: int) -> tuple[list[Item], int, int]:
    """The items of a page, its number moved to the nearest there is, and how many pages there are; pages count from 0."""
    pages = max(1, ceil(len(items) / PAGE))
    page = min(max(page, 0), pages - 1)
    return list(items[page * PAGE : (page + 1) * PAGE]), page, pages
