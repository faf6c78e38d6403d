"""Votes to test with, and a process that gives them: `python -m tests.app.votes.votes FILE PREFIX [NUMBER]` says each run that is kept."""

import sys
import time
from itertools import count, islice
from pathlib import Path

from app.votes.ballot import Candidate, Vote
from app.votes.store import VoteStore

BASE = Candidate("tiny", "base", "b0")
LORA = Candidate("lora", "checkpoint", "c1")
BITUNE = Candidate("bitune", "checkpoint", "c2")
SAMPLING = {"max_new_tokens": 64, "temperature": 0.0, "top_p": 1.0, "seed": 2**63 - 1}


def vote(run: str = "a", place: int | None = 0, verdict: str = "better", **changes: object) -> Vote:
    """A vote between Bitune, in the first column, and LoRA."""
    values = {"variants": (BITUNE, LORA), "blind": True, "reasons": ("clear",), **changes}
    return Vote(run=run, day="2026-11-26", base=BASE, template="own", sampling=SAMPLING, verdict=verdict, place=place, **values)


def main(file: str, prefix: str, number: str = "") -> None:
    """Vote for ever, or as often as is said."""
    store = VoteStore(Path(file))
    for index in islice(count(), int(number) if number else None):
        store.add(vote(f"{prefix}-{index}", prompt="p" * 3000))
        print(f"{prefix}-{index}", flush=True)
        time.sleep(0.02)  # no visitor votes again at once, and SQLite would let nobody else in


if __name__ == "__main__":
    main(*sys.argv[1:])
