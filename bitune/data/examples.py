"""Records -> prompt and answer texts -> token ids -> batches. From JSON Lines files or the Hub. Knows tokenizers; knows no model.

One record a line, in one of three shapes: a question with `choices` and the `label` of the right one; a question with an
`answer`; a complete `prompt` with an `answer`. The prompt texts are those of Bitune (arXiv 2405.14862).
"""

import os
import random
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from bitune.data.batches import TokenPair, cut_left
from bitune.data.records import load_records
from bitune.errors import ConfigError, DataError


@dataclass(frozen=True)
class Example:
    """What the model reads and what it should answer, as text. The end token follows as a token, not as text.

    `choices` are all possible answers in the very form of `answer`, so that `choices[label] == answer`; None with an open answer.
    """

    task: str
    prompt: str
    answer: str
    choices: tuple[str, ...] | None = None
    label: int | None = None


@dataclass(frozen=True)
class Tokenized:
    """Token pairs of those examples whose answer fits: `examples[i]` became `pairs[i]`; the others are counted in `dropped`."""

    examples: list[Example]
    pairs: list[TokenPair]
    dropped: int

    @property
    def cut(self) -> int:
        """How many prompts lost their beginning."""
        return sum(pair.prompt_cut for pair in self.pairs)


def load_examples(source: str | os.PathLike, split: str | None = None) -> list[Example]:
    """The examples of a JSON Lines file or of a Hub data set `id` or `id:config`; see `bitune.data.records.load_records`."""
    return [example_of(record) for record in load_records(source, split)]


def split_of(source: str | os.PathLike, hub_split: str) -> str | None:
    """Which split to ask `load_examples` for where only one part is wanted: a file is that part, a Hub data set has it by name."""
    return None if Path(source).expanduser().is_file() else hub_split


def example_of(record: dict) -> Example:
    """The texts of one record as `load_records` returns it."""
    if "prompt" in record:
        return Example(record["task"], record["prompt"], joined(record["prompt"], record["answer"]))
    if "choices" not in record:
        prompt = f"Question: {record['question']}\n\nAnswer:"
        return Example(record["task"], prompt, joined(prompt, record["answer"]))
    listed = "\n".join(record["choices"])
    prompt = f"Question: {record['question']}\n\nChoices:\n{listed}\n\nAnswer:"
    choices = tuple(joined(prompt, choice) for choice in record["choices"])
    return Example(record["task"], prompt, choices[record["label"]], choices, record["label"])


def joined(prompt: str, answer: str) -> str:
    """The answer as it follows the prompt: after a space, unless the prompt ends in white space or the answer begins with it.

    The space belongs to the answer because a tokenizer reads it as the beginning of the next word.
    """
    return answer if prompt[-1:].isspace() or answer[:1].isspace() else " " + answer


def tokenize(
    example: Example, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int, max_answer_tokens: int
) -> TokenPair | None:
    """Token ids of one example; see `tokenize_all`. None if its answer is too long."""
    return next(iter(tokenize_all([example], tokenizer, max_prompt_tokens, max_answer_tokens).pairs), None)


def tokenize_all(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int, max_answer_tokens: int
) -> Tokenized:
    """Token ids of many examples, in order.

    A prompt longer than `max_prompt_tokens` loses its beginning but keeps its BOS token: the question stands at its end.
    An example whose answer is longer than `max_answer_tokens`, end token included, is dropped: a cut answer would teach the
    model to stop in the middle, or nowhere. Raises ConfigError for a limit below 1, DataError without an end token.
    """
    if max_prompt_tokens < 1 or max_answer_tokens < 1:
        raise ConfigError(
            f"Prompts of {max_prompt_tokens} and answers of {max_answer_tokens} tokens are no limits; use 1 or more."
        )
    if tokenizer.eos_token_id is None:
        raise DataError(f"The tokenizer {tokenizer.name_or_path!r} has no end token, so no answer could end; set its eos_token.")
    if not examples:
        return Tokenized([], [], 0)
    prompts = tokenizer([e.prompt for e in examples]).input_ids
    answers = _answer_ids(examples, prompts, tokenizer)
    kept, pairs = [], []
    for example, prompt_ids, answer_ids in zip(examples, prompts, answers, strict=True):
        answer_ids = [*answer_ids, tokenizer.eos_token_id]
        if not prompt_ids:
            raise DataError(f"A prompt of task {example.task!r} holds no token: {example.prompt!r}; remove the record.")
        if len(answer_ids) <= max_answer_tokens:
            kept.append(example)
            short = cut_left(prompt_ids, max_prompt_tokens, tokenizer.bos_token_id)
            pairs.append(TokenPair(short, answer_ids, prompt_cut=len(short) < len(prompt_ids)))
    return Tokenized(kept, pairs, dropped=len(examples) - len(kept))


def fitting(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int | None) -> list[Example]:
    """The examples whose prompts have at most so many tokens, in order; all of them for None."""
    if max_prompt_tokens is None or not examples:
        return list(examples)
    lengths = map(len, tokenizer([example.prompt for example in examples]).input_ids)
    return [example for example, length in zip(examples, lengths, strict=True) if length <= max_prompt_tokens]


def to_measure(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int | None = None,
    max_answer_tokens: int | None = None,
    limit: int | None = None,
    seen: Collection[tuple[str, ...]] = (),
) -> list[Example]:
    """What an evaluation is over: the first `limit` examples whose prompts fit, less those whose answers do not.

    An answer's length counts its end token, as in `tokenize_all`. None: no limit. `seen`: what was trained on, as `content_of` its
    prompts, which is left out too, last of all.
    """
    kept = fitting(examples, tokenizer, max_prompt_tokens)[:limit]
    if max_answer_tokens is not None:
        kept = tokenize_all(kept, tokenizer, sys.maxsize, max_answer_tokens).examples
    return [example for example in kept if content_of(example.prompt) not in seen]


def content_of(prompt: str) -> tuple[str, ...]:
    """What a prompt says but for case, white space and the order of its lines: a question with its choices in another order is the same."""
    return tuple(sorted(" ".join(line.split()).casefold() for line in prompt.splitlines() if line.strip()))


def continuation_ids(prompt: str, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of several answers to one prompt, as in training but without the end token: to score choices."""
    examples = [Example("", prompt, answer) for answer in answers]
    return _answer_ids(examples, tokenizer([prompt] * len(examples)).input_ids, tokenizer)


def _answer_ids(examples: Sequence[Example], prompts: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The answers' tokens, without special tokens, as they come after their prompts' tokens.

    Read from prompt and answer tokenized together, because a SentencePiece tokenizer puts a space of its own before a text
    that stands alone. Where a token would cross the border, the answer is tokenized alone: the model reads the prompt alone too.
    """
    whole = tokenizer([e.prompt + e.answer for e in examples]).input_ids
    alone = tokenizer([e.answer for e in examples], add_special_tokens=False).input_ids
    rows = zip(prompts, whole, alone, strict=True)
    return [ids[len(prompt) :] if ids[: len(prompt)] == prompt else answer for prompt, ids, answer in rows]


def split_validation(examples: Sequence[Example], part: float | int, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and validation examples: a count, or a fraction below 1, drawn for validation; the same for the same seed.

    Both keep the order of `examples`. Raises ConfigError if nothing would be left to train on, or `part` is negative.
    """
    count = round(part * len(examples)) if isinstance(part, float) else part
    if part < 0 or (isinstance(part, float) and part >= 1) or (count >= len(examples) and count > 0):
        raise ConfigError(f"A validation part of {part} out of {len(examples)} examples leaves nothing to train on; choose less.")
    drawn = set(random.Random(seed).sample(range(len(examples)), count))
    train = [example for i, example in enumerate(examples) if i not in drawn]
    return train, [examples[i] for i in sorted(drawn)]
