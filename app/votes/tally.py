"""Votes as a table of pairs of variants: how often each was better, with 95 % intervals. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from app.votes.ballot import Candidate, Count
from bitune.evaluation.intervals import Interval, wilson

LAST = ("base",)  # of a pair the base stands second: what is asked is whether something is better than it


@dataclass(frozen=True)
class Pair:
    """Two variants on one base, over all votes in which both had an answer; votes with names hidden and with names shown are apart.

    `wins`, `losses`: of `first` against `second`. `ties`: neither was better than the other, and both were the best. `bad`: all
    answers were. `others`: a third answer was the best, which says nothing of these two.
    """

    base: Candidate
    blind: bool
    first: Candidate
    second: Candidate
    wins: int
    losses: int
    ties: int
    bad: int
    others: int

    @property
    def decided(self) -> int:
        """The votes that the win rate is of."""
        return self.wins + self.losses + self.ties

    @property
    def votes(self) -> int:
        """All votes in which both had an answer."""
        return self.decided + self.bad + self.others

    @property
    def win_rate(self) -> Interval | None:
        """The share of decided votes that `first` won, a tie as half a one; None where there are none.

        With the Wilson interval. A tie varies less than a win or a loss, so with ties it is on the wide side.
        """
        return wilson(self.wins + self.ties / 2, self.decided) if self.decided else None


def tally(counts: Iterable[Count]) -> list[Pair]:
    """A pair for each two variants that were judged side by side, the one with most votes first; with names hidden before shown.

    One choice among more than two answers is a win against each of the others: under Bradley and Terry's model, extended to more than
    two by Luce, the ratio of two strengths is the same whatever else stands beside them.
    """
    outcomes: dict[tuple, Counter] = {}
    for count in counts:
        places = sorted(range(len(count.variants)), key=lambda place: _order(count.variants[place]))
        for first, second in combinations(places, 2):
            pair = (count.base, count.blind, count.variants[first], count.variants[second])
            outcomes.setdefault(pair, Counter())[_outcome(count, first, second)] += count.votes
    pairs = [
        Pair(*key, *(number[name] for name in ("wins", "losses", "ties", "bad", "others"))) for key, number in outcomes.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair.votes, not pair.blind, *map(_order, (pair.base, pair.first, pair.second))))


def _order(candidate: Candidate) -> tuple[bool, str, str, str]:
    return candidate.kind in LAST, candidate.name, candidate.kind, candidate.fingerprint


def _outcome(count: Count, first: int, second: int) -> str:
    if count.verdict == "better":
        return {first: "wins", second: "losses"}.get(count.place, "others")
    return {"tie": "ties", "bad": "bad"}[count.verdict]
