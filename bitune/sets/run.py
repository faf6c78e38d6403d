"""All prompts of a set answered by several variants, a batch at a time: rows as they come. Knows an engine; knows no file."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from bitune.data.prompt_sets import SetPrompt
from bitune.errors import DataError
from bitune.evaluation.answers import same_answer
from bitune.inference.batch import answer_batch, batches, longest, requests_of
from bitune.inference.engine import Engine
from bitune.inference.request import NO_WHAT_IFS
from bitune.schema.results import Completion
from bitune.schema.variants import WhatIf
from bitune.sets.rows import Row, SetAnswer, SetSettings

BATCH_TOKENS = 16_384
"""Of the prompts of a batch together, padding included: what a forward over them holds in memory grows with it."""


@dataclass(frozen=True)
class Batch:
    """What is answered together: prompts by their places in the set, for one of the samples. `tokens`: of the longest prompt."""

    sample: int
    indices: tuple[int, ...]
    tokens: int


def planned(
    engine: Engine,
    prompts: Sequence[SetPrompt],
    variants: Sequence[str],
    settings: SetSettings,
    *,
    batch_size: int = 8,
    batch_tokens: int = BATCH_TOKENS,
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    done: Collection[tuple[int, int]] = (),
) -> list[Batch]:
    """The batches in which a set is answered: prompts of about one length together, the longest first, all samples of a batch in a row,
    as what was read is remembered.

    Args:
        prompts: the set.
        variants, what_ifs: as in `Engine.stream`.
        settings: how the prompts are asked.
        batch_size: prompts at a time.
        batch_tokens: of the prompts of a batch together.
        done: keys of rows that are there already; the other rows come in the same batches without them.

    Raises:
        DataError: the set is empty.
        PromptError, ConfigError, UnknownNameError: a prompt cannot be asked, which is named by its number in the set.
    """
    if not prompts:
        raise DataError("The set holds no prompt; give at least one.")
    requests = requests_of(engine, [one.prompt for one in prompts], variants, settings.template, what_ifs)
    found, done = [], set(done)
    for indices in batches(engine, requests, settings.max_new_tokens, batch_size, batch_tokens):
        for sample in range(settings.samples):
            left = tuple(index for index in indices if (index, sample) not in done)
            if left:
                found.append(Batch(sample, left, max(longest(requests[index]) for index in left)))
    return found


def answer_set(
    engine: Engine,
    prompts: Sequence[SetPrompt],
    variants: Sequence[str],
    settings: SetSettings,
    *,
    batch_size: int = 8,
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    done: Collection[tuple[int, int]] = (),
) -> Iterator[list[Row]]:
    """The rows of a set, a batch at a time; each answer is the one that `Engine.stream` gives to its prompt alone.

    Arguments and errors as in `planned`, which raises before anything runs. Closing the iterator ends it between two batches; within
    one it is stopped as `answer_batch` is.
    """
    plan = planned(engine, prompts, variants, settings, batch_size=batch_size, what_ifs=what_ifs, done=done)
    return (run_batch(engine, prompts, variants, settings, batch, what_ifs) for batch in plan)


def run_batch(
    engine: Engine,
    prompts: Sequence[SetPrompt],
    variants: Sequence[str],
    settings: SetSettings,
    batch: Batch,
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
) -> list[Row]:
    """The rows of one batch."""
    asked = [prompts[index] for index in batch.indices]
    how = {"template": settings.template, "what_ifs": what_ifs, **settings.of_sample(batch.sample)}
    answers = answer_batch(engine, [one.prompt for one in asked], variants, **how)
    return rows_of(batch, asked, answers)


def rows_of(batch: Batch, asked: Sequence[SetPrompt], answers: Sequence[Mapping[str, Completion]]) -> list[Row]:
    """The answers to the prompts of a batch as rows."""
    return [
        Row(
            index,
            batch.sample,
            one.prompt,
            one.right,
            {name: _answer(completion, one.right) for name, completion in of_one.items()},
        )
        for index, one, of_one in zip(batch.indices, asked, answers, strict=True)
    ]


def set_facts(engine: Engine, variants: Sequence[str], prompts: Sequence[SetPrompt], settings: SetSettings) -> dict[str, object]:
    """What makes the rows of a set, as plain JSON values for the head of their file: rows of other facts do not belong beside them."""
    base, checkpoints = engine.base_facts, engine.checkpoints
    return {
        "prompts": len(prompts),
        "prompts_sha256": _digest([asdict(one) for one in prompts]),
        "base": base.name,
        "base_fingerprint": _digest(engine.manager.fingerprint)[:12],
        "dtype": base.dtype,
        "variants": {name: checkpoints[name].fingerprint if name in checkpoints else None for name in variants},
        **asdict(settings),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _answer(completion: Completion, right: str | None) -> SetAnswer:
    is_right = None if right is None else same_answer(completion.text, right)
    return SetAnswer(completion.text, completion.tokens, completion.finish_reason, is_right)
