"""The app killed while visitors vote: what it said thanks for is in the file."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

import httpx

from app.votes.store import VoteStore
from tests.app.test_server import start
from soak.session import Session
from tests.browser.served import tiny_folders

VISITORS, ENOUGH = 3, 6


def test_kill_9_of_the_app_loses_no_vote_that_was_thanked_for(tmp_path):
    folder, file = tiny_folders(tmp_path), tmp_path / "votes.sqlite3"
    app = start("--base", f"{folder}/base", "--checkpoint", f"{folder}/bitune", "--port", "0", "--votes", str(file))
    try:
        address = next(line.split()[-1] for line in iter(app.stdout.readline, "") if "Running on local URL" in line) + "/"
        thanked: list[str] = []
        visitors = [
            Thread(target=visitor, args=(address, thanked, lambda: os.kill(app.pid, signal.SIGKILL))) for _ in range(VISITORS)
        ]
        for each in visitors:
            each.start()
        for each in visitors:
            each.join(180)
        assert app.wait(60) == -signal.SIGKILL
    finally:
        app.kill()
        app.communicate()
    kept = {vote.run for vote in VoteStore(file).votes()}
    assert len(thanked) >= ENOUGH
    assert set(thanked) <= kept, "a vote that was thanked for is gone"
    assert len(kept) <= len(thanked) + VISITORS


def visitor(address: str, thanked: list[str], kill: Callable[[], None]) -> None:
    """Run and vote until the app is gone; who has the last thanks that are needed kills it."""
    with suppress(httpx.HTTPError):
        session = Session(address)
        while True:
            session.run(blind=True)
            run = session.values[session.run_id]
            if "Thanks" in session.vote("0"):
                thanked.append(run)
            if len(thanked) == ENOUGH:
                kill()
