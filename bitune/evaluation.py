"""Score variants on multiple choice: the log-likelihood of each choice after the prompt, one prompt cache for all choices.

Knows an engine's host and token pairs; knows no file and no page.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, PreTrainedTokenizerBase

from bitune.adapters import AdapterHost
from bitune.data import Example, continuation_ids
from bitune.mixing import take_rows
from bitune.prefill import Row, prefill
from bitune.prompts import pad_left
from bitune.support import position_input
from bitune.variants import Variant


@dataclass(frozen=True)
class Question:
    """A prompt and its choices as token ids; `label` is the index of the right one."""

    prompt_ids: Sequence[int]
    choices: Sequence[Sequence[int]]
    label: int


def question(example: Example, tokenizer: PreTrainedTokenizerBase) -> Question:
    """A multiple-choice example as token ids, its choices as they stand in training, without the end token."""
    return Question(
        tokenizer(example.prompt).input_ids, continuation_ids(example.prompt, example.choices, tokenizer), example.label
    )


@dataclass(frozen=True)
class Accuracy:
    """Share of questions whose right choice got the highest log-likelihood: by its sum, and by its mean a token."""

    questions: int
    by_sum: float
    by_mean: float


@torch.no_grad()
def score(
    host: AdapterHost,
    variants: Mapping[str, Variant],
    questions: Sequence[Question],
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[list[float]]]:
    """Log-likelihood of every choice: {variant: [question][choice]}, sums over the choice's tokens, in float32.

    All variants share the passes they have in common. Questions are taken in order of length, `batch_size` at a time.
    """
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt_ids))
    result: dict[str, list] = {name: [None] * len(questions) for name in variants}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        scores = _score_batch(host, list(variants.values()), [questions[i] for i in batch])
        for name, rows in zip(variants, scores, strict=True):
            for index, row in zip(batch, rows, strict=True):
                result[name][index] = row
        progress(len(batch))
    return result


def _score_batch(host: AdapterHost, variants: Sequence[Variant], questions: Sequence[Question]) -> list[list[list[float]]]:
    device = host.model.get_input_embeddings().weight.device
    ids, mask = pad_left([q.prompt_ids for q in questions], 0, device)
    rows = [Row.of(variant, prompt) for variant in variants for prompt in range(len(questions))]
    cache = prefill(host, ids, mask, rows)
    # One row a choice: (row of the cache, prompt, token ids of the choice).
    wanted = [(r, row.prompt, choice) for r, row in enumerate(rows) for choice in questions[row.prompt].choices]
    adapters = [variants[r // len(questions)].answer_adapter for r, _, _ in wanted]
    sums: list[float] = [0.0] * len(wanted)
    for batch, values in host.run(adapters, lambda b: _score_choices(host, cache, ids, mask, [wanted[i] for i in b])):
        for index, value in zip(batch, values, strict=True):
            sums[index] = value
    by_row: list[list[float]] = [[] for _ in rows]
    for (row, _, _), value in zip(wanted, sums, strict=True):
        by_row[row].append(value)
    return [by_row[v * len(questions) : (v + 1) * len(questions)] for v in range(len(variants))]


def _score_choices(host: AdapterHost, cache: Cache, ids: Tensor, mask: Tensor, wanted: Sequence[tuple]) -> list[float]:
    """Sum of log-probabilities of each choice after its prompt's last token, on its own copy of the prompt's cache row."""
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
    placed = position_input(host.model, full, inputs.shape[1])
    rows = torch.tensor([row for row, _, _ in wanted])
    own = take_rows(cache, rows)
    logits = host.model(input_ids=inputs, attention_mask=full, past_key_values=own, use_cache=True, **placed).logits
    chosen = logits.float().log_softmax(-1).gather(-1, answers[..., None])[..., 0]
    return (chosen * real).sum(-1).tolist()


def accuracy(questions: Sequence[Question], scores: Sequence[Sequence[float]]) -> Accuracy:
    """Accuracy of one variant's `scores` [question][choice]."""
    right_sum = right_mean = 0
    for question, row in zip(questions, scores, strict=True):
        means = [value / len(choice) for value, choice in zip(row, question.choices, strict=True)]
        right_sum += row.index(max(row)) == question.label
        right_mean += means.index(max(means)) == question.label
    return Accuracy(len(questions), right_sum / len(questions), right_mean / len(questions))
