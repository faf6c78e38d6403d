"""The file of votes: nothing that was said to be kept is lost, however many write and however they end."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.votes.ballot import Candidate, Count
from app.votes.store import PAGE, SCHEMA, AlreadyVotedError, VotesError, VoteStore
from tests.app.votes.votes import BASE, BITUNE, LORA, vote

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def store(tmp_path):
    return VoteStore(tmp_path / "new" / "folder" / "votes.sqlite3")


def voter(store: VoteStore, prefix: str, *number: str) -> subprocess.Popen:
    """A process that votes, and says each vote that is kept."""
    command = [sys.executable, "-m", "tests.app.votes.votes", str(store.file), prefix, *number]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def sql(store: VoteStore, *statements: str) -> list:
    with closing(sqlite3.connect(store.file, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def test_a_vote_comes_back_as_it_was_given(store):
    hostile = Candidate('"; DROP TABLE votes; -- <script> \ud800', "checkpoint", "")
    votes = [
        vote("a"),
        vote("b", None, "tie", blind=False, variants=(LORA, BITUNE, hostile), reasons=()),
        vote("c", 1, prompt="what\u2028 is 'this'?\n", answers=("one", "")),
    ]
    for each in votes:
        store.add(each)
    assert list(VoteStore(store.file).votes()) == votes
    assert store.last_id() == 3


def test_a_run_has_one_vote(store):
    store.add(vote("a", 0))
    with pytest.raises(AlreadyVotedError, match="judged already"):
        VoteStore(store.file).add(vote("a", 1))
    assert [each.place for each in store.votes()] == [0]


def test_equal_outcomes_are_counted(store):
    for run, each in enumerate([vote(), vote(), vote(place=1), vote(blind=False), vote(variants=(LORA, BITUNE))]):
        store.add(replace(each, run=str(run)))
    assert Counter({count: count.votes for count in store.counts()}) == {
        Count(BASE, True, (BITUNE, LORA), "better", 0, 2): 2,
        Count(BASE, True, (BITUNE, LORA), "better", 1, 1): 1,
        Count(BASE, False, (BITUNE, LORA), "better", 0, 1): 1,
        Count(BASE, True, (LORA, BITUNE), "better", 0, 1): 1,
    }


def test_more_votes_than_are_read_at_a_time(store, monkeypatch):
    monkeypatch.setattr("app.votes.store.PAGE", 3)
    for run in range(7):
        store.add(vote(str(run)))
    assert [each.run for each in store.votes()] == list("0123456")
    assert PAGE > 3


def test_several_processes_write_at_once(store):
    voters = [voter(store, name, "25") for name in "xyz"]
    said = [line.strip() for each in voters for line in each.communicate(timeout=120)[0].splitlines()]
    assert [each.returncode for each in voters] == [0, 0, 0]
    assert sorted(said) == sorted(f"{name}-{number}" for name in "xyz" for number in range(25))
    assert sorted(each.run for each in store.votes()) == sorted(said)


def test_processes_that_start_at_once_make_one_table(tmp_path):
    store = VoteStore.__new__(VoteStore)  # a place where nothing is yet
    store.file = tmp_path / "fresh" / "votes.sqlite3"
    voters = [voter(store, name, "1") for name in "uvwxyz"]
    assert [each.wait(120) for each in voters] == [0] * 6
    for each in voters:
        each.stdout.close()
    assert len(list(VoteStore(store.file).votes())) == 6


def test_kill_9_loses_no_vote_that_was_said_to_be_kept(store):
    voters, said = [voter(store, f"voter {number}") for number in range(5)], []
    for each in voters:  # the others go on meanwhile
        said += [each.stdout.readline().strip() for _ in range(5)]
        os.kill(each.pid, signal.SIGKILL)
        said += each.stdout.read().split("\n")[:-1]  # what was said before the signal came
        each.stdout.close()
        each.wait(60)
    kept = {each.run: each for each in VoteStore(store.file).votes()}
    assert len(said) >= 25
    assert set(said) <= set(kept), "a vote that was acknowledged is gone"
    assert len(kept) <= len(said) + len(voters), "a voter was at one vote that it had not said yet"
    assert all(each == vote(each.run, prompt="p" * 3000) for each in kept.values()), "no vote is there in part"
    assert sql(store, "PRAGMA integrity_check") == [("ok",)]


def test_it_syncs_the_folder_too(store):
    with store._open() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def refusal(file: Path) -> str:
    with pytest.raises(VotesError) as caught:
        VoteStore(file)
    message = str(caught.value)
    assert str(file.parent) not in message, "visitors may see it"
    return message


def test_what_cannot_be_written_is_a_sentence(tmp_path, store):
    (tmp_path / "file").touch()
    assert "cannot be kept" in refusal(tmp_path / "file" / "votes.sqlite3")
    (tmp_path / "folder").mkdir()
    assert "cannot be opened" in refusal(tmp_path / "folder")
    (tmp_path / "text").write_text("These are no votes. " * 100)
    assert "no SQLite database" in refusal(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    assert "something else" in refusal(tmp_path / "other")
    for version, table in ((1, "votes (question TEXT)"), (1, "songs (title TEXT)"), (-1, "votes (run TEXT)")):
        with closing(sqlite3.connect(tmp_path / f"{version}{table}")) as connection:
            connection.execute(f"CREATE TABLE {table}")
            connection.execute(f"PRAGMA user_version = {version}")
        assert "something else" in refusal(tmp_path / f"{version}{table}")


def test_a_newer_file_is_refused_and_stays_as_it_is(store):
    store.add(vote())
    sql(store, f"PRAGMA user_version = {SCHEMA + 1}")
    before = store.file.read_bytes()
    assert f"schema {SCHEMA + 1} of a newer version" in refusal(store.file)
    assert store.file.read_bytes() == before


def test_a_disk_that_is_full_keeps_no_part_of_a_vote(store, monkeypatch):
    store.add(vote("a"))
    opened = VoteStore._open

    def small(self, mode="rw"):
        connection = opened(self, mode)
        return Limited(connection)

    class Limited:
        def __init__(self, inner):
            self.inner = inner

        def __enter__(self):
            connection = self.inner.__enter__()
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
            return connection

        def __exit__(self, *raised):
            return self.inner.__exit__(*raised)

    monkeypatch.setattr(VoteStore, "_open", small)
    with pytest.raises(VotesError, match="the disk is full; free some space"):
        store.add(vote("b", prompt="long " * 10_000))
    assert [each.run for each in store.votes()] == ["a"]


def test_another_program_that_holds_the_file_is_waited_for_and_named(store, monkeypatch):
    monkeypatch.setattr("app.votes.store.BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(store.file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(VotesError, match="another program has held the file"):
            store.add(vote())
    store.add(vote())


def test_a_damaged_file_is_a_sentence(store):
    for run in range(50):
        store.add(vote(str(run), prompt="p" * 3000))
    content = bytearray(store.file.read_bytes())
    content[4096 : len(content)] = b"\xff" * (len(content) - 4096)
    store.file.write_bytes(content)
    with pytest.raises(VotesError, match="damaged"):
        list(store.votes())


def test_what_is_not_known_passes_under_its_own_name(store):
    sql(store, "DROP TABLE votes")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.counts()
