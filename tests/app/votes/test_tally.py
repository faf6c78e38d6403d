"""The tally: what wins, ties and all-bad count, and its intervals."""

from dataclasses import replace

import pytest

from app.votes.ballot import Candidate, Count
from app.votes.tally import tally
from bitune.errors import ConfigError
from bitune.evaluation.intervals import wilson
from tests.app.votes.votes import BASE, BITUNE, LORA
from tests.closeness import assert_close


def count(variants, verdict, place=None, votes=1, blind=True, base=BASE) -> Count:
    return Count(base, blind, variants, verdict, place, votes)


def test_a_pair_is_the_same_in_either_order_of_its_columns():
    counts = [
        count((BITUNE, BASE), "better", 0, 3),
        count((BASE, BITUNE), "better", 1, 4),
        count((BASE, BITUNE), "better", 0, 2),
        count((BASE, BITUNE), "tie", votes=5),
        count((BITUNE, BASE), "bad", votes=6),
    ]
    (pair,) = tally(counts)
    assert (pair.first, pair.second) == (BITUNE, BASE), "the base stands second"
    assert (pair.wins, pair.losses, pair.ties, pair.bad, pair.others) == (7, 2, 5, 6, 0)
    assert (pair.decided, pair.votes) == (14, 20)
    assert_close(pair.win_rate.mean, (7 + 5 / 2) / 14)


def test_the_best_of_three_won_against_both_others():
    pairs = {(pair.first, pair.second): pair for pair in tally([count((BASE, BITUNE, LORA), "better", 1, 4)])}
    outcomes = {names: (pair.wins, pair.losses, pair.others) for names, pair in pairs.items()}
    assert outcomes == {(BITUNE, BASE): (4, 0, 0), (BITUNE, LORA): (4, 0, 0), (LORA, BASE): (0, 0, 4)}
    assert pairs[LORA, BASE].win_rate is None


def test_hidden_and_shown_names_other_weights_and_other_bases_are_kept_apart():
    again, other = replace(BITUNE, fingerprint="trained again"), replace(BASE, fingerprint="b1")
    counts = [
        count((BITUNE, LORA), "better", 0, 5),
        count((BITUNE, LORA), "better", 0, 7, blind=False),
        count((again, LORA), "better", 0, 2),
        count((BITUNE, LORA), "better", 0, 1, base=other),
    ]
    pairs = tally(counts)
    assert [pair.votes for pair in pairs] == [7, 5, 2, 1], "the most votes first"
    assert len({(pair.base, pair.blind, pair.first) for pair in pairs}) == 4


def test_a_variant_is_no_pair_with_itself():
    twice = Candidate("bitune: every layer at 0.00", "what-if", "x")
    assert len(tally([count((twice, BITUNE), "tie")])) == 1
    assert tally([]) == []


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Computed with scipy 1.17's binomtest(...).proportion_ci(method="wilson").
    [(0, 1, 0.0, 0.7934506856), (5, 5, 0.5655175352, 1.0), (30, 100, 0.2189488529, 0.3958485463)],
)
def test_wilson_is_the_interval_of_the_textbooks(successes, trials, low, high):
    interval = wilson(successes, trials)
    assert_close([interval.mean, interval.low, interval.high], [successes / trials, low, high])


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 3)])
def test_wilson_of_nothing_is_refused(successes, trials):
    with pytest.raises(ConfigError, match="no share"):
        wilson(successes, trials)
