"""Score variants: the log-likelihood of each choice after the prompt, and free answers, over one prompt cache.

Knows an engine's manager and token ids; knows no file and no page. Under `accelerate launch` the processes share the batches.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from bitune import distributed
from bitune.adapters.manager import AdapterManager
from bitune.data.encoding import prompt_ids
from bitune.data.examples import Example
from bitune.data.tokens import continuation_ids
from bitune.errors import DataError, PromptError
from bitune.model.decoding import PromptCache, generate, read_variants
from bitune.model.generation_config import before_end, eval_generation_config
from bitune.model.likelihoods import Likelihood, likelihoods, tokens_to_read
from bitune.model.limits import batches_by_length, check_one_side
from bitune.schema.variants import Variant

Result = TypeVar("Result")


@dataclass(frozen=True)
class Question:
    """A prompt and its choices as token ids; `label` is the index of the right one."""

    prompt_ids: Sequence[int]
    choices: Sequence[Sequence[int]]
    label: int = 0


def question(example: Example, tokenizer: PreTrainedTokenizerBase) -> Question:
    """A multiple-choice example as token ids, its choices as they stand in training, without the end token."""
    (prompt,) = prompt_ids([example.prompt], tokenizer)
    return Question(prompt, continuation_ids(example.prompt, example.choices, tokenizer), example.label)


def score(
    manager: AdapterManager,
    variants: Mapping[str, Variant],
    questions: Sequence[Question],
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[list[Likelihood]]]:
    """Log-likelihood of every choice, in float32 from the model's logits.

    All variants share the passes they have in common, all choices of a question its cache and what they begin with. Questions are
    taken in order of length, the longest first; the batches, and so the numbers, are the same over any number of processes.

    Args:
        manager: of the base that the variants run on.
        variants: what is scored, by name.
        questions: prompts and choices as token ids.
        batch_size: questions at a time.
        progress: called with the number of questions that were done since the last call.

    Returns:
        {variant: [question][choice]}.

    Raises:
        DataError: a question does not fit into the model's context, or it or a choice holds no token.
    """
    rows = list(variants.values())
    lengths, answers = [len(q.prompt_ids) for q in questions], [[len(choice) for choice in q.choices] for q in questions]
    _check_lengths(manager, lengths, answers, at_once=True)
    longest, behind = [max(of_one) for of_one in answers], [tokens_to_read(q.choices) for q in questions]
    return _in_batches(
        variants,
        batches_by_length(manager.layout, lengths, longest, batch_size, at_once=True, behind=behind),
        lambda batch: _score_batch(manager, rows, [questions[i] for i in batch]),
        progress,
    )


def answer(
    manager: AdapterManager,
    variants: Mapping[str, Variant],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
    *,
    ends: Sequence[int],
) -> dict[str, list[list[int]]]:
    """Greedy answers as token ids, up to and without the end token. Batches, processes and errors as in `score`.

    Args:
        manager: of the base that the variants run on.
        variants: what answers, by name.
        prompts: token ids.
        max_new_tokens: of each answer.
        batch_size: prompts at a time.
        progress: called with the number of prompts that were done since the last call.
        ends: the tokens that end an answer, as `generation_config.end_tokens` returns them.

    Returns:
        {variant: [prompt][token]}.
    """
    rows = list(variants.values())
    lengths = [len(prompt) for prompt in prompts]
    _check_lengths(manager, lengths, [[max_new_tokens]] * len(prompts), at_once=False)
    return _in_batches(
        variants,
        batches_by_length(manager.layout, lengths, [max_new_tokens] * len(prompts), batch_size),
        lambda batch: _answer_batch(manager, rows, [prompts[i] for i in batch], ends, max_new_tokens),
        progress,
    )


def _check_lengths(manager: AdapterManager, prompts: Sequence[int], answers: Sequence[Sequence[int]], *, at_once: bool) -> None:
    """DataError for an item, a prompt and its answers by their tokens, that this base cannot run. A given answer's last token is not read."""
    for number, (prompt, of_one) in enumerate(zip(prompts, answers, strict=True), 1):
        if not prompt or (at_once and 0 in of_one):
            empty = f"Choice {of_one.index(0) + 1}" if prompt else "The prompt"
            raise DataError(
                f"{empty} of item {number} of those to measure holds no token of this base's tokenizer; remove the item."
            )
        length = prompt + max(of_one) - at_once
        if length > manager.layout.context:
            raise DataError(
                f"Item {number} of those to measure needs {length:,} tokens and the model reads {manager.layout.context:,}; leave out long "
                "prompts (--max-prompt-tokens), or allow fewer new tokens (--max-new-tokens)."
            )
        try:
            check_one_side(manager.layout, [prompt] * len(of_one), of_one, at_once=at_once)
        except PromptError as error:
            raise DataError(f"Item {number} of those to measure cannot be run. {error}") from error


def _in_batches(
    names: Sequence[str] | Mapping[str, Variant],
    batches: Sequence[list[int]],
    work: Callable[[list[int]], list[list[Result]]],
    progress: Callable[[int], None],
) -> dict[str, list[Result]]:
    """{name: [prompt]} from `work(indices)`, which returns [name][index]; processes take turns in the batches."""
    done = []
    for batch in distributed.share(batches):
        with torch.no_grad():
            done.append((batch, work(batch)))
        progress(len(batch) * distributed.count())
    result: dict[str, list] = {name: [None] * sum(map(len, batches)) for name in names}
    for batch, by_name in distributed.gather(done):
        for name, values in zip(names, by_name, strict=True):
            for index, value in zip(batch, values, strict=True):
                result[name][index] = value
    return result


def _read(manager: AdapterManager, variants: Sequence[Variant], prompts: Sequence[Sequence[int]]) -> PromptCache:
    """A prompt cache with a row for each variant and prompt, in this order."""
    return read_variants(manager, prompts, [(variant, prompt) for variant in variants for prompt in range(len(prompts))])


def _by_variant(values: Sequence[Result], variants: int) -> list[list[Result]]:
    size = len(values) // variants
    return [list(values[v * size : (v + 1) * size]) for v in range(variants)]


def _score_batch(
    manager: AdapterManager, variants: Sequence[Variant], questions: Sequence[Question]
) -> list[list[list[Likelihood]]]:
    with manager.eval_turn():
        prompts = _read(manager, variants, [question.prompt_ids for question in questions])
        choices = [(row, choice) for row, at in enumerate(prompts.rows) for choice in questions[at.prompt].choices]
        values = likelihoods(prompts, [row for row, _ in choices], [choice for _, choice in choices])
    by_row: list[list[Likelihood]] = [[] for _ in prompts.rows]
    for (row, _), value in zip(choices, values, strict=True):
        by_row[row].append(value)
    return _by_variant(by_row, len(variants))


def _answer_batch(
    manager: AdapterManager,
    variants: Sequence[Variant],
    prompts: Sequence[Sequence[int]],
    ends: Sequence[int],
    max_new_tokens: int,
) -> list[list[list[int]]]:
    config = eval_generation_config(ends, max_new_tokens=max_new_tokens)
    with manager.eval_turn():
        read = _read(manager, variants, prompts)
        batches = generate(read, generation_config=config)
    answers: list[list[int]] = [[] for _ in read.rows]
    for rows, ids in batches:
        for row, tokens in zip(rows, ids[:, read.ids.shape[1] :].tolist(), strict=True):
            answers[row] = before_end(tokens, ends)
    return _by_variant(answers, len(variants))


def acc_prediction(scores: Sequence[Likelihood]) -> int:
    """What `acc` counts: the index of the choice with the highest log-likelihood, of equals the first, as in lm-eval."""
    return _best([score.sum for score in scores])


def acc_norm_prediction(scores: Sequence[Likelihood], choices: Sequence[str]) -> int:
    """What lm-eval's `acc_norm` counts: the choice with the highest log-likelihood per character of its text.

    Args:
        scores: of each choice.
        choices: their texts as they follow the prompt; the space between is no part of a choice.
    """
    return _best([score.sum / len(text.removeprefix(" ")) for score, text in zip(scores, choices, strict=True)])


def acc_token_prediction(scores: Sequence[Likelihood], choices: Sequence[Sequence[int]]) -> int:
    """What `acc_token` counts: the index of the choice with the highest log-likelihood per token."""
    return _best([score.sum / len(ids) for score, ids in zip(scores, choices, strict=True)])


def _best(values: Sequence[float]) -> int:
    if any(map(math.isnan, values)):
        raise DataError(
            "The log-likelihood of a choice is no number (nan), so nothing is the highest; take another --dtype if the base's numbers "
            "overflow in this one, or another checkpoint if its training diverged."
        )
    return max(range(len(values)), key=values.__getitem__)
