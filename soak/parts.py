"""The parts of the soak test. Each starts an app of its own, does one thing to it, and returns figures as plain JSON."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import httpx

from app.votes.store import VoteStore
from soak.app import App, started
from soak.client import Reply, call
from soak.session import Session
from soak.visitors import ask_often, client_of, visit

EXIT_SECONDS = 10  # at most, after SIGTERM
GROWTH = 0.05  # of memory, after the first fifth of the requests
VOTERS, VOTES = 3, 6  # at once; thanks until the app is killed
VOTING_SECONDS = 300  # at most, for a page that says no thanks
LONG = "Tell me everything that you know about the sea. " * 8


@dataclass(frozen=True)
class Plan:
    """How long and how hard.

    Attributes:
        flags: Of `app.py`: base, checkpoints.
        tokens: Of a longer answer.
        pause: Most seconds between two requests of a visitor.
        room: Megabytes that are left to an app whose memory is nearly full, too few for `crowded` tokens of prompt.
    """

    flags: tuple[object, ...] = ()
    visitors: int = 50
    minutes: float = 10
    requests: int = 500
    tokens: int = 32
    pause: float = 20
    room: int = 64
    crowded: int = 1500


@contextmanager
def _app(plan: Plan) -> Iterator[App]:
    with tempfile.TemporaryDirectory(prefix="bitune-soak-") as folder, started(Path(folder) / "app.log", plan.flags) as app:
        yield app


def _ask(app: App, endpoint: str, **arguments: object) -> Reply:
    async def once() -> Reply:
        async with client_of(app.url, 0) as client:
            return await call(client, endpoint, arguments, 120)

    return asyncio.run(once())


def visitors(plan: Plan) -> dict[str, object]:
    """Many visitors for minutes; none may see what another has asked, and every request ends."""
    with _app(plan) as app:
        tally = asyncio.run(visit(app.url, plan.visitors, seconds=60 * plan.minutes, tokens=plan.tokens, pause=plan.pause))
        started_at = time.monotonic()
        opens = httpx.get(app.url, timeout=60).status_code == 200
        figures = {"page opens afterwards in seconds": round(time.monotonic() - started_at, 1), "threads": app.threads()}
    ok = opens and not tally.unanswered and not tally.mixed_up and tally.answered.total() > 0
    return {"visitors": plan.visitors, "minutes": plan.minutes, **tally.figures(), **figures, "ok": ok}


def memory(plan: Plan) -> dict[str, object]:
    """Many requests; after the first fifth of them memory stays as it is, by the medians of what was measured after each."""
    measured: list[float] = []
    with _app(plan) as app:

        def note(_: int) -> None:
            measured.append(app.megabytes())

        tally = asyncio.run(ask_often(app.url, plan.requests, tokens=plan.tokens, at_once=4, after_each=note))
    fifth = len(measured) // 5
    first = statistics.median(measured[fifth : fifth + max(fifth // 2, 1)])
    last = statistics.median(measured[-max(fifth, 1) :])
    growth = last / first - 1
    figures = {"megabytes after a fifth": round(first), "megabytes at the end": round(last), "growth": round(growth, 3)}
    return {**tally.figures(), **figures, "ok": growth < GROWTH and not tally.unanswered and not tally.mixed_up}


def shortage(plan: Plan) -> dict[str, object]:
    """The device is out of memory: that request gets a sentence that says so, and the next one works."""
    with _app(plan) as app:
        before = _ask(app, "compare", prompt="Hello.", max_new_tokens=4)
        with app.room(plan.room):
            refused = _ask(app, "compare", prompt="word " * plan.crowded, max_new_tokens=4)
            small = _ask(app, "compare", prompt="Hello.", variants=["base"], max_new_tokens=4)
        after = _ask(app, "compare", prompt="Hello.", max_new_tokens=4)
        alive = app.process.poll() is None
    same = before.value is not None and after.value is not None
    same = same and all(
        after.value["completions"][name]["text"] == one["text"] for name, one in before.value["completions"].items()
    )
    said = refused.answered and refused.value is None and "memory" in refused.words
    ok = alive and same and said
    return {
        "refused with": refused.words,
        "a small one meanwhile": small.words or "answered",
        "same answer after it": same,
        "ok": ok,
    }


def ending(plan: Plan) -> dict[str, object]:
    """SIGTERM while answers are written: each of them gets its end, and the process is gone within EXIT_SECONDS."""

    async def while_it_runs(app: App) -> tuple[list[Reply], float]:
        async def ask(number: int) -> Reply:
            async with client_of(app.url, number) as client:
                return await call(client, "compare", {"prompt": f"{LONG} marker{number}x", "max_new_tokens": 400}, 60)

        asked = [asyncio.create_task(ask(number)) for number in range(3)]
        await asyncio.sleep(3)
        taken = await asyncio.to_thread(app.end)
        return await asyncio.gather(*asked), taken

    with _app(plan) as app:
        replies, taken = asyncio.run(while_it_runs(app))
        status = app.process.returncode
    ended = sum(reply.answered for reply in replies)
    ok = ended == len(replies) and taken <= EXIT_SECONDS and status == 0
    words = sorted({reply.words for reply in replies if reply.words})
    return {
        "answers that got their end": f"{ended} of {len(replies)}",
        "words": words,
        "seconds": round(taken, 1),
        "status": status,
        "ok": ok,
    }


def voting(plan: Plan) -> dict[str, object]:
    """kill -9 while visitors vote: what the page has said thanks for is in the file."""
    with tempfile.TemporaryDirectory(prefix="bitune-soak-") as folder:
        file, thanked = Path(folder) / "votes.sqlite3", []
        with started(Path(folder) / "app.log", [*plan.flags, "--votes", file]) as app:
            voters = [Thread(target=vote_until_killed, args=(app, thanked)) for _ in range(VOTERS)]
            for each in voters:
                each.start()
            for each in voters:
                each.join()
        kept = {vote.run for vote in VoteStore(file).votes()}
    lost = set(thanked) - kept
    figures = {"thanked for": len(thanked), "kept": len(kept), "lost": len(lost)}
    return {**figures, "ok": len(thanked) >= VOTES and not lost and len(kept) <= len(thanked) + VOTERS}


def vote_until_killed(app: App, thanked: list[str]) -> None:
    """Run and vote until the app is gone, for VOTING_SECONDS at most; who has the last thanks that are needed kills it, while the others
    go on."""
    end = time.monotonic() + VOTING_SECONDS
    with suppress(httpx.HTTPError):
        session = Session(f"{app.url}/")
        while time.monotonic() < end:
            session.run(blind=True)
            run = session.values[session.run_id]
            if "Thanks" in session.vote("0"):
                thanked.append(run)
            if len(thanked) >= VOTES:  # another may have had thanks since the line above
                app.process.kill()


PARTS: Mapping[str, Callable[[Plan], dict[str, object]]] = MappingProxyType(
    {"visitors": visitors, "memory": memory, "shortage": shortage, "ending": ending, "voting": voting}
)
