"""How close two computations of one thing must be, and how far apart two different things: from the dtype and the size of the values.

Each comparison notes its margin, the part of what it allows that is used up. `pytest --margins` prints the worst of every test, and
fails tests that use more than a third: those would fail on another processor, or with another number of threads.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

# Two orders of summing in a tiny model differ by some tens of units in the last place of its largest value.
ROUNDINGS = 256
# A wrong adapter, mask, sign or position moves values by this many times what rounding may move them.
APART = 30
LARGEST_MARGIN = 1 / 3

noted: list[float] = []  # margins of the running test; margins.py empties it before each
note = noted.append


def assert_close(
    actual: ArrayLike, expected: ArrayLike, why: str = "", *, size: float | None = None, allowed: ArrayLike | None = None
) -> None:
    """Assert that two computations of the same values agree to the rounding of their dtype.

    Args:
        actual, expected: Tensors of the same shape and dtype, or arrays or (nested) numbers; Python's count as float32.
        why: What is wrong when they differ.
        size: Of the largest value that was rounded on the way; default: the largest of `expected`.
        allowed: The largest difference, one for all entries or one for each, where something other than the dtype decides.
    """
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        assert actual.dtype == expected.dtype, f"{actual.dtype} is compared with {expected.dtype}"
    found, wanted = _array(actual), _array(expected)
    assert found.shape == wanted.shape, f"shape {found.shape}, expected {wanted.shape}"
    assert np.isfinite(found).all() and np.isfinite(wanted).all(), f"a value is not finite: {found}, expected {wanted}"
    if allowed is None:
        allowed = rounding(actual, expected, size=size)
    errors = np.abs(found - wanted)
    limits = np.broadcast_to(_array(allowed), errors.shape)
    margins = np.divide(errors, limits, out=np.where(errors > 0, np.inf, 0.0), where=limits > 0)
    margin = margins.max(initial=0.0)
    note(float(margin))
    if margin > 1:
        place = np.unravel_index(margins.argmax(), margins.shape)
        where = f" at {tuple(map(int, place))}" if place else ""
        raise AssertionError(
            f"{why + ': ' if why else ''}{found[place]:.8g}{where}, expected {wanted[place]:.8g}: off by {errors[place]:.3g}, which is "
            f"{margin:.3g} times what is allowed; {(margins > 1).sum()} of {margins.size} values are off, at most by {errors.max():.3g}"
        )


def assert_apart(
    one: ArrayLike, other: ArrayLike, why: str = "", *, size: float | None = None, least: float | None = None
) -> None:
    """Assert that two things differ somewhere by far more than `assert_close` would allow, so that a mix-up of them would show.

    Args:
        one, other, why, size: As in `assert_close`.
        least: The smallest difference that counts, where something other than the dtype decides.
    """
    if least is None:
        least = APART * rounding(one, other, size=size)
    difference = np.abs(_array(one) - _array(other)).max()
    note(float(least / difference) if difference else np.inf)
    assert difference >= least, (
        f"{why + ': ' if why else ''}the largest difference is {difference:.3g}; at least {least:.3g} would show a mix-up"
    )


def assert_clear(scores: Tensor) -> None:
    """Assert that the best of each row of `scores` [..., choices] is ahead of the second by more than rounding could take away.

    Only then do two computations of one greedy choice choose the same.
    """
    best, second = scores.detach().topk(2).values.unbind(-1)
    gap, least = float((best - second).min()), rounding(scores[scores.isfinite()])
    note(least / gap if gap else np.inf)
    assert gap >= least, (
        f"the second best is {gap:.3g} behind, less than the {least:.3g} that rounding may make; choose another seed"
    )


def rounding(*values: ArrayLike, size: float | None = None) -> float:
    """The difference that rounding may make between computations of such values, whose largest has this size."""
    if size is None:
        size = max(float(np.abs(_array(value)).max(initial=0.0)) for value in values)
    return ROUNDINGS * max(map(_epsilon, values)) * float(size)


def _array(values: ArrayLike) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _epsilon(values: ArrayLike) -> float:
    if isinstance(values, Tensor):
        return torch.finfo(values.dtype).eps
    if isinstance(values, np.ndarray | np.floating):
        return float(np.finfo(values.dtype).eps)
    return torch.finfo(torch.float32).eps
