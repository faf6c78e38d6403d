"""What the rows of a set say together: how long answers are, how often two variants agree, who is right; with 95 % intervals.

Several samples of a prompt count as one value, their mean: answers to one prompt are not independent of each other. Where each prompt is
right or wrong, intervals of shares are score intervals; means of samples, and numbers of tokens, are drawn anew prompt by prompt.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from bitune.evaluation.intervals import RESAMPLES, Interval, bootstrap, paired_shares, sign_test, wilson
from bitune.sets.rows import Row, SetAnswer

LUCK = 0.05
"""A difference that luck alone would make at least this often does not count."""


@dataclass(frozen=True)
class OfVariant:
    """One variant. `tokens`: of an answer. `cut`: the share of answers that ended at the limit of new tokens. `right`: the share of right
    ones among those of which somebody says what is right; None without any."""

    tokens: Interval
    cut: float
    right: Interval | None


@dataclass(frozen=True)
class OfPair:
    """Two variants, prompt by prompt. `same`: the share of the very same text. `tokens`, `right`: of the second minus the first, paired.

    `only_first`, `only_second`: the rows in which one alone is right. `sign_p`: the exact sign test of the prompts at which one is right more
    often than the other, see `sign_test`; None as `right`.
    """

    same: Interval
    tokens: Interval
    right: Interval | None
    only_first: int
    only_second: int
    sign_p: float | None

    @property
    def counts(self) -> bool:
        """Whether the difference of `right` is more than luck explains: by its interval and by the sign test, as a score interval alone is
        too sure of a few one-sided cases, and a bootstrap more so."""
        if self.right is None or self.right.low is None:
            return False
        return (self.right.low > 0 or self.right.high < 0) and self.sign_p < LUCK


@dataclass(frozen=True)
class Comparison:
    """A set as far as it is answered. `judged`: prompts of which somebody says what is right. `pairs`: by the names of both."""

    prompts: int
    rows: int
    judged: int
    variants: Mapping[str, OfVariant]
    pairs: Mapping[tuple[str, str], OfPair]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; a pair stands under its second variant's name, in `minus` by the name of the first."""
        variants = {name: asdict(one) | {"minus": {}} for name, one in self.variants.items()}
        for (first, second), pair in self.pairs.items():
            variants[second]["minus"][first] = asdict(pair)
        return {"prompts": self.prompts, "rows": self.rows, "judged": self.judged, "variants": variants}


def compare(rows: Sequence[Row], resamples: int = RESAMPLES) -> Comparison | None:
    """Compare the variants that answered these rows, all the same ones; None without a row. `resamples`: of each interval, as in `bootstrap`."""
    if not rows:
        return None
    names = list(rows[0].answers)
    judged = [row for row in rows if row.right is not None]
    return Comparison(
        prompts=len({row.index for row in rows}),
        rows=len(rows),
        judged=len({row.index for row in judged}),
        variants={name: _of_variant(rows, judged, resamples, name) for name in names},
        pairs={pair: _of_pair(rows, judged, resamples, *pair) for pair in combinations(names, 2)},
    )


def _of_variant(rows: Sequence[Row], judged: Sequence[Row], resamples: int, name: str) -> OfVariant:
    cut = sum(row.answers[name].finish_reason == "length" for row in rows) / len(rows)
    right = _share(_by_prompt(judged, lambda row: row.answers[name].is_right), resamples) if judged else None
    return OfVariant(_mean(_by_prompt(rows, lambda row: row.answers[name].tokens), resamples), cut, right)


def _of_pair(rows: Sequence[Row], judged: Sequence[Row], resamples: int, first: str, second: str) -> OfPair:
    def of(row: Row) -> tuple[SetAnswer, SetAnswer]:
        return row.answers[first], row.answers[second]

    def ahead(row: Row) -> int:
        one, other = of(row)
        return int(other.is_right) - int(one.is_right)

    def longer(row: Row) -> int:
        one, other = of(row)
        return other.tokens - one.tokens

    same = _by_prompt(rows, lambda row: len({answer.text for answer in of(row)}) == 1)
    differences, by_prompt = [ahead(row) for row in judged], _by_prompt(judged, ahead)
    sides = [_by_prompt(judged, lambda row, name=name: row.answers[name].is_right) for name in (first, second)]
    return OfPair(
        same=_share(same, resamples),
        tokens=_mean(_by_prompt(rows, longer), resamples),
        right=_difference(*sides, resamples) if judged else None,
        only_first=differences.count(-1),
        only_second=differences.count(1),
        sign_p=sign_test(sum(one < 0 for one in by_prompt), sum(one > 0 for one in by_prompt)) if judged else None,
    )


def _mean(values: Sequence[float], resamples: int) -> Interval:
    """The mean over prompts. One prompt has no interval: it says nothing of others."""
    return bootstrap(values, resamples=resamples) if len(values) > 1 else Interval(values[0], None, None)


def _share(values: Sequence[float], resamples: int) -> Interval:
    """The share of prompts, or the mean of shares of samples. Of values that are all the same nothing can be drawn but they: then the
    interval is that of as many whole answers, which is on the wide side."""
    return wilson(sum(values), len(values)) if _are_whole(values) or len(set(values)) == 1 else _mean(values, resamples)


def _difference(first: Sequence[float], second: Sequence[float], resamples: int) -> Interval:
    """The share of the second minus that of the first, prompt by prompt; as `_share`."""
    pairs = list(zip(first, second, strict=True))
    differences = [other - one for one, other in pairs]
    if not _are_whole((*first, *second)) and len(set(differences)) > 1:
        return _mean(differences, resamples)
    both = sum(one * other for one, other in pairs)
    only_first, only_second = sum(first) - both, sum(second) - both
    return paired_shares(both, only_first, only_second, len(pairs) - both - only_first - only_second)


def _are_whole(values: Sequence[float]) -> bool:
    return set(values) <= {0.0, 1.0}


def _by_prompt(rows: Sequence[Row], value: Callable[[Row], float]) -> list[float]:
    """A value of each prompt: the mean over its samples."""
    values = defaultdict(list)
    for row in rows:
        values[row.index].append(float(value(row)))
    return [sum(of_one) / len(of_one) for of_one in values.values()]
