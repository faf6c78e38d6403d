"""What a vote says of the base, the checkpoints and the what-ifs that answered: names, and fingerprints by which they are known again."""

import hashlib
import json

from app.ui.what_ifs import label, read
from app.votes.ballot import Ballot, Candidate
from bitune.errors import UnknownNameError
from bitune.schema.variants import WhatIf

DIGITS = 16  # of a fingerprint, hexadecimal


def base_candidate(engine) -> Candidate:
    """The base: by the sha256 of its file where it is one, else by some of its weights."""
    from bitune.model.identity import describe  # imports torch, and the page opens before that

    base = describe(engine.base)
    return Candidate(base.id, "base", base.sha256[:DIGITS] if base.sha256 else digest(base.fingerprint))


def candidates(engine, ballot: Ballot) -> tuple[Candidate, ...]:
    """The variants of a run in the order of its columns."""
    what_ifs = read(ballot.what_ifs)
    return tuple(of_what_if(engine, what_ifs[name]) if name in what_ifs else of_variant(engine, name) for name in ballot.answers)


def of_variant(engine, name: str) -> Candidate:
    """The base alone, or a checkpoint."""
    checkpoint = engine.checkpoints.get(name)
    if checkpoint is None and name not in engine.variants:
        raise UnknownNameError("variant", name, engine.variants)  # it was unloaded since it answered
    return Candidate(name, "base") if checkpoint is None else Candidate(name, "checkpoint", checkpoint.fingerprint[:DIGITS])


def of_what_if(engine, question: WhatIf) -> Candidate:
    """A what-if by the page's words for its ratios: its own name may be any text, of whoever made a link."""
    words = label(question.mixing, engine.mixing(question.of))
    known = [of_variant(engine, question.of).fingerprint, list(question.mixing.keys), list(question.mixing.values)]
    return Candidate(f"{question.of}: {words}", "what-if", digest(known))


def digest(value: object) -> str:
    """The first digits of the sha256 of a plain value; "" of an empty one, which says nothing."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:DIGITS] if value else ""
