"""Texts -> token ids: the one rule for the special tokens of a prompt and of what follows it. Knows tokenizers; knows no model.

A prompt begins with the special tokens that the tokenizer puts in front of a text, once: a text that brings them itself gets no
second ones. Nothing is put at its end, whatever the tokenizer appends. What follows a prompt has no special tokens at all.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from bitune.errors import ConfigError


def text_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of the texts alone: only the special tokens that a text writes out."""
    return tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []


def prompt_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of prompts, with the special tokens in front of them."""
    return begun(texts, text_ids(texts, tokenizer), tokenizer)


def begun(texts: Sequence[str], plain: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Prompts from their texts and the `text_ids` of these, with the special tokens in front.

    That a text brings its own is read in its characters, as lm-eval does, and in its tokens: a BOS that takes the white space before
    it need not be the first character.
    """
    front, bos = front_ids(tokenizer), tokenizer.bos_token or None  # "" is none: every text begins with it

    def brings_its_own(text: str, ids: list[int]) -> bool:
        return bos is not None and text.startswith(bos) or bool(head_of(ids, front, bos and tokenizer.bos_token_id))

    return [ids if brings_its_own(text, ids) else front + ids for text, ids in zip(texts, plain, strict=True)]


def head_of(ids: Sequence[int], front: Sequence[int], bos: int | None) -> list[int]:
    """The special tokens that a prompt begins with: all that the tokenizer puts in front, or a BOS that the text brought; or none."""
    heads = (list(front), [] if bos is None else [bos])
    return next((head for head in heads if head and list(ids[: len(head)]) == head), [])


def front_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts in front of a text: often BOS, sometimes none or several.

    No attribute says it: the answer lies in a post-processor, in flags that were given at loading, or in a tokenizer's own Python.
    So the first text of the vocabulary without a special token is read with and without those that are put around it.

    Raises:
        ConfigError: The tokenizer reads no ordinary text.
    """
    special = set(tokenizer.all_special_ids)
    for token in filter(lambda token: token not in special, range(len(tokenizer))):
        text = tokenizer.decode([token])
        plain = tokenizer(text, add_special_tokens=False).input_ids
        if plain and special.isdisjoint(plain):
            whole = tokenizer(text).input_ids
            for start in range(len(whole) - len(plain) + 1):
                if whole[start : start + len(plain)] == plain:
                    return whole[:start]
    raise ConfigError(f"The tokenizer {tokenizer.name_or_path!r} has no token for ordinary text; give a base with another one.")
