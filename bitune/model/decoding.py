"""What is done on the caches of prompts that were read: generate answers, score given ones, or decode token by token.

Everything above works with prompts, rows and tokens; caches, adapters and masks of an answer are handled here alone.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor
from transformers import Cache

from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_left
from bitune.model.first_token import first_token_keys, keep_first_tokens, recall_first_tokens
from bitune.model.generation_config import base_defaults
from bitune.model.limits import check_ids
from bitune.model.passes import Recall
from bitune.model.prefill import Row, prefill
from bitune.modeling.cache import take_rows, with_room
from bitune.modeling.decode_step import DecodeStep, capacity_for
from bitune.modeling.interface import before_each_layer, cache_input, input_device, position_input
from bitune.modeling.pass_store import PassKey
from bitune.schema.variants import Variant

Result = TypeVar("Result")
NO_DEFAULTS: Mapping[str, object] = MappingProxyType({})


@dataclass
class PromptCache:
    """Prompts that were read: a cache row for each answer to come.

    Attributes:
        ids, mask: The prompts, int64 [prompts, P], padded on the left.
        rows: What each cache row holds, and the adapter that answers from it.
        cache: Keys and values of the first P - 1 tokens, [rows, heads, P - 1, head dim] a layer.
        known: Of each row, whether all its passes came from memory.
        keys: Of each row, under which keys its passes are kept; None where they are not.
    """

    manager: AdapterManager
    ids: Tensor
    mask: Tensor
    rows: Sequence[Row]
    cache: Cache
    known: Sequence[bool]
    keys: Sequence[Sequence[PassKey] | None]
    _is_used: bool = field(default=False, init=False)

    def take(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Cache]:
        """Ids [n, P], mask [n, P] and a cache of these rows to write into.

        Where all rows are taken in order, it is the cache itself and not a copy; afterwards nothing more can be taken.
        """
        if self._is_used:
            raise RuntimeError("This prompt cache was taken whole and has been written into; read the prompts again.")
        self._is_used = list(rows) == list(range(len(self.rows)))
        cache = self.cache if self._is_used else take_rows(self.cache, torch.tensor(rows))
        prompts = torch.tensor([self.rows[row].prompt for row in rows], device=self.ids.device)
        return self.ids[prompts], self.mask[prompts], cache

    def part(self, rows: Sequence[int]) -> "PromptCache":
        """A prompt cache of its own of these rows, a copy: what is taken of it leaves this one as it is."""
        cache = take_rows(self.cache, torch.tensor(rows))
        known, keys = ([values[row] for row in rows] for values in (self.known, self.keys))
        return PromptCache(self.manager, self.ids, self.mask, [self.rows[row] for row in rows], cache, known, keys)

    def adapters(self, rows: Sequence[int]) -> list[str | None]:
        """The adapter that answers in each of these rows."""
        return [self.rows[row].answer_adapter for row in rows]


def read_prompts(manager: AdapterManager, ids: Tensor, mask: Tensor, rows: Sequence[Row]) -> PromptCache:
    """Run the passes of `rows` over prompts `ids`, `mask` [prompts, P], padded on the left."""
    return PromptCache(manager, ids, mask, rows, prefill(manager, ids, mask, rows), [False] * len(rows), [None] * len(rows))


def recall_prompts(manager: AdapterManager, ids: Tensor, mask: Tensor, rows: Sequence[Row]) -> PromptCache:
    """As `read_prompts`, but what this base has read lately is not run again; in a turn, without gradients."""
    recall = Recall()
    cache = prefill(manager, ids, mask, rows, recall)
    known = [all((one, row.prompt) in recall.known for one in row.passes) for row in rows]
    keys = [[recall.keys[one, row.prompt] for one in row.passes] if recall.keys else None for row in rows]
    return PromptCache(manager, ids, mask, rows, cache, known, keys)


def read_variants(
    manager: AdapterManager,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[tuple[Variant, int]],
    check: Callable[[], None] = lambda: None,
    *,
    remember: bool = False,
) -> PromptCache:
    """Read prompts, each once for every pass that is asked for.

    Args:
        prompts: Token ids.
        answers: The variant and the index of the prompt of each row.
        check: Called before every layer; what it raises ends the passes. A long prompt is one forward and may take a minute.
        remember: Take passes that this base has run lately from memory, and keep those that are run now.

    Raises:
        ConfigError: An id is no token of the base: its tokenizer may know more than it does.
    """
    for prompt in prompts:
        check_ids(manager.model, "A prompt", prompt)
    ids, mask = pad_left(prompts, 0, input_device(manager.model))
    read = recall_prompts if remember else read_prompts
    with before_each_layer(manager.attentions, check):
        return read(manager, ids, mask, [Row.of(variant, prompt) for variant, prompt in answers])


def generate(
    prompts: PromptCache, *, defaults: Mapping[str, object] = NO_DEFAULTS, copies: int = 1, **arguments: object
) -> list[tuple[list[int], Tensor]]:
    """Answer with transformers' own `generate`, on the prompts' cache; in a turn.

    Args:
        defaults: What is taken from the base's generation_config.json besides the token ids; nothing, in a measurement.
        copies: How many rows `generate` makes of each prompt: beams, or returned sequences.
        arguments: Those of transformers' `generate`, as `generation_config.resolve_call` lets them pass.

    Returns:
        [(rows, ids), ...], one for each batch of adapters that run together; ids int64 [rows (x returned sequences), P + new],
        or what else the arguments make `generate` return.
    """
    manager = prompts.manager

    def run(rows: list[int]) -> Tensor:
        ids, mask, cache = prompts.take(rows)
        if copies > 1:  # generate() repeats ids and mask for beams, but not a cache that it is given
            cache.batch_repeat_interleave(copies)
        return manager.model.generate(ids, attention_mask=mask, **arguments, **cache_input(cache))

    with base_defaults(manager.model, defaults):
        return manager.run(prompts.adapters(range(len(prompts.rows))), run)


def score(
    prompts: PromptCache, rows: Sequence[int], ids: Tensor, mask: Tensor, reduce: Callable[[list[int], Tensor], Result]
) -> list[tuple[list[int], Result]]:
    """Read given answers after their prompts, each on its own copy of its prompt's cache row.

    Args:
        rows: The cache row of each answer; a row may have several answers.
        ids, mask: The answers, int64 [answers, A], padded on the right, mask 1 on real tokens.
        reduce: Gets the indices of the answers of a batch and their logits [n, A, vocabulary]; logits[:, i] predict token i.

    Returns:
        [(indices, what `reduce` returned), ...], one for each batch of adapters that run together.
    """
    manager = prompts.manager

    def run(indices: list[int]) -> Result:
        prompt_ids, prompt_mask, cache = prompts.take([rows[index] for index in indices])
        answer_mask = mask[indices]
        answers = ids[indices].masked_fill(answer_mask == 0, 0)  # as in prefill: nobody reads padding
        inputs = torch.cat([prompt_ids[:, -1:], answers[:, :-1]], dim=1)
        whole = torch.cat([prompt_mask, answer_mask[:, :-1]], dim=1)
        placed = position_input(manager.model, whole, inputs.shape[1])
        output = manager.model(input_ids=inputs, attention_mask=whole, use_cache=True, **cache_input(cache), **placed)
        return reduce(indices, output.logits)

    return manager.run(prompts.adapters(rows), run)


class Decoder:
    """Rows of a prompt cache that are answered in step, a token each at a time.

    The first forward reads the last prompt token, which belongs to the answer: it runs with the answer adapter, unless what it comes to
    is known for all rows. `known`: of each row, whether its prompt came from memory. On a GPU the tokens are soon read in a step that
    is repeated as a CUDA graph, see modeling.decode_step.
    """

    def __init__(self, prompts: PromptCache, rows: Sequence[int]):
        self.rows = list(rows)
        self.known = [prompts.known[row] for row in rows]
        self._manager, self._adapters = prompts.manager, prompts.adapters(rows)
        ids, self._mask, cache = prompts.take(rows)
        self._cache, self._input = with_room(cache), ids[:, -1:]
        self._prompts: PromptCache | None = prompts  # until the first token
        self._step: DecodeStep | None = None  # which then holds the cache
        self._step_known_by: Hashable = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """The rows' adapters, for as many tokens as the block decodes."""
        with self._manager.active_rows(self._adapters):
            # Meanwhile somebody may have changed or moved weights: asked before a step runs again.
            if self._step is not None and not self._step_is_current():
                self._leave_step()
            yield

    def next_logits(self) -> Tensor:
        """Scores of the next token, float32 [rows, vocabulary]; one forward at most, inside of `active`."""
        if self._prompts is None:
            return self._run()
        prompts, self._prompts = self._prompts, None
        kept, tokens = [prompts.keys[row] for row in self.rows], self._input[:, 0].tolist()
        keys = first_token_keys(self._manager, [prompts.rows[row] for row in self.rows], kept, tokens)
        scores = recall_first_tokens(self._manager, keys, self._cache)
        if scores is None:
            scores = self._run(is_first=True)
            cache = self._cache if self._step is None else self._step.content()
            keep_first_tokens(self._manager, keys, cache, scores)
        return scores

    def read(self, tokens: Sequence[int]) -> None:
        """Go on from token ids with which every answer begins, in place of the first new token; one forward, inside of `active`."""
        self._prompts, model = None, self._manager.model
        begun = torch.tensor(tokens, device=self._input.device).expand(len(self.rows), -1)
        inputs, self._input = torch.cat([self._input, begun[:, :-1]], dim=1), begun[:, -1:]
        mask, self._mask = (torch.cat([self._mask, torch.ones_like(part)], dim=1) for part in (begun[:, :-1], begun))
        placed = position_input(model, mask, inputs.shape[1])
        model.base_model(input_ids=inputs, attention_mask=mask, use_cache=True, **cache_input(self._cache), **placed)

    def append(self, tokens: Tensor) -> None:
        """Go on from these tokens, int64 [rows]."""
        self._input = tokens[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(self._input)], dim=1)

    def _run(self, is_first: bool = False) -> Tensor:
        if self._step is not None and self._step.tokens == self._step.capacity:
            self._leave_step()
        if self._step is None:
            self._enter_step(is_first)
        if self._step is not None:
            return self._step.run(self._input)
        model = self._manager.model
        placed = position_input(model, self._mask, 1)
        output = model(input_ids=self._input, attention_mask=self._mask, use_cache=True, **cache_input(self._cache), **placed)
        return output.logits[:, -1].to(torch.float32, copy=True)

    def _step_is_current(self) -> bool:
        kind = self._manager.captured_kind()
        return kind is not None and kind[0] == self._step_known_by and self._step in self._manager.captured

    def _enter_step(self, is_first: bool) -> None:
        kind = self._manager.captured_kind()
        if kind is None or not self._cache.get_seq_length():
            return
        known_by, computes_with = kind
        model, layout, capacity = self._manager.model, self._manager.layout, capacity_for(self._mask.shape[1])
        make = partial(DecodeStep, model, layout, self._cache, capacity, computes_with)
        self._step = self._manager.captured.take((DecodeStep, known_by, capacity), self, make, waits=not is_first)
        if self._step is not None:
            self._step.load(self._cache, self._mask)
            self._cache, self._step_known_by = None, known_by

    def _leave_step(self) -> None:
        self._cache = with_room(self._step.dynamic_cache())
        self._manager.captured.give_back(self._step)
        self._step = None
