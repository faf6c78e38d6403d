"""Votes on the Hub, with huggingface_hub's own scheduler against a small Hub of ours: what fails there never loses a vote."""

import json
import time
from dataclasses import asdict
from tempfile import TemporaryDirectory

import pytest
from huggingface_hub import constants, errors

from app.votes.hub import VotesScheduler, send
from app.votes.store import VoteStore
from tests.app.votes.votes import vote
from tests.hub import Hub, running_hub

DATASET = "somebody/votes"


@pytest.fixture
def hub(monkeypatch):
    with running_hub(Hub()) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running


@pytest.fixture
def schedulers(monkeypatch):
    """Those that are made in a test; none goes on after it."""
    made, begin = [], VotesScheduler.__init__

    def remembered(self, *arguments, **options):
        begin(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(VotesScheduler, "__init__", remembered)
    yield made
    for scheduler in made:
        scheduler.last_future.exception(60)
        scheduler.stop()
        scheduler.temporary.cleanup()


@pytest.fixture
def store(tmp_path):
    return VoteStore(tmp_path / "votes.sqlite3")


def sent(hub: Hub, store: VoteStore) -> list[dict]:
    """The votes that are in the data set."""
    content = hub.files.get(DATASET, {}).get(f"votes-{store.id()}.jsonl", b"")
    return [json.loads(line) for line in content.splitlines()]


def plain(*votes) -> list[dict]:
    return [json.loads(json.dumps(asdict(each))) for each in votes]


def until(there) -> None:
    """Wait for what a thread does."""
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def commits(hub: Hub) -> int:
    return sum("/commit/" in request for request in hub.requests)


def scheduler_of(store: VoteStore) -> VotesScheduler:
    """One whose first look is over, and whose next one only comes when it is asked to."""
    scheduler = VotesScheduler(store, DATASET, TemporaryDirectory(), every=60.0)
    until(lambda: hasattr(scheduler, "last_future"))
    scheduler.last_future.exception(60)
    return scheduler


def test_new_votes_are_sent_whole_and_old_ones_not_again(hub, store, schedulers):
    scheduler = scheduler_of(store)
    assert commits(hub) == 0, "nothing is sent where nobody has voted"
    store.add(vote("a"))
    scheduler.trigger().result(60)
    assert sent(hub, store) == plain(vote("a"))
    scheduler.trigger().result(60)
    assert commits(hub) == 1
    store.add(vote("b", prompt="kept with\u2028leave"))
    scheduler.trigger().result(60)
    assert sent(hub, store) == plain(vote("a"), vote("b", prompt="kept with\u2028leave"))


def test_a_commit_that_fails_loses_nothing(hub, store, schedulers, caplog):
    scheduler = scheduler_of(store)
    hub.token = "another"
    store.add(vote("a"))
    with pytest.raises(errors.HfHubHTTPError):
        scheduler.trigger().result(60)
    assert "Error while pushing to Hub" in caplog.text
    store.add(vote("b"))
    hub.token = scheduler.api.token or "hf_test"
    scheduler.trigger().result(60)
    assert sent(hub, store) == plain(vote("a"), vote("b"))


def test_after_a_restart_what_was_not_sent_is_sent(hub, store, schedulers):
    for run in "ab":
        store.add(vote(run))
    scheduler_of(VoteStore(store.file))
    assert sent(hub, store) == plain(vote("a"), vote("b"))


def test_a_hub_that_is_not_there_at_the_beginning_is_asked_again(hub, store, schedulers, caplog):
    store.add(vote("a"))
    hub.token = "another"
    send(store, DATASET, every=0.001)
    until(lambda: "Votes are kept, but not sent to the data set somebody/votes" in caplog.text)
    assert "does not accept this login" in caplog.text
    hub.token = "hf_test"
    until(lambda: sent(hub, store) == plain(vote("a")))
    until(lambda: hasattr(schedulers[0], "last_future"))


def test_two_files_of_votes_do_not_write_over_each_other(hub, store, tmp_path, schedulers):
    other = VoteStore(tmp_path / "other.sqlite3")
    store.add(vote("a"))
    other.add(vote("b"))
    scheduler_of(store)
    scheduler_of(other)
    assert (sent(hub, store), sent(hub, other)) == (plain(vote("a")), plain(vote("b")))
