"""Accuracies over tasks, items and seeds with their intervals. Knows hits and misses as numbers; knows no run and no table."""

from collections.abc import Sequence

import numpy as np

from bitune.evaluation.intervals import Interval

RESAMPLES = 2_000
DIGITS = 9  # the last ones differ by machine


def resampled(hits: Sequence[np.ndarray], minus: Sequence[np.ndarray] | None = None, same_seeds: bool = False) -> Interval:
    """Average over tasks of the mean of `hits` ([seeds, items] each), less that of `minus` on the same items, with a 95 % interval.

    The interval is of a bootstrap that draws items and seeds: another training moves a result as other questions do. Each side
    draws seeds of its own unless they have the same. With one seed only the items vary. Of n seeds n - 1 are drawn: n would give
    (n - 1) / n of their variance, two thirds for three (Rao and Wu, 1988). Where seeds differ little the interval is on the wide side:
    what is of one seed and one item alone is drawn with both (Owen, 2007, The pigeonhole bootstrap).
    """
    generator = np.random.default_rng(0)
    sides = [hits] if minus is None else [hits, minus]
    seeds = [len(side[0]) for side in sides]
    weights = [_draws(generator, count, max(1, count - 1)) for count in seeds]  # a seed is drawn for all tasks at once
    if same_seeds:
        weights = weights[:1] * len(sides)
    total, mean = np.zeros(RESAMPLES), 0.0
    for task in range(len(hits)):
        count = hits[task].shape[1]
        items = _draws(generator, count, count)
        values = [np.einsum("rs,sn,rn->r", w, side[task], items, optimize=True) for w, side in zip(weights, sides, strict=True)]
        total += values[0] - (values[1] if minus is not None else 0)
        mean += hits[task].mean() - (minus[task].mean() if minus is not None else 0)
    interval = Interval.of(mean / len(hits), total / len(hits))
    return Interval(*(round(value, DIGITS) for value in vars(interval).values()))


def _draws(generator: np.random.Generator, count: int, drawn: int) -> np.ndarray:
    """How often each of `count` things is among `drawn` ones, as shares, [resamples, count]."""
    return generator.multinomial(drawn, np.full(count, 1 / count), size=RESAMPLES) / drawn
