"""Means with 95 % intervals: of values by the percentile bootstrap, of shares by Wilson's formula, of paired differences of shares by
Newcombe's. Knows numbers alone; the study's tables and the page's votes take their intervals from here too."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from bitune.errors import ConfigError

RESAMPLES = 10_000
# Of more distinct values than this, drawing every item takes a tenth of the time that drawing counts takes, where there are not too many.
_FEW_LEVELS, _FEW_VALUES = 16, 1_000


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval of it over items drawn anew; None where one item tells nothing of others."""

    mean: float
    low: float | None
    high: float | None

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


def paired_shares(both: float, only_first: float, only_second: float, neither: float) -> Interval:
    """The share of successes of the second minus that of the first, of trials in which both had their turn, with its 95 % score interval.

    It holds for few trials and for one-sided differences, where a bootstrap has no width. Newcombe (1998), Improved confidence intervals
    for the difference between binomial proportions based on paired data, Statistics in Medicine 17:2635, method 10: the Wilson intervals of
    both shares are added as squares, less what the two have in common (phi, with a continuity correction where it is positive).

    Args:
        both, only_first, only_second, neither: how many trials were a success of whom; parts of a trial vary less and so leave the interval
            on the wide side.

    Raises:
        ConfigError: there is no trial.
    """
    trials = round(both + only_first + only_second + neither)
    first, second = (wilson(min(both + alone, trials), trials) for alone in (only_first, only_second))
    common = both * neither - only_first * only_second
    if common > 0:
        common = max(common - trials / 2, 0.0)
    spread = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = common / sqrt(spread) if spread > 0 else 0.0

    def apart(one: float, other: float) -> float:
        return sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))

    difference = second.mean - first.mean
    low = difference - apart(second.mean - second.low, first.high - first.mean)
    return Interval(difference, low, difference + apart(second.high - second.mean, first.mean - first.low))


def sign_test(first: int, second: int) -> float:
    """How likely two counts are at least as uneven as these where each case falls to either with the same chance: the exact two-sided p;
    1 without a case. Of discordant pairs this is McNemar's exact test."""
    cases = first + second
    tail = sum(comb(cases, count) for count in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2**cases)
