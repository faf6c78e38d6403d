"""A checkpoint's training log as columns to draw: the ratios of every layer at each step, and the loss. Pure.

A log comes with somebody's checkpoint and holds what it likes; what does not fit is refused here, in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitune.errors import DataError

MAX_COLUMNS = 160  # more than a screen shows apart


@dataclass(frozen=True)
class TrainingSeries:
    """`steps`: at which the ratios are known; `keys`, `values`: [steps][layers]; `loss`, `eval_loss`: (step, loss) each."""

    steps: tuple[int, ...]
    keys: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    loss: tuple[tuple[int, float], ...]
    eval_loss: tuple[tuple[int, float], ...]

    @property
    def last(self) -> int:
        """Where the step axis ends."""
        return max((*self.steps, *(step for step, _ in (*self.loss, *self.eval_loss))), default=0)


def series(log: object, layers: int) -> TrainingSeries:
    """The columns of a log with ratios of `layers` layers; DataError where an entry is not of this kind."""
    if not isinstance(log, Sequence) or not all(isinstance(entry, Mapping) for entry in log):
        raise DataError("its lines are not objects")
    entries = sorted(log, key=step_of)
    ratios = {entry["step"]: entry for entry in entries if "alpha_k" in entry or "alpha_v" in entry}
    return TrainingSeries(
        tuple(ratios),
        tuple(alphas(entry, "alpha_k", layers) for entry in ratios.values()),
        tuple(alphas(entry, "alpha_v", layers) for entry in ratios.values()),
        curve(entries, "loss"),
        curve(entries, "eval_loss"),
    )


def real(value: object) -> bool:
    """A number that can be drawn; no nan, no infinity, no whole number too large for a float."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def step_of(entry: Mapping) -> int:
    """The step of an entry."""
    step = entry.get("step")
    if type(step) is not int or not 0 <= step < 2**53:
        raise DataError("an entry has no step")
    return step


def alphas(entry: Mapping, key: str, layers: int) -> tuple[float, ...]:
    """The ratios of one entry, from 0 to 1."""
    values = entry.get(key)
    if not isinstance(values, list) or len(values) != layers or not all(real(value) and 0 <= value <= 1 for value in values):
        raise DataError(f"{key} at step {entry['step']} is not one ratio for each of {layers} layers")
    return tuple(map(float, values))


def curve(entries: Sequence[Mapping], key: str) -> tuple[tuple[int, float], ...]:
    """(step, loss) where an entry has one. A loss that went to infinity is a gap, not damage."""
    return tuple((entry["step"], float(entry[key])) for entry in entries if real(entry.get(key)))


def thinned(items: Sequence, most: int = MAX_COLUMNS) -> list[int]:
    """Places of at most `most` items, evenly spread, the last one among them."""
    if len(items) <= most:
        return list(range(len(items)))
    return [round((place + 1) * len(items) / most) - 1 for place in range(most)]


def for_programs(log: Sequence[Mapping]) -> dict[str, list]:
    """A log that `series` could read, as one list a field, None where an entry lacks it: what an API returns."""
    fields = [field for field in ("loss", "eval_loss", "learning_rate") if any(field in entry for entry in log)]
    numbers = {field: [entry.get(field) if real(entry.get(field)) else None for entry in log] for field in fields}
    ratios = [field for field in ("alpha_k", "alpha_v") if any(field in entry for entry in log)]
    return {
        "step": [entry["step"] for entry in log],
        **numbers,
        **{field: [entry.get(field) for entry in log] for field in ratios},
    }
