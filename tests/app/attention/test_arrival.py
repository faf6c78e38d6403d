"""What comes along from Compare is read by itself where that costs little; else words say why not."""

import pytest

from app.attention.arrival import LONG, MAX_TOKENS, Arrival, arrival
from app.attention.handlers import AttentionHandlers
from app.ui.latest_run import LatestRun
from tests.browser.served import tiny_engine


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return AttentionHandlers(tiny_engine(tmp_path_factory.mktemp("tiny")))


def arrived(handlers, prompt: str, answer: str = "fine", run_id: str | None = "one") -> Arrival:
    return arrival(handlers, LatestRun(prompt, "none", {"bitune": answer}, run_id), "bitune", {})


def test_a_short_run_that_has_ended_is_read(handlers):
    assert arrived(handlers, "hello") == Arrival(True)


def test_one_that_still_runs_is_not(handlers):
    assert arrived(handlers, "hello", run_id=None) == Arrival(False)


def test_a_long_one_waits_for_the_button(handlers):
    assert arrived(handlers, "x" * (MAX_TOKENS - 4), "four").reads, "a byte is a token here"
    assert arrived(handlers, "x" * (MAX_TOKENS - 3), "four") == Arrival(False, LONG)
    assert arrived(handlers, "x" * 1_000_000) == Arrival(False, LONG)


def test_what_cannot_be_read_says_why(handlers):
    found = arrived(handlers, "hello", "\ud800")
    assert not found.reads and "surrogate" in found.words
