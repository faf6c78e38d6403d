"""Example texts -> token ids, and the examples whose tokens fit into limits. Knows tokenizers; knows no model."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from bitune.data.batches import TokenPair, cut_left
from bitune.data.encoding import begun, front_ids, head_of, prompt_ids, text_ids
from bitune.data.examples import Example, content_of
from bitune.errors import ConfigError, DataError, shown


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


def tokenize(
    example: Example, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int, max_answer_tokens: int
) -> TokenPair | None:
    """Token ids of one example, as `tokenize_all` has them; None if its answer is too long."""
    return next(iter(tokenize_all([example], tokenizer, max_prompt_tokens, max_answer_tokens).pairs), None)


def tokenize_all(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int, max_answer_tokens: int
) -> Tokenized:
    """Token ids of many examples.

    Args:
        examples: their order is kept.
        tokenizer: the base's, with an end token.
        max_prompt_tokens: a longer prompt loses its beginning but keeps the special tokens in front, as the question stands at its end.
        max_answer_tokens: an example with a longer answer, end token included, is dropped, as a cut answer would teach the
            model to stop in the middle, or nowhere.

    Raises:
        ConfigError: a limit is below 1.
        DataError: the tokenizer has no end token, or a prompt has no tokens.
    """
    if max_prompt_tokens < 1 or max_answer_tokens < 1:
        raise ConfigError(
            f"Prompts of {max_prompt_tokens} and answers of {max_answer_tokens} tokens are no limits; use 1 or more."
        )
    if tokenizer.eos_token_id is None:
        raise DataError(f"The tokenizer {tokenizer.name_or_path!r} has no end token, so no answer could end; set its eos_token.")
    if not examples:
        return Tokenized([], [], 0)
    texts = [example.prompt for example in examples]
    plain = text_ids(texts, tokenizer)
    answers = _answer_ids(examples, plain, tokenizer)
    bos, front = tokenizer.bos_token_id, front_ids(tokenizer)
    kept, pairs = [], []
    for example, prompt, answer_ids in zip(examples, begun(texts, plain, tokenizer), answers, strict=True):
        answer_ids = [*answer_ids, tokenizer.eos_token_id]
        if not prompt:
            raise DataError(f"A prompt of task {shown(example.task)} holds no token: {shown(example.prompt)}; remove the record.")
        if len(answer_ids) <= max_answer_tokens:
            kept.append(example)
            short = cut_left(prompt, max_prompt_tokens, head_of(prompt, front, bos))
            pairs.append(TokenPair(short, answer_ids, prompt_cut=len(short) < len(prompt)))
    return Tokenized(kept, pairs, dropped=len(examples) - len(kept))


def fitting(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int | None) -> list[Example]:
    """The examples whose prompts have at most so many tokens, in order; all of them for None."""
    if max_prompt_tokens is None or not examples:
        return list(examples)
    lengths = map(len, prompt_ids([example.prompt for example in examples], tokenizer))
    return [example for example, length in zip(examples, lengths, strict=True) if length <= max_prompt_tokens]


def to_measure(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int | None = None,
    max_answer_tokens: int | None = None,
    limit: int | None = None,
    trained_on: Collection[tuple[str, ...]] = (),
) -> list[Example]:
    """The examples that an evaluation is over: the first `limit` whose prompts fit, and of these not every one.

    Args:
        examples: a whole set; its order is kept.
        tokenizer: the base's.
        max_prompt_tokens: longer prompts do not count towards `limit`. None: no limit, here and below.
        max_answer_tokens: of the first `limit`, those with a longer answer, end token included, are left out.
        limit: so many examples at most.
        trained_on: `content_of` the prompts that were trained on; these are left out last of all.
    """
    kept = fitting(examples, tokenizer, max_prompt_tokens)[:limit]
    if max_answer_tokens is not None:
        kept = tokenize_all(kept, tokenizer, sys.maxsize, max_answer_tokens).examples
    return [example for example in kept if content_of(example.prompt) not in trained_on]


def continuation_ids(prompt: str, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of several answers to one prompt, as in training but without the end token: to score choices."""
    examples = [Example("", prompt, answer) for answer in answers]
    return _answer_ids(examples, text_ids([prompt], tokenizer) * len(examples), tokenizer)


def _answer_ids(examples: Sequence[Example], prompts: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The answers' tokens, without special tokens, as they come after their prompts' tokens (`text_ids`).

    Read from prompt and answer tokenized together, because a SentencePiece tokenizer puts a space of its own before a text
    that stands alone. Where a token would cross the border, the answer is tokenized alone: the model reads the prompt alone too.
    """
    whole = text_ids([e.prompt + e.answer for e in examples], tokenizer)
    alone = text_ids([e.answer for e in examples], tokenizer)
    rows = zip(prompts, whole, alone, strict=True)
    return [ids[len(prompt) :] if ids[: len(prompt)] == prompt else answer for prompt, ids, answer in rows]
