"""Score variants: the log-likelihood of each choice after the prompt, and free answers, over one prompt cache.

Knows an engine's manager and token ids; knows no file and no page. Under `accelerate launch` the processes share the batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import Cache, PreTrainedTokenizerBase

from bitune import distributed
from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_left
from bitune.data.examples import Example
from bitune.data.tokens import continuation_ids
from bitune.errors import DataError
from bitune.inference.generation import before_end, eval_generation_config
from bitune.model.prefill import Row, prefill
from bitune.modeling.cache import take_rows
from bitune.modeling.interface import cache_input, position_input
from bitune.schema.variants import Variant

Result = TypeVar("Result")


@dataclass(frozen=True)
class Question:
    """A prompt and its choices as token ids; `label` is the index of the right one."""

    prompt_ids: Sequence[int]
    choices: Sequence[Sequence[int]]
    label: int = 0


class Likelihood(NamedTuple):
    """Of one choice: the sum of its tokens' log-probabilities, and whether greedy decoding would say just these tokens."""

    sum: float
    greedy: bool


def question(example: Example, tokenizer: PreTrainedTokenizerBase) -> Question:
    """A multiple-choice example as token ids, its choices as they stand in training, without the end token."""
    return Question(
        tokenizer(example.prompt).input_ids, continuation_ids(example.prompt, example.choices, tokenizer), example.label
    )


def score(
    manager: AdapterManager,
    variants: Mapping[str, Variant],
    questions: Sequence[Question],
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[list[Likelihood]]]:
    """Log-likelihood of every choice: {variant: [question][choice]}, in float32 from the model's logits.

    All variants share the passes they have in common, all choices of a question its cache. Questions are taken in order of
    length, the longest first, `batch_size` at a time; the batches, and so the numbers, are the same over any number of processes.
    DataError for a question that does not fit into the model's context.
    """
    rows = list(variants.values())
    _check_room(manager, [len(q.prompt_ids) + max(map(len, q.choices)) - 1 for q in questions])
    return _in_batches(
        variants,
        [q.prompt_ids for q in questions],
        batch_size,
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
    """Greedy answers as token ids, up to and without the end token: {variant: [prompt]}. Batches and errors as in `score`.

    `ends`: the tokens that end an answer, as generation.end_tokens tells.
    """
    rows = list(variants.values())
    _check_room(manager, [len(prompt) + max_new_tokens for prompt in prompts])
    return _in_batches(
        variants,
        prompts,
        batch_size,
        lambda batch: _answer_batch(manager, rows, [prompts[i] for i in batch], ends, max_new_tokens),
        progress,
    )


def _check_room(manager: AdapterManager, lengths: Sequence[int]) -> None:
    context = manager.model.config.get_text_config(decoder=True).max_position_embeddings
    for place, length in enumerate(lengths, 1):
        if length > context:
            raise DataError(
                f"Item {place} of those to measure needs {length:,} tokens and the model reads {context:,}; leave out long prompts "
                "(--max-prompt-tokens), or allow fewer new tokens (--max-new-tokens)."
            )


def _in_batches(
    names: Sequence[str] | Mapping[str, Variant],
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    work: Callable[[list[int]], list[list[Result]]],
    progress: Callable[[int], None],
) -> dict[str, list[Result]]:
    """{name: [prompt]} from `work(indices)`, which returns [name][index]; processes take turns in the batches."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # what does not fit into memory is seen at once
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    done = []
    for batch in distributed.share(batches):
        with torch.no_grad():
            done.append((batch, work(batch)))
        progress(len(batch) * distributed.count())
    result: dict[str, list] = {name: [None] * len(prompts) for name in names}
    for batch, by_name in distributed.gather(done):
        for name, values in zip(names, by_name, strict=True):
            for index, value in zip(batch, values, strict=True):
                result[name][index] = value
    return result


def _read(
    manager: AdapterManager, variants: Sequence[Variant], prompts: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Cache, list[Row]]:
    """Ids and mask of the prompts [prompts, longest], and a cache with a row for each variant and prompt, in this order."""
    ids, mask = pad_left(prompts, 0, manager.model.get_input_embeddings().weight.device)
    rows = [Row.of(variant, prompt) for variant in variants for prompt in range(len(prompts))]
    return ids, mask, prefill(manager, ids, mask, rows), rows


def _by_variant(values: Sequence[Result], variants: int) -> list[list[Result]]:
    size = len(values) // variants
    return [list(values[v * size : (v + 1) * size]) for v in range(variants)]


def _score_batch(
    manager: AdapterManager, variants: Sequence[Variant], questions: Sequence[Question]
) -> list[list[list[Likelihood]]]:
    ids, mask, cache, rows = _read(manager, variants, [q.prompt_ids for q in questions])
    # One row a choice: (row of the cache, prompt, token ids of the choice).
    wanted = [(r, row.prompt, choice) for r, row in enumerate(rows) for choice in questions[row.prompt].choices]
    adapters = [variants[r // len(questions)].answer_adapter for r, _, _ in wanted]
    found: list[Likelihood | None] = [None] * len(wanted)
    for batch, values in manager.run(adapters, lambda b: _score_choices(manager, cache, ids, mask, [wanted[i] for i in b])):
        for index, value in zip(batch, values, strict=True):
            found[index] = value
    by_row: list[list[Likelihood]] = [[] for _ in rows]
    for (row, _, _), value in zip(wanted, found, strict=True):
        by_row[row].append(value)
    return _by_variant(by_row, len(variants))


def _score_choices(manager: AdapterManager, cache: Cache, ids: Tensor, mask: Tensor, wanted: Sequence[tuple]) -> list[Likelihood]:
    """Likelihood of each choice after its prompt's last token, on its own copy of the prompt's cache row."""
    longest = max(len(choice) for _, _, choice in wanted)
    answers = torch.zeros((len(wanted), longest), dtype=torch.long)
    real = torch.zeros_like(answers)
    for i, (_, _, choice) in enumerate(wanted):
        answers[i, : len(choice)] = torch.tensor(choice)
        real[i, : len(choice)] = 1
    answers, real = answers.to(ids.device), real.to(ids.device)
    prompts = torch.tensor([prompt for _, prompt, _ in wanted], device=ids.device)
    inputs = torch.cat([ids[prompts, -1:], answers[:, :-1]], dim=1)
    full = torch.cat([mask[prompts], real[:, :-1]], dim=1)
    placed = position_input(manager.model, full, inputs.shape[1])
    rows = torch.tensor([row for row, _, _ in wanted])
    own = take_rows(cache, rows)
    logits = manager.model(input_ids=inputs, attention_mask=full, use_cache=True, **cache_input(own), **placed).logits
    chosen = logits.float().log_softmax(-1).gather(-1, answers[..., None])[..., 0]
    greedy = ((logits.argmax(-1) == answers) | (real == 0)).all(-1)
    return [Likelihood(*pair) for pair in zip((chosen * real).sum(-1).tolist(), greedy.tolist(), strict=True)]


def _answer_batch(
    manager: AdapterManager,
    variants: Sequence[Variant],
    prompts: Sequence[Sequence[int]],
    ends: Sequence[int],
    max_new_tokens: int,
) -> list[list[list[int]]]:
    ids, mask, cache, rows = _read(manager, variants, prompts)
    config = eval_generation_config(ends, max_new_tokens=max_new_tokens)
    answers: list[list[int]] = [[] for _ in rows]

    def decode(batch: list[int]) -> None:
        here = torch.tensor([rows[i].prompt for i in batch], device=ids.device)
        own = take_rows(cache, torch.tensor(batch))
        whole = manager.model.generate(ids[here], attention_mask=mask[here], generation_config=config, **cache_input(own))
        for i, tokens in zip(batch, whole[:, ids.shape[1] :].tolist(), strict=True):
            answers[i] = before_end(tokens, ends)

    manager.run([variants[i // len(prompts)].answer_adapter for i in range(len(rows))], decode)
    return _by_variant(answers, len(variants))


def by_sum(scores: Sequence[Likelihood]) -> int:
    """Index of the choice with the highest log-likelihood."""
    return max(range(len(scores)), key=lambda i: scores[i].sum)


def by_mean(scores: Sequence[Likelihood], choices: Sequence[Sequence[int]]) -> int:
    """Index of the choice with the highest log-likelihood a token."""
    return max(range(len(scores)), key=lambda i: scores[i].sum / len(choices[i]))
