"""The study's results as recorded in assets/evidence, and who was right on which item. Knows no model and no page.

A file holds predictions and numbers, and items by id: the texts of most questions belong to other people's data sets. Those that were
written for this project lie in assets/questions, and their file has the log-probability of every choice too.
"""

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from app.ui.paths import ASSETS
from app.ui.validation import first_problem
from bitune.errors import DataError
from bitune.files import read_bytes

FOLDER = ASSETS / "evidence"
QUESTIONS = ASSETS / "questions" / "own.jsonl"
AVERAGE = "average"
OPEN_ANSWER = "answer"  # the measure of tasks without choices
REMEDY = "Make it again with python -m study table."
MAX_BYTES = 64 * 1024**2  # the largest of ours, with 60,000 predictions, has less than one
STRICT = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


@dataclass(frozen=True, config=STRICT)
class Share:
    """A share, or a difference of two: its mean and 95 % interval; `spread`, the standard deviation over seeds, where known."""

    mean: float
    low: float
    high: float
    spread: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, config=STRICT)
class TaskItem:
    """A question by its id, and the prediction that is right: the index of a choice, or 1 for an open answer that is right. `topic`:
    what it is about, where that is known."""

    id: str
    right: int
    topic: str | None = None


@dataclass(frozen=True, config=STRICT)
class Task:
    """A set of items. `measure`: by what a choice is picked, or OPEN_ANSWER; `chance`: the share that guessing gets, where known."""

    name: str
    title: str
    measure: str
    chance: float | None
    items: tuple[TaskItem, ...]


@dataclass(frozen=True, config=STRICT)
class Row:
    """One variant, all its seeds. `predictions`: by task one list a seed; the base has one list and no seed. `minus`: the
    difference to the row `against`, None where there is none, as for the reference. `logprobs`: as the predictions, of every choice the
    sum of its tokens' log-probabilities (natural logarithm), where they were kept."""

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
    predictions: Mapping[str, tuple[tuple[int, ...], ...]] = field(repr=False)
    logprobs: Mapping[str, tuple[tuple[tuple[float, ...], ...], ...]] | None = field(default=None, repr=False)

    def picks(self, task: str, index: int) -> dict[int, int]:
        """What was predicted for an item, and by how many seeds."""
        predicted = [seed[index] for seed in self.predictions[task]]
        return {value: predicted.count(value) for value in dict.fromkeys(predicted)}

    def rightness(self, task: Task) -> tuple[bool, ...]:
        """For every item of a task whether this row was right on it in more than half of its seeds."""
        by_item = zip(task.items, zip(*self.predictions[task.name], strict=True), strict=True)
        return tuple(2 * predicted.count(item.right) > len(predicted) for item, predicted in by_item)


@dataclass(frozen=True, config=STRICT)
class Made:
    """With what the answers to our own questions were computed: `questions` is the SHA-256 of their file, `base` that of the base's
    weights where they are one file, `checkpoints` fingerprints of weights, `libraries` name -> version."""

    recorded: AwareDatetime
    questions: str
    base: str | None
    checkpoints: Mapping[str, str]
    device: str
    dtype: str
    libraries: Mapping[str, str]


@dataclass(frozen=True, config=STRICT)
class Evidence:
    """One setting of the study: what was trained and tested, and what came of it. `made`: of our own questions alone."""

    setting: str
    title: str
    text: str
    base: str
    reference: str
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]
    made: Made | None = None

    @model_validator(mode="after")
    def rows_fit_tasks(self) -> Self:
        """Every row has its shares and, for every seed, a prediction for each item."""
        if not self.rows or not self.tasks or not all(task.items for task in self.tasks):
            raise ValueError("it has no task, no row, or a task without items")
        columns = {*(task.name for task in self.tasks), AVERAGE}
        for row in self.rows:
            if not columns <= row.accuracy.keys() or not (row.minus is None or columns <= row.minus.keys()):
                raise ValueError(f"row {row.name!r} does not have a share for each task and for the average")
            for task in self.tasks:
                seeds = row.predictions.get(task.name)
                if not seeds or not all(len(seed) == len(task.items) for seed in seeds):
                    raise ValueError(f"row {row.name!r} does not have one prediction for each item of {task.name!r}")
                scored = seeds if row.logprobs is None else row.logprobs.get(task.name, ())
                if [len(seed) for seed in scored] != [len(seed) for seed in seeds]:
                    raise ValueError(f"row {row.name!r} does not have the log-probabilities of each item of {task.name!r}")
        return self

    @property
    def topics(self) -> list[str]:
        """What its questions are about, in the order in which that first comes."""
        return list(dict.fromkeys(item.topic for task in self.tasks for item in task.items if item.topic is not None))

    def row(self, name: str | None) -> Row | None:
        """The row of this name."""
        return next((row for row in self.rows if row.name == name), None)

    def is_clear(self, row: Row) -> bool:
        """Whether the average differs from that of the row it is held against by more than luck. Where either has one seed alone,
        that cannot be said: the interval knows nothing of other trainings."""
        alone = any(side is not None and len(side.seeds) == 1 for side in (row, self.row(row.against)))
        return row.minus is not None and row.minus[AVERAGE].excludes_zero and not alone

    @cached_property
    def rightness(self) -> dict[str, dict[str, tuple[bool, ...]]]:
        """[row][task][item]: right in more than half of the seeds."""
        return {row.name: {task.name: row.rightness(task) for task in self.tasks} for row in self.rows}

    def as_json(self) -> dict[str, object]:
        """For programs: the table as plain values; items and predictions are in the file."""
        left_out = {"setting": True, "tasks": {"__all__": {"items"}}, "rows": {"__all__": {"predictions", "logprobs"}}}
        plain = FILE.dump_python(self, mode="json", exclude=left_out)
        for task, values in zip(self.tasks, plain["tasks"], strict=True):
            values["items"] = len(task.items)
        return plain


FILE = TypeAdapter(Evidence)


def load_all(folder: Path = FOLDER) -> tuple[dict[str, Evidence], list[str]]:
    """Every setting recorded in `folder`, by name, and a sentence for each file that cannot be read."""
    settings, problems = {}, []
    for path in sorted(folder.glob("*.json"), key=in_order):
        try:
            evidence = read(path)
            settings[evidence.setting] = evidence
        except DataError as error:
            problems.append(str(error))
    return settings, problems


def in_order(path: Path) -> tuple[int, str]:
    """The paper's main setting first."""
    known = ("instruction", "choices", "epoch", "arithmetic", "own")
    return (known.index(path.stem) if path.stem in known else len(known), path.stem)


def read(path: Path) -> Evidence:
    """The file of one setting.

    Raises:
        DataError: It is not what `study table` writes; one sentence that names the file.
    """
    try:
        return FILE.validate_json(read_bytes(path, MAX_BYTES, DataError))
    except DataError as error:
        raise DataError(str(error).replace(str(path), path.name)) from error  # a page shows no path of its machine
    except ValidationError as error:
        raise DataError(f"{path.name} is not a file of the study: {first_problem(error)}. {REMEDY}") from error
