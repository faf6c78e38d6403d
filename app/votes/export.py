"""Votes as JSON Lines, exactly as they were given, and as CSV, for spreadsheets. Pure."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from io import StringIO

from app.votes.ballot import Vote
from bitune.sets.files import harmless

SAMPLING = ("max_new_tokens", "temperature", "top_p", "seed")
COLUMNS = (
    *(
        "run",
        "day",
        "base",
        "base_fingerprint",
        "template",
        *SAMPLING,
        "blind",
        "verdict",
        "place",
        "better",
        "variants",
        "kinds",
    ),
    *("fingerprints", "reasons", "prompt", "answers"),
)


def json_lines(votes: Iterable[Vote]) -> Iterator[str]:
    """A line a vote, all in ASCII."""
    for vote in votes:
        yield json.dumps(asdict(vote)) + "\n"


def csv_lines(votes: Iterable[Vote]) -> Iterator[str]:
    """A head, and a row a vote (RFC 4180); a list is JSON in its cell.

    Names, prompts and answers are of anybody, so their cells are `harmless`.
    """
    line = StringIO()
    writer = csv.DictWriter(line, COLUMNS)
    writer.writeheader()
    for vote in votes:
        yield _taken(line)
        writer.writerow({name: harmless(value) for name, value in row(vote).items()})
    yield _taken(line)


def _taken(line: StringIO) -> str:
    text = line.getvalue()
    line.seek(0)
    line.truncate()
    return text


def row(vote: Vote) -> dict[str, object]:
    """A vote as the cells of COLUMNS."""
    return {
        "run": vote.run,
        "day": vote.day,
        "base": vote.base.name,
        "base_fingerprint": vote.base.fingerprint,
        "template": vote.template,
        **{name: vote.sampling[name] for name in SAMPLING},
        "blind": vote.blind,
        "verdict": vote.verdict,
        "place": vote.place,
        "better": None if vote.place is None else vote.variants[vote.place].name,
        "variants": json.dumps([variant.name for variant in vote.variants]),
        "kinds": json.dumps([variant.kind for variant in vote.variants]),
        "fingerprints": json.dumps([variant.fingerprint for variant in vote.variants]),
        "reasons": json.dumps(vote.reasons),
        "prompt": vote.prompt,
        "answers": None if vote.answers is None else json.dumps(vote.answers),
    }
