"""The study's results as recorded in assets/evidence, and who was right on which item. Knows no model and no page.

A file holds predictions and numbers, and items by id: the texts of the questions belong to other people's data sets.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from app.ui.paths import ASSETS
from bitune.errors import DataError

FOLDER = ASSETS / "evidence"
AVERAGE = "average"
REMEDY = "Make it again with python -m study table."


@dataclass(frozen=True)
class Share:
    """A share, or a difference of two: its mean and 95 % interval; `spread`, the standard deviation over seeds, where known."""

    mean: float
    low: float
    high: float
    spread: float | None = None

    def __post_init__(self):
        numbers = [self.mean, self.low, self.high, *([] if self.spread is None else [self.spread])]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise DataError(f"a share is {numbers!r}, which are not numbers")

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Task:
    """A set of items. `right`: for each the index of the right choice; where `measure` is `answer` the texts are other people's, and
    a prediction is 1 if it was right, else 0."""

    name: str
    title: str
    measure: str
    chance: float | None
    ids: tuple[str, ...]
    right: tuple[int, ...]

    def is_right(self, place: int, predicted: int) -> bool:
        """Whether a prediction for the item at this place is right."""
        return predicted == self.right[place]


@dataclass(frozen=True)
class Row:
    """One variant, all its seeds. `predictions`: by task one list a seed; the base has one list and no seed. `minus`: the
    difference to the row `against`, None where there is none, as for the reference."""

    name: str
    method: str
    peft: str | None
    rank: int | None
    parameters: int
    seeds: tuple[int, ...]
    learning_rate: float | None
    steps: int | None
    minutes: float | None
    accuracy: Mapping[str, Share]
    against: str | None
    minus: Mapping[str, Share] | None
    predictions: Mapping[str, Sequence[Sequence[int]]] = field(repr=False)

    def picks(self, task: str, place: int) -> dict[int, int]:
        """What was predicted for an item, and by how many seeds."""
        found: dict[int, int] = {}
        for seed in self.predictions[task]:
            found[seed[place]] = found.get(seed[place], 0) + 1
        return found


@dataclass(frozen=True)
class Evidence:
    """One setting of the study: what was trained and tested, and what came of it."""

    setting: str
    title: str
    text: str
    base: str
    reference: str
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row | None:
        """The row of this name."""
        return next((row for row in self.rows if row.name == name), None)

    def is_clear(self, row: Row) -> bool:
        """Whether the average differs from that of the row it is held against by more than luck. Where either has one seed alone,
        that cannot be said: the interval knows nothing of other trainings."""
        sides = (row, self.row(row.against or ""))
        alone = any(side is not None and len(side.seeds) == 1 for side in sides)
        return row.minus is not None and row.minus[AVERAGE].excludes_zero and not alone

    @cached_property
    def rightness(self) -> dict[str, dict[str, tuple[bool, ...]]]:
        """[row][task][item]: right in more than half of the seeds."""
        return {row.name: {task.name: rightness(task, row) for task in self.tasks} for row in self.rows}


def rightness(task: Task, row: Row) -> tuple[bool, ...]:
    """For every item of a task whether the row was right on it in more than half of its seeds."""
    seeds = row.predictions[task.name]
    return tuple(2 * sum(task.is_right(place, seed[place]) for seed in seeds) > len(seeds) for place in range(len(task.ids)))


def load_all(folder: Path = FOLDER) -> tuple[dict[str, Evidence], list[str]]:
    """Every setting recorded in `folder`, by name, and a sentence for each file that cannot be read."""
    found, problems = {}, []
    for path in sorted(folder.glob("*.json"), key=in_order):
        try:
            evidence = read(path)
            found[evidence.setting] = evidence
        except DataError as error:
            problems.append(str(error))
    return found, problems


def in_order(path: Path) -> tuple[int, str]:
    """The paper's main setting first."""
    known = ("instruction", "choices", "epoch", "arithmetic")
    return (known.index(path.stem) if path.stem in known else len(known), path.stem)


def read(path: Path) -> Evidence:
    """The file of one setting. DataError, in one sentence that names the file, where it is not what `study table` writes."""
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, DataError) as error:
        raise DataError(f"{path.name} is not a file of the study: {cause(error)}. {REMEDY}") from error


def cause(error: Exception) -> str:
    """Why a file is refused, as part of a sentence."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return "it is not JSON" if isinstance(error, ValueError | RecursionError) else "a part of it has another shape"


def from_dict(found: dict) -> Evidence:
    """The value of a file, checked: every number is one, and every list of predictions has its item."""
    tasks = tuple(task_of(task) for task in given(found, "tasks", list))
    if not tasks or not given(found, "rows", list):
        raise DataError("it has no task or no row")
    fields = {name: given(found, name) for name in ("setting", "title", "text", "base", "reference")}
    return Evidence(**fields, tasks=tasks, rows=tuple(row_of(row, tasks) for row in found["rows"]))


def task_of(found: dict) -> Task:
    """A task of a file, checked."""
    measure, items = given(found, "measure"), given(found, "items", list)
    if not items or not all(type(item["right"]) is int for item in items):
        raise DataError(f"task {found['name']!r} has no items, or a right answer that is no index")
    chance = optional(found, "chance", (int, float))
    ids = tuple(given(item, "id") for item in items)
    return Task(given(found, "name"), given(found, "title"), measure, chance, ids, tuple(item["right"] for item in items))


def row_of(found: dict, tasks: Sequence[Task]) -> Row:
    """A row of a file, checked against the tasks."""
    columns = [*(task.name for task in tasks), AVERAGE]

    def shares(values: dict) -> dict[str, Share]:
        return {
            name: Share(*(values[name][key] for key in ("mean", "low", "high")), values[name].get("spread")) for name in columns
        }

    for task in tasks:
        check_predictions(task, found["predictions"][task.name], found["name"])
    return Row(
        name=given(found, "name"),
        method=given(found, "method"),
        peft=optional(found, "peft", str),
        rank=optional(found, "rank", int),
        parameters=given(found, "parameters", int),
        seeds=tuple(whole(seed) for seed in given(found, "seeds", list)),
        learning_rate=optional(found, "learning_rate", (int, float)),
        steps=optional(found, "steps", int),
        minutes=optional(found, "minutes", (int, float)),
        accuracy=shares(found["accuracy"]),
        against=optional(found, "against", str),
        minus=None if found["minus"] is None else shares(found["minus"]),
        predictions=found["predictions"],
    )


def check_predictions(task: Task, seeds: Sequence[Sequence[int]], row: object) -> None:
    """DataError unless there is a prediction of the right kind for every item and seed."""
    if not seeds or not all(len(seed) == len(task.ids) and all(type(one) is int for one in seed) for seed in seeds):
        raise DataError(f"row {row!r} does not have one prediction for each item of {task.name!r}")


def given(found: dict, name: str, kind: type | tuple[type, ...] = str):
    """A field that must be of this kind, by default text; DataError where it is not."""
    if isinstance(found[name], bool) or not isinstance(found[name], kind):
        raise DataError(f"{name} is {type(found[name]).__name__}")
    return found[name]


def optional(found: dict, name: str, kind: type | tuple[type, ...]):
    """Likewise, or None."""
    return None if found[name] is None else given(found, name, kind)


def whole(value: object) -> int:
    """DataError unless it is a whole number."""
    return given({"seeds": value}, "seeds", int)


def as_json(evidence: Evidence) -> dict[str, object]:
    """For programs: the table as plain values; items and predictions are in the file."""

    def shares(found: Mapping[str, Share] | None) -> dict | None:
        return None if found is None else {name: vars(share) for name, share in found.items()}

    return {
        "title": evidence.title,
        "text": evidence.text,
        "base": evidence.base,
        "reference": evidence.reference,
        "tasks": [
            {"name": task.name, "title": task.title, "measure": task.measure, "chance": task.chance, "items": len(task.ids)}
            for task in evidence.tasks
        ],
        "rows": [rows_as_json(row, shares) for row in evidence.rows],
    }


def rows_as_json(row: Row, shares: Callable) -> dict[str, object]:
    """A row without its predictions."""
    plain = {name: value for name, value in vars(row).items() if name != "predictions"}
    return {**plain, "seeds": list(row.seeds), "accuracy": shares(row.accuracy), "minus": shares(row.minus)}
