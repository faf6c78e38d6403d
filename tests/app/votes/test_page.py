"""Votes over HTTP, as a page sends them and as somebody who forges them would: what reaches a browser, and what is refused."""

import json
from uuid import uuid4

import pytest

from app.limits import Limits
from app.page import build_page
from app.server import serve
from app.settings import Settings
from app.ui.admission import Admission
from app.votes.place import kept_in
from soak.session import Session
from tests.app.compare.test_blind import TELLING
from tests.browser.served import tiny_engine


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return kept_in(str(tmp_path_factory.mktemp("votes") / "votes.sqlite3"))


@pytest.fixture(scope="module")
def url(tmp_path_factory, kept):
    admission = Admission(Limits(votes_per_hour=4))
    page = build_page(tiny_engine(tmp_path_factory.mktemp("tiny")), {}, admission=admission, votes=kept)
    try:
        yield serve(page, Settings(port=0))
    finally:
        page.close()


@pytest.fixture
def session(url):
    return Session(url)


def runs(kept) -> list[str]:
    return [vote.run for vote in kept.store.votes()]


def test_what_a_browser_gets_of_a_blind_run_tells_no_variant(session, kept):
    sent = session.run(blind=True)
    assert "Answer C" in sent
    assert not [words for words in TELLING if words in sent]
    answer = session.vote("1", ["clear"])
    assert "Thanks" in answer and "bitune" in answer, "now the names come"
    *_, last = kept.store.votes()
    assert last.blind and last.run == session.values[session.run_id]


def test_the_id_of_a_run_of_another_session_or_of_none_is_refused(session, url, kept):
    session.run()
    mine, before = session.values[session.run_id], runs(kept)
    other = Session(url)
    assert "not the latest ones" in other.vote(run=mine), "nothing has run in that session"
    other.run()
    assert "not the latest ones" in other.vote(run=mine)
    for forged in (uuid4().hex, "", None, 7, [mine], {"value": mine}, "' OR 1=1 --"):
        assert "Thanks" not in other.vote(run=forged)
    assert runs(kept) == before
    other.hash = session.hash[:-1]
    assert "Thanks" not in other.vote(run=mine)
    assert runs(kept) == before


def test_choices_and_reasons_that_are_not_on_the_page_are_refused(session, kept):
    session.run()
    before = runs(kept)
    for choice, reasons in (("7", ()), ("<img src=x>", ()), (None, ()), ({"a": 1}, ()), ("0", ["<script>"]), ("0", [["x"]])):
        assert "Thanks" not in session.vote(choice, reasons)
    assert runs(kept) == before
    assert "Thanks" in session.vote("tie")
    assert "judged already" in session.vote("0")


def test_a_visitor_votes_so_often_and_no_more(url, kept):
    answers = []
    for _ in range(4):
        session = Session(url)
        session.run()
        answers.append(session.vote())
    assert "have come from your address in an hour" in answers[-1]
    assert len(runs(kept)) <= 4
    assert "127.0.0.1" not in json.dumps([str(vote) for vote in kept.store.votes()])
