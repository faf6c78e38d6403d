"""What the rows of a set say together: how long answers are, how often two variants agree, who is right; with 95 % intervals.

Several samples of a prompt count as one value, their mean: answers to one prompt are not independent of each other.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from bitune.evaluation.intervals import RESAMPLES, Interval, bootstrap, wilson
from bitune.sets.rows import Row, SetAnswer


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

    `only_first`, `only_second`: the rows in which one alone is right.
    """

    same: Interval
    tokens: Interval
    right: Interval | None
    only_first: int
    only_second: int


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
    right = bootstrap(_by_prompt(judged, lambda row: row.answers[name].is_right), resamples=resamples) if judged else None
    return OfVariant(bootstrap(_by_prompt(rows, lambda row: row.answers[name].tokens), resamples=resamples), cut, right)


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
    differences = [ahead(row) for row in judged]
    return OfPair(
        same=wilson(sum(same), len(same)),
        tokens=bootstrap(_by_prompt(rows, longer), resamples=resamples),
        right=bootstrap(_by_prompt(judged, ahead), resamples=resamples) if judged else None,
        only_first=differences.count(-1),
        only_second=differences.count(1),
    )


def _by_prompt(rows: Sequence[Row], value: Callable[[Row], float]) -> list[float]:
    """A value of each prompt: the mean over its samples."""
    values = defaultdict(list)
    for row in rows:
        values[row.index].append(float(value(row)))
    return [sum(of_one) / len(of_one) for of_one in values.values()]
