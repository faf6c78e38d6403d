"""The turns of a conversation on top of the mixed cache of those before: the way to read them that is called alternating.

A question is read as every prompt is, by each pass of the variant and then mixed, but after the cache of what was before, which stays as
it is; an answer is read causally by the answer adapter, as when it was written. With one causal pass that is how transformers goes on
with a chat. Proposed by Bitune (arXiv 2405.14862) in an appendix, and not tested there.

The cache of a conversation up to a question is kept among the base's passes (`manager.passes`), under everything that determines it. Where
it is gone, it is made again from the turns by the same computation.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_left
from bitune.data.conversation import TurnEnd
from bitune.errors import PromptError
from bitune.model.decoding import PromptCache, read_variants
from bitune.model.limits import check_ids
from bitune.model.mixing import mix
from bitune.model.prefill import Row
from bitune.modeling.cache import cache_of_rows, end_of_row, join_rows, take_rows, with_layers
from bitune.modeling.interface import attention_implementation, before_each_layer, cache_input, input_device, position_input
from bitune.modeling.masks import DecoderLayout, masks_after
from bitune.modeling.pass_store import PassKey, StoredPass
from bitune.schema.variants import Variant


@dataclass(frozen=True)
class Reading:
    """In the place of a pass in a PassKey: how a conversation was read, and where the turns end that were answered."""

    variant: Variant
    ends: tuple[TurnEnd, ...]


@dataclass(frozen=True)
class Talk:
    """One variant's conversation: the token ids of all of it, and the ends of its turns, at least one."""

    variant: Variant
    ids: tuple[int, ...]
    ends: tuple[TurnEnd, ...]

    @property
    def questions(self) -> list[tuple[int, int]]:
        """Of each question after the first: the number of tokens where it begins, and where its passes end, one before its last."""
        asked = [*(question for question, _ in self.ends[1:]), len(self.ids)]
        return [(answered, max(answered, end - 1)) for (_, answered), end in zip(self.ends, asked, strict=True)]

    def key(self, number: int, weights: Hashable) -> PassKey:
        """What determines the cache up to the question after turn `number`, counted from 0."""
        return PassKey(Reading(self.variant, self.ends[: number + 1]), weights, self.ids[: self.questions[number][1]])


def check_conversation(layout: DecoderLayout, ids: Sequence[int], ends: Sequence[TurnEnd], new_tokens: int) -> None:
    """PromptError where a conversation, read turn by turn, passes the length at which the rotary embedding takes other frequencies."""
    switch, (asked, answered) = layout.rotary_switch, ends[0]
    first = asked - 1 or answered  # tokens of the first forward
    if switch is not None and first <= switch < len(ids) + new_tokens - 1:
        raise PromptError(
            f"A conversation of {len(ids):,} tokens with an answer of up to {new_tokens:,} passes {switch:,}, the length at which this base's "
            "rotary embedding takes other frequencies, so that what was kept of it no longer fits; read the turns before again instead."
        )


def read_conversations(manager: AdapterManager, talks: Sequence[Talk], check: Callable[[], None] = lambda: None) -> PromptCache:
    """Read conversations turn by turn, up to the last token of each; in a turn, without gradients.

    Args:
        check: Called before every layer; what it raises ends the reading.

    Raises:
        ConfigError: An id is no token of the base.
    """
    for talk in talks:
        check_ids(manager.model, "A prompt", talk.ids)
    weights = [_weights(manager, talk.variant) for talk in talks]
    kept = [_longest_kept(manager, talk, state) for talk, state in zip(talks, weights, strict=True)]
    fresh = [row for row, (begun, _) in enumerate(kept) if begun is None]
    begun = dict(zip(fresh, _first_questions(manager, [talks[row] for row in fresh], check), strict=True))
    caches = []
    with before_each_layer(manager.attentions, check):
        for row, (talk, state) in enumerate(zip(talks, weights, strict=True)):
            cache, next_question = kept[row]
            caches.append(_go_on(manager, talk, state, begun[row] if cache is None else cache, next_question))
    ids, mask = pad_left([talk.ids for talk in talks], 0, input_device(manager.model))
    rows = [Row.of(talk.variant, row) for row, talk in enumerate(talks)]
    joined = cache_of_rows(manager.model, [_row(cache) for cache in caches], ids.shape[1] - 1)
    known = [done == len(talk.ends) for talk, (_, done) in zip(talks, kept, strict=True)]
    return PromptCache(manager, ids, mask, rows, joined, known, [None] * len(rows))


def _weights(manager: AdapterManager, variant: Variant) -> Hashable:
    """Other values once somebody has written into the weights that this variant runs."""
    return tuple(sorted(manager.states({None, *variant.adapters}).items(), key=str))


def _longest_kept(manager: AdapterManager, talk: Talk, weights: Hashable) -> tuple[Cache | None, int]:
    """What is kept of most of this conversation, and how many questions after the first are read in it."""
    for number in reversed(range(len(talk.ends))):
        key = talk.key(number, weights)
        if (stored := manager.passes.get(key)) is not None:
            return cache_of_rows(manager.model, [stored.layers], len(key.ids)), number + 1
    return None, 0


def _first_questions(manager: AdapterManager, talks: Sequence[Talk], check: Callable[[], None]) -> list[Cache]:
    """The mixed cache of each first question: read, or remembered, as that of any prompt."""
    if not talks:
        return []
    questions = [talk.ids[: talk.ends[0][0]] for talk in talks]
    distinct = list(dict.fromkeys(questions))
    rows = [(talk.variant, distinct.index(question)) for talk, question in zip(talks, questions, strict=True)]
    read = read_variants(manager, distinct, rows, check, remember=True)
    lengths = [len(question) - 1 for question in questions]
    rows_read = [end_of_row(read.cache, row, tokens) for row, tokens in enumerate(lengths)]
    return [cache_of_rows(manager.model, [row], tokens) for row, tokens in zip(rows_read, lengths, strict=True)]


def _go_on(manager: AdapterManager, talk: Talk, weights: Hashable, cache: Cache, done: int) -> Cache:
    """`cache`, which holds the first question and `done` more, with all that comes after; what is read of each question is kept."""
    for number, (start, end) in list(enumerate(talk.questions))[done:]:
        cache = _read_answer(manager, cache, talk.ids[cache.get_seq_length() : start], talk.variant)
        cache = _read_question(manager, cache, talk.ids[start:end], talk.variant)
        manager.passes.put(talk.key(number, weights), StoredPass(_row(cache)))
    return cache


def _read_answer(manager: AdapterManager, cache: Cache, ids: Sequence[int], variant: Variant) -> Cache:
    """One row that goes on, in place, with the last token of a question and its answer."""
    if ids:
        inputs = torch.tensor([ids], device=input_device(manager.model))
        manager.run([variant.answer_adapter], lambda _: _forward(manager, inputs, None, cache))
    return cache


def _read_question(manager: AdapterManager, cache: Cache, ids: Sequence[int], variant: Variant) -> Cache:
    """One row and behind it the tokens of a question, read by each pass of the variant and mixed."""
    if not ids:
        return cache
    model, before, passes = manager.model, cache.get_seq_length(), variant.passes

    def read(rows: list[int]) -> Cache:
        inputs = torch.tensor([ids] * len(rows), device=input_device(model))
        attentions, form = [passes[row].attention for row in rows], attention_implementation(model)
        masks = masks_after(manager.layout, attentions, before, len(ids), form, model.dtype, inputs.device)
        return _forward(manager, inputs, masks, take_rows(cache, torch.zeros(len(rows), dtype=torch.long)))

    batches = manager.run([one.adapter for one in passes], read)
    order = [row for rows, _ in batches for row in rows]
    return _mixed_tail(join_rows([one for _, one in batches]), order.index(0), order.index(len(passes) - 1), variant, len(ids))


def _forward(manager: AdapterManager, inputs: Tensor, masks: Tensor | dict[str, Tensor] | None, cache: Cache) -> Cache:
    """`inputs` [rows, tokens] after what is in `cache`, which is written into; read causally where there are no masks."""
    seen = torch.ones(len(inputs), cache.get_seq_length() + inputs.shape[1], dtype=torch.long, device=inputs.device)
    placed = position_input(manager.model, seen, inputs.shape[1])
    mask = seen if masks is None else masks
    manager.model.base_model(input_ids=inputs, attention_mask=mask, use_cache=True, **cache_input(cache), **placed)
    return cache


def _mixed_tail(cache: Cache, first: int, second: int, variant: Variant, tokens: int) -> Cache:
    """One row that mixes the last `tokens` tokens of the rows `first` and `second`; before them the two are the same."""
    if variant.mixing is None:
        return take_rows(cache, torch.tensor([first]))
    keys, values = (torch.tensor(ratios) for ratios in (variant.mixing.keys, variant.mixing.values))

    def tail(part: Tensor, alpha: Tensor) -> Tensor:
        start = max(part.shape[-2] - tokens, 0)  # a sliding layer may have forgotten all that was before
        one, other = part[first : first + 1], part[second : second + 1]
        return torch.cat([one[:, :, :start], mix(one[:, :, start:], other[:, :, start:], alpha[None])], dim=-2)

    return with_layers(cache, lambda index, layer: (tail(layer.keys, keys[index]), tail(layer.values, values[index])))


def _row(cache: Cache) -> list[tuple[Tensor, Tensor]]:
    """What is in a cache of one row."""
    return end_of_row(cache, 0, cache.get_seq_length())
