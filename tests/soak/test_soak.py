"""The soak test, a few seconds of it on a tiny base: its figures are those of a page that holds. The whole of it is `python -m soak`."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from soak import parts
from soak.__main__ import main
from soak.client import Reply
from soak.parts import PARTS, Plan
from soak.stream import Lines, lines_of
from soak.visitors import _alike
from tests.browser.served import tiny_folders


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tiny_folders(tmp_path_factory.mktemp("tiny"))
    flags = ("--base", folder / "base", "--checkpoint", folder / "bitune", "--checkpoint", folder / "lora")
    return Plan(flags, visitors=6, minutes=0.1, requests=40, tokens=8, pause=1)


def test_visitors_are_answered_and_see_nothing_of_each_other(plan):
    figures = PARTS["visitors"](plan)
    assert figures["ok"], figures
    assert figures["requests"] >= plan.visitors


@pytest.mark.long
def test_a_device_without_memory_refuses_one_request():
    """The default base: a tiny one needs too little for a shortage that leaves the rest of the app alone."""
    figures = PARTS["shortage"](Plan())
    assert figures["ok"], figures
    assert "memory" in figures["refused with"], figures


def test_answers_end_when_the_app_does(plan):
    figures = PARTS["ending"](plan)
    assert figures["ok"], figures


def test_memory_is_measured_after_every_request(plan):
    figures = PARTS["memory"](replace(plan, requests=7))
    assert figures["answered"] and figures["megabytes at the end"] > 100 and abs(figures["growth"]) < 1, figures


def test_kill_9_loses_no_vote_that_was_thanked_for(plan):
    figures = PARTS["voting"](plan)
    assert figures["ok"], figures


class Votes:
    """A page in the place of `Session` that answers a vote with `words`, until its app is killed."""

    def __init__(self, words: str):
        self.words, self.values, self.run_id, self.runs, self.process = words, {1: "run"}, 1, 0, self
        self.url, self.killed = "", False

    def kill(self) -> None:
        self.killed = True

    def run(self, blind: bool) -> None:
        self.runs += 1
        assert self.runs < 1000, "it never ends"
        if self.killed:
            raise httpx.ConnectError("gone")

    def vote(self, choice: str) -> str:
        return self.words


def test_two_voters_who_have_their_thanks_in_one_moment_end_the_voting_all_the_same(monkeypatch):
    page = Votes("Thanks")
    monkeypatch.setattr(parts, "Session", lambda url: page)
    parts.vote_until_killed(page, ["run"] * parts.VOTES)
    assert page.killed and page.runs == 2


def test_a_page_that_says_no_thanks_ends_the_voting_too(monkeypatch):
    page = Votes("Votes are not kept here.")
    monkeypatch.setattr(parts, "Session", lambda url: page)
    monkeypatch.setattr(parts, "VOTING_SECONDS", 0.0001)
    parts.vote_until_killed(page, [])
    assert not page.killed


@pytest.mark.parametrize(("words", "ok"), [("It does not fit into the memory that is free.", True), ("(RuntimeError)", False)])
def test_a_shortage_has_to_be_called_one(monkeypatch, words, ok):
    answer = {"completions": {"base": {"text": "Hi"}}}

    def ask(app, endpoint, prompt, **arguments):
        refused = prompt != "Hello."
        return Reply(None if refused else answer, words if refused else "", 1.0, True)

    app = SimpleNamespace(room=lambda megabytes: nullcontext(), process=SimpleNamespace(poll=lambda: None))
    monkeypatch.setattr(parts, "_app", lambda plan: nullcontext(app))
    monkeypatch.setattr(parts, "_ask", ask)
    assert parts.shortage(Plan())["ok"] is ok


@pytest.mark.parametrize(("apart", "alike"), [(0.0021, True), (0.02, False)])
def test_rounding_is_no_mixing_up(apart, alike):
    """0.0021 is what was measured of the same request in another batch, in bfloat16."""
    one, other = ({"bitune": {"moved_keys": [0.5, moved]}, "lora": {"moved_keys": None}} for moved in (0.9, 0.9 + apart))
    assert _alike("mixing", one, other) is alike


def test_a_page_that_is_gone_is_a_figure(plan, tmp_path, monkeypatch, capsys):
    def gone(plan):
        httpx.get("http://127.0.0.1:1/", timeout=5)

    monkeypatch.setattr("soak.__main__.PARTS", {"gone": gone})
    assert main(["gone", "--output", str(tmp_path / "figures.json")]) == 1
    assert "does not answer (ConnectError)" in (tmp_path / "figures.json").read_text()


def test_a_part_that_there_is_not(capsys):
    assert main(["nothing"]) == 2
    assert "There is no part called 'nothing'" in capsys.readouterr().err


def test_an_event_whose_text_holds_line_separators_is_one_line():
    lines, text = Lines(), 'data: "a\x1cb\u2028c"\n\nevent: complete\nda'
    assert lines.of(text[:9]) + lines.of(text[9:]) == ['data: "a\x1cb\u2028c"', "", "event: complete"]
    assert lines.of("ta: 1\n") == ["data: 1"]
    assert list(lines_of([text[:9], text[9:], "ta: 1\n"])) == ['data: "a\x1cb\u2028c"', "", "event: complete", "data: 1"]
