"""What a vote is: which answer of a run somebody found better, and what made these answers. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["base", "checkpoint", "what-if"]
Verdict = Literal["better", "tie", "bad"]

# What may have decided, as it is stored -> as it is asked.
REASONS = {
    "correct": "More correct",
    "asked": "Does what was asked",
    "complete": "More complete",
    "clear": "Clearer",
    "concise": "Says it once, without repetition",
}


@dataclass(frozen=True)
class Candidate:
    """A variant as a vote names it, so that it is known again on another machine.

    `name`: of the base or the checkpoint; of a what-if what was changed at which checkpoint, in the page's words and never in a
    visitor's. `fingerprint`: of its weights, for a what-if of its ratios too; "" where it is not known.
    """

    name: str
    kind: Kind
    fingerprint: str = ""


@dataclass(frozen=True)
class Ballot:
    """A finished run whose answers can be judged, once.

    `answers`: text by name of the variant, in the order of the columns. `blind`: the names are hidden until the vote. `sampling`:
    max_new_tokens, temperature, top_p and seed. `what_ifs`: those of the request, as plain values.
    """

    run: str
    prompt: str
    template: str
    sampling: Mapping[str, float]
    answers: Mapping[str, str]
    blind: bool
    what_ifs: Mapping[str, Mapping] = field(default_factory=dict)


@dataclass(frozen=True)
class Vote:
    """One judgement of one run.

    `day`: of the vote, UTC, as 2026-11-26; no time, so that no log of addresses leads to it. `variants`: in the order of the columns.
    `place`: of the better one among them, from 0, where the verdict is `better`; else None. `prompt`, `answers`: only where the
    visitor let them be kept.
    """

    run: str
    day: str
    base: Candidate
    template: str
    sampling: Mapping[str, float]
    blind: bool
    variants: tuple[Candidate, ...]
    verdict: Verdict
    place: int | None
    reasons: tuple[str, ...] = ()
    prompt: str | None = None
    answers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Count:
    """How many votes there are of one kind: on one base, over the same columns, with the same outcome."""

    base: Candidate
    blind: bool
    variants: tuple[Candidate, ...]
    verdict: Verdict
    place: int | None
    votes: int
