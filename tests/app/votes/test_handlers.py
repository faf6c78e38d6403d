"""Voting without a page: what is taken, what is refused, and what is kept of it."""

import json
from dataclasses import asdict, replace

import pytest

from app.limits import Limits
from app.ui.api_types import PairValue, VotesAnswer
from app.votes.ballot import Ballot
from app.votes.candidates import candidates
from app.votes.handlers import HOUR, Hourly, Voting
from app.votes.place import NOWHERE, kept_in, votes_file
from app.votes.store import SCHEMA, AlreadyVotedError, VoteStore
from app.votes.tab import thanks_for
from bitune.errors import ConfigError
from tests.app.votes.test_store import sql
from tests.app.votes.votes import SAMPLING, vote
from tests.browser.served import tiny_engine
from tests.browser.visitor import HOSTILE

WHAT_IFS = {HOSTILE: {"of": "bitune", "keys": [0.0] * 4, "values": [0.0] * 4}}
BALLOT = Ballot("r1", "a secret", "own", SAMPLING, {"bitune": "one", "base": "two", HOSTILE: "three"}, True, WHAT_IFS)
SOMEBODY = "203.0.113.7"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def voting(engine, tmp_path):
    return Voting(engine, kept_in(str(tmp_path / "votes.sqlite3")), votes_per_hour=50)


def give(voting: Voting, ballot=BALLOT, run="r1", choice="0", reasons=(), texts=False, visitor=SOMEBODY) -> None:
    voting.vote(ballot, run, choice, list(reasons), texts, visitor)


def test_what_is_kept_of_a_vote(voting, engine):
    give(voting, choice="1", reasons=["clear", "correct", "clear"])
    (kept,) = voting.kept.store.votes()
    assert (kept.verdict, kept.place, kept.reasons) == ("better", 1, ("correct", "clear"))
    assert [variant.kind for variant in kept.variants] == ["checkpoint", "base", "what-if"]
    assert [variant.name for variant in kept.variants] == ["bitune", "base", "bitune: causal only"]
    assert kept.base.name == "tiny-llama" and len(kept.base.fingerprint) == 16
    assert (kept.template, kept.sampling, kept.blind) == ("own", SAMPLING, True)
    assert len(kept.day) == len("2026-11-26")


def test_no_address_and_no_text_is_kept_unless_the_visitor_says_so(voting):
    for run, texts in (("r1", False), ("r2", None), ("r3", "true"), ("r4", 1)):
        give(voting, replace(BALLOT, run=run), run, texts=texts)
    stored = voting.kept.store.file.read_bytes()
    for text in (SOMEBODY, "a secret", "one", "two", "three", "<img"):
        assert text.encode() not in stored, f"{text!r} is in the file"
    give(voting, replace(BALLOT, run="r5"), "r5", texts=True)
    *_, last = voting.kept.store.votes()
    assert (last.prompt, last.answers) == ("a secret", ("one", "two", "three"))
    assert SOMEBODY.encode() not in voting.kept.store.file.read_bytes()


def test_one_vote_a_run(voting):
    give(voting)
    with pytest.raises(AlreadyVotedError, match="judged already"):
        give(voting, choice="1")
    with pytest.raises(AlreadyVotedError):
        give(voting, replace(BALLOT, blind=False))
    assert voting.votes()["votes"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ballot": None}, "not the latest ones"),
        ({"run": "r2"}, "not the latest ones"),
        ({"run": None}, "not the latest ones"),
        ({"choice": None}, "Nothing is chosen"),
        ({"choice": "3"}, "Nothing is chosen"),
        ({"choice": "-1"}, "Nothing is chosen"),
        ({"choice": 0}, "Nothing is chosen"),
        ({"choice": ["0"]}, "Nothing is chosen"),
        ({"reasons": [HOSTILE]}, "is no reason"),
        ({"reasons": [1]}, "list of names"),
    ],
)
def test_what_is_no_vote_is_a_sentence(voting, arguments, words):
    with pytest.raises(ConfigError, match=words):
        give(voting, **arguments)
    assert voting.votes()["votes"] == 0


def test_what_is_voted_while_voting_is_off_is_refused(engine):
    with pytest.raises(ConfigError, match="Voting is off"):
        give(Voting(engine, NOWHERE, 5))
    assert Voting(engine, NOWHERE, 5).votes() == {**Voting(engine, NOWHERE, 5).votes(), "votes": 0, "pairs": []}


def test_a_visitor_votes_so_often_in_an_hour_and_others_still_may():
    now = [0.0]
    hourly = Hourly(2, lambda: now[0])
    for visitor in ("a", "a", "b"):
        hourly.take(visitor)
        now[0] += 60
    with pytest.raises(ConfigError, match="2 votes have come from your address in an hour.* in 57 min"):
        hourly.take("a")
    hourly.take("b")
    now[0] = HOUR
    hourly.take("a")
    with pytest.raises(ConfigError):
        hourly.take("a")
    now[0] = 3 * HOUR
    hourly.take("c")
    assert dict(hourly._of) == {"c": 1} and len(hourly._taken) == 1, "visitors are forgotten"


def test_the_limit_holds_for_votes(engine, voting):
    limited = Voting(engine, voting.kept, votes_per_hour=1)
    give(limited)
    with pytest.raises(ConfigError, match="vote again in 60 min"):
        give(limited, replace(BALLOT, run="r2"), "r2")
    give(limited, replace(BALLOT, run="r2"), "r2", visitor="203.0.113.8")
    assert Limits().votes_per_hour >= 10


def test_the_tally_for_programs(voting):
    assert voting.votes()["pairs"] == []
    for run, choice in (("r1", "0"), ("r2", "2"), ("r3", "tie"), ("r4", "bad")):
        give(voting, replace(BALLOT, run=run), run, choice)
    answer = json.loads(json.dumps(voting.votes()))
    assert answer["votes"] == 4
    pair = next(each for each in answer["pairs"] if (each["first"]["name"], each["second"]["name"]) == ("bitune", "base"))
    assert pair.items() >= {"wins": 1, "losses": 0, "ties": 1, "all_bad": 1, "third_better": 1, "votes": 4}.items()
    assert pair["names_hidden"] is True
    assert pair.keys() == PairValue.__annotations__.keys() and answer.keys() == VotesAnswer.__annotations__.keys()
    assert pair["win_rate"]["low"] < pair["win_rate"]["mean"] == 0.75 < pair["win_rate"]["high"]


def test_the_tally_for_people_escapes_every_name(voting):
    assert "Nobody has voted yet" in voting.table()
    give(voting)
    table = voting.table()
    assert '<span class="bt-chip bt-v2"><i></i>bitune</span>' in table
    hostile = [replace(vote("h").variants[0], name=HOSTILE), replace(vote("h").variants[1], fingerprint='"><b>')]
    voting.kept.store.add(vote("h", variants=tuple(hostile), blind=False))
    table = voting.table()
    assert "<img" not in table and "<b>lora" not in table and '"><b>' not in table
    assert "&lt;img" in table
    assert "hidden" in table and "shown" in table


def test_a_what_if_is_known_by_its_ratios_and_never_by_a_visitors_words(engine):
    other = {"another name": WHAT_IFS[HOSTILE]}
    changed = {HOSTILE: {"of": "bitune", "keys": [0.1] * 4, "values": [0.0] * 4}}
    one, same, different = (
        candidates(engine, replace(BALLOT, answers={next(iter(what_ifs)): ""}, what_ifs=what_ifs))[0]
        for what_ifs in (WHAT_IFS, other, changed)
    )
    assert one == same != different
    assert HOSTILE not in one.name


def test_after_a_blind_vote_it_is_said_whose_answer_was_which():
    judged = vote(place=1, reasons=())
    assert "kept: Answer B (base) is better. A was bitune, B was base" in thanks_for(BALLOT, judged)
    assert "was" not in thanks_for(replace(BALLOT, blind=False), judged)


def test_after_a_vote_it_is_said_what_was_voted(voting):
    ballot = replace(BALLOT, blind=False)

    def words(choice: str, *given: object) -> str:
        run = replace(ballot, run=choice)
        return thanks_for(run, voting.vote(run, choice, choice, *given, SOMEBODY))

    assert words("1", ["clear", "correct"], True) == (
        "Thanks, your vote is kept: base is better. Why: More correct, Clearer. The prompt and the answers are kept with it."
    )
    assert words("tie", [], False) == "Thanks, your vote is kept: the answers are about the same."
    assert words("bad", [], False) == "Thanks, your vote is kept: all answers are bad."


def test_where_votes_are_kept(tmp_path, monkeypatch):
    assert votes_file("", {"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "bitune" / "votes.sqlite3"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert votes_file("", {}) == tmp_path / ".local" / "share" / "bitune" / "votes.sqlite3"
    assert votes_file("~/mine", {}) == tmp_path / "mine"
    assert kept_in("off") is NOWHERE


def test_where_they_cannot_be_kept_the_log_says_why_and_where_and_the_page_goes_on(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").touch()
    kept = kept_in(str(tmp_path / "file" / "votes"))
    assert kept.store is None and kept.problem.startswith("Voting is off: ")
    assert str(tmp_path) not in kept.problem and str(tmp_path) in caplog.text
    newer = VoteStore(tmp_path / "newer")
    sql(newer, f"PRAGMA user_version = {SCHEMA + 1}")
    assert "newer version" in kept_in(str(newer.file)).problem
    monkeypatch.setattr("app.votes.place.votes_file", lambda named: (_ for _ in ()).throw(ConfigError("no home")))
    assert "no place" in kept_in("").problem


def test_a_vote_holds_what_a_candidate_does(engine):
    assert set(asdict(candidates(engine, BALLOT)[0])) == {"name", "kind", "fingerprint"}
