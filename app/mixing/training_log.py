"""A checkpoint's training log: the ratios of every layer at each step, and the loss. Pure.

A log comes with somebody's checkpoint and holds what it likes; what cannot be drawn is refused here, in words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from app.ui.validation import first_problem
from bitune.errors import DataError


def number_or_none(value: object) -> float | int | None:
    """A number that can be drawn. A loss that went to infinity is a gap, not damage."""
    return value if type(value) in (int, float) and -1e300 < value < 1e300 else None


Ratio = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float | int | None, BeforeValidator(number_or_none)]


class LogEntry(BaseModel):
    """One line of training_log.jsonl; what else a line holds is left alone. `alpha_k`, `alpha_v`: one ratio a layer."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    step: int = Field(ge=0, lt=2**53)
    loss: Loss = None
    eval_loss: Loss = None
    learning_rate: Loss = None
    alpha_k: list[Ratio] | None = None
    alpha_v: list[Ratio] | None = None

    @model_validator(mode="after")
    def keys_come_with_values(self) -> Self:
        if (self.alpha_k is None) != (self.alpha_v is None):
            raise ValueError("of alpha_k and alpha_v there is only one")
        return self


@dataclass(frozen=True)
class TrainingLog:
    """The entries of a log in the order of the file."""

    entries: tuple[LogEntry, ...]

    @property
    def mixed(self) -> list[LogEntry]:
        """The last entry of each step that has ratios, by step."""
        return list({entry.step: entry for entry in self.by_step if entry.alpha_k is not None}.values())

    @property
    def by_step(self) -> list[LogEntry]:
        return sorted(self.entries, key=lambda entry: entry.step)

    @property
    def loss(self) -> list[tuple[int, float]]:
        """(step, loss) on what was trained on, where it is known."""
        return [(entry.step, entry.loss) for entry in self.by_step if entry.loss is not None]

    @property
    def eval_loss(self) -> list[tuple[int, float]]:
        """(step, loss) on held-out examples."""
        return [(entry.step, entry.eval_loss) for entry in self.by_step if entry.eval_loss is not None]

    def as_json(self) -> dict[str, list]:
        """One list a field that any entry has, None where an entry lacks it: what an API returns."""
        written = set().union(*(entry.model_fields_set for entry in self.entries))
        return {
            field: [getattr(entry, field) for entry in self.entries]
            for field in LogEntry.model_fields
            if field == "step" or field in written
        }


def read_log(lines: Iterable[object], layers: int) -> TrainingLog:
    """A log whose ratios are of `layers` layers.

    Args:
        lines: What stands in the file, a value a line.
        layers: Of the checkpoint's base.

    Raises:
        DataError: Says in part of a sentence what is wrong.
    """
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(entry := LogEntry.model_validate(line))
        except ValidationError as error:
            raise DataError(f"line {number}: {first_problem(error)}") from error
        if entry.alpha_k is not None and not len(entry.alpha_k) == len(entry.alpha_v) == layers:
            raise DataError(f"alpha_k and alpha_v at step {entry.step} are not one ratio for each of {layers} layers")
    return TrainingLog(tuple(entries))
