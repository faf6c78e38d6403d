"""Means with 95 % intervals: of values by the percentile bootstrap, of shares by Wilson's formula. Knows numbers alone; the study's
tables and the page's votes take their intervals from here too."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from bitune.errors import ConfigError

RESAMPLES = 10_000
# Of more distinct values than this, drawing every item takes a tenth of the time that drawing counts takes, where there are not too many.
_FEW_LEVELS, _FEW_VALUES = 16, 1_000


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval of it over items drawn anew."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, mean: float, drawn_means: np.ndarray) -> "Interval":
        """The interval from the 2.5 % to the 97.5 % quantile of the means of all resamples (float64 [resamples])."""
        low, high = np.quantile(drawn_means, [0.025, 0.975])
        return cls(float(mean), float(low), float(high))


def bootstrap(*groups: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of values with its interval; of several groups (tasks, say), the average of their means.

    For the difference between two variants subtract item by item first: then it is paired.

    Args:
        groups: the values of each group, one an item.
        resamples: how often all items are drawn anew, with replacement.
        seed: the same one draws the same items.

    Raises:
        ConfigError: a group holds no value.
    """
    if not groups or not all(map(len, groups)):
        raise ConfigError("There is no item, so there is no accuracy; give at least one.")
    generator = np.random.default_rng(seed)
    drawn = np.mean([_resampled_means(np.asarray(values, np.float64), generator, resamples) for values in groups], axis=0)
    return Interval.of(np.mean([np.mean(values) for values in groups]), drawn)


def _resampled_means(values: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    # Few distinct values: how often each is drawn is all that counts, so a million items cost what ten do.
    levels, counts = np.unique(values, return_counts=True)
    if levels.size > _FEW_LEVELS and values.size <= _FEW_VALUES:
        return values[generator.integers(values.size, size=(resamples, values.size), dtype=np.uint16)].mean(axis=1)
    return generator.multinomial(values.size, counts / values.size, size=resamples) @ levels / values.size


def wilson(successes: float, trials: int) -> Interval:
    """A share with its Wilson score interval, which holds for few trials and near 0 and 1, where a bootstrap has no width.

    Wilson (1927), Probable inference, the law of succession, and statistical inference.

    Args:
        successes: how many of the trials; a half for one that is neither, which varies less and so leaves the interval on the wide side.
        trials: at least 1.

    Raises:
        ConfigError: there is no trial, or there are more successes.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(
            f"{successes:g} successes in {trials} trials are no share; give at least one trial, and no more successes."
        )
    z2 = NormalDist().inv_cdf(0.975) ** 2
    share = successes / trials
    centre = (successes + z2 / 2) / (trials + z2)
    half = sqrt(z2 * (share * (1 - share) * trials + z2 / 4)) / (trials + z2)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
