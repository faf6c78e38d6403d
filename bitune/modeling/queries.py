"""The queries of prompt passes, kept beside keys and values: with them a pass's attention weights are known without running it again.

Where a model attends with `sdpa`, the function behind that name is exchanged while its passes run for one that notes what it is given.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitune.modeling.interface import attention_implementation, eager_attention
from bitune.modeling.masks import additive, visible

_NAME = "sdpa"


@dataclass(frozen=True)
class LayerQueries:
    """What one row of a layer's attention was given, besides keys and values.

    Attributes:
        module: The attention.
        query: [heads, n, head dim].
        seen: Which key each query may see, bool [n, n]; None where that is every one up to itself.
        arguments: What the family's eager attention function takes besides, such as the factor of scores.
    """

    module: nn.Module
    query: Tensor
    seen: Tensor | None
    arguments: Mapping[str, object]


def attention_weights(layers: Sequence[LayerQueries], cached: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """Attention weights [1, heads, n, n] of each layer of a pass, by the family's own eager function.

    Args:
        cached: Keys and values of the pass, [heads, n, head dim] each.
    """
    masks: dict[int, Tensor] = {}  # of a long prompt, one takes as long to make as the weights
    for layer, (keys, values) in zip(layers, cached, strict=True):
        query, key = layer.query[None], id(layer.seen)
        if key not in masks:
            seen = visible("causal", query.shape[2], None, query.device) if layer.seen is None else layer.seen
            masks[key] = additive(seen[None, None], query.dtype)
        mask = masks[key].to(query.device)
        yield eager_attention(layer.module)(layer.module, query, keys[None], values[None], mask, **layer.arguments)[1]


def nbytes_of(layers: Sequence[LayerQueries]) -> int:
    """Bytes of the queries of a pass; a mask that several layers share counts once."""
    seen = {id(layer.seen): layer.seen.nbytes for layer in layers if layer.seen is not None}
    return sum(layer.query.nbytes for layer in layers) + sum(seen.values())


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    query: Tensor
    key: Tensor
    mask: Tensor | None
    arguments: Mapping[str, object]


class NotedQueries:
    """What the attention of every layer was given while passes ran, call after call."""

    def __init__(self):
        self._calls: defaultdict[int, list[_Call]] = defaultdict(list)

    def note(self, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, arguments: Mapping[str, object]) -> None:
        """Keep what one call was given: [rows, heads, tokens, head dim], and the mask [rows, 1, tokens, tokens] that goes with it."""
        self._calls[module.layer_idx].append(_Call(module, query, key, mask, arguments))

    def of_row(self, cache: Cache, row: int, start: int) -> tuple[LayerQueries, ...] | None:
        """The queries of one row from token `start` on, copied; None where weights would not follow from them.

        Args:
            cache: What the passes left, their rows one call after the other.
        """
        seen_of: dict[int, Tensor] = {}
        layers = [self._of_layer(index, cache, row, start, seen_of) for index in range(len(cache.layers))]
        return None if None in layers or len(layers) != len(self._calls) else tuple(layers)

    def _of_layer(self, index: int, cache: Cache, row: int, start: int, seen_of: dict[int, Tensor]) -> LayerQueries | None:
        before = 0
        for call in self._calls[index]:
            if row < before + len(call.query):
                return _kept(call, cache.layers[index].keys[row], row - before, start, seen_of)
            before += len(call.query)
        return None


def _kept(call: _Call, keys: Tensor, row: int, start: int, seen_of: dict[int, Tensor]) -> LayerQueries | None:
    """One row of a call; None where it attended to something else than what its cache holds, or took what is known only then."""
    eager = eager_attention(call.module)
    if eager is None or not torch.equal(call.key[row], keys):
        return None
    names = inspect.signature(eager).parameters
    arguments = {name: value for name, value in call.arguments.items() if name in names}
    if any(isinstance(value, Tensor) and not isinstance(value, nn.Parameter) for value in arguments.values()):
        return None
    seen = None
    if call.mask is not None:
        if call.mask.dtype != torch.bool or call.mask.shape[:2] != (len(call.query), 1):
            return None
        # Layers of a kind share their mask, so it is copied once.
        seen = seen_of.setdefault(id(call.mask), call.mask[row, 0, start:, start:].clone())
    elif call.arguments.get("is_causal") is False or not getattr(call.module, "is_causal", True):
        return None  # what transformers' sdpa function looks at; not every family says it
    return LayerQueries(call.module, call.query[row, :, start:].clone(), seen, arguments)


_NOTED: ContextVar[NotedQueries | None] = ContextVar("bitune_noted_queries", default=None)
_lock, _users, _before = Lock(), 0, None


@contextmanager
def noted_queries(model: PreTrainedModel) -> Iterator[NotedQueries | None]:
    """Note what the attention of `model` is given until the end of the block; nothing, and None, where it does not attend with `sdpa`."""
    if attention_implementation(model) != _NAME:
        yield None
        return
    token = _NOTED.set(noted := NotedQueries())
    try:
        with _exchanged():
            yield noted
    finally:
        _NOTED.reset(token)


@contextmanager
def _exchanged() -> Iterator[None]:
    """`sdpa` is `_note` until the last of those who want it so is done; it does nothing in threads that note nothing."""
    global _users, _before
    with _lock:
        if not _users:
            _before = ALL_ATTENTION_FUNCTIONS[_NAME]
            ALL_ATTENTION_FUNCTIONS[_NAME] = _note
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                ALL_ATTENTION_FUNCTIONS[_NAME] = _before


def _note(module, query, key, value, attention_mask, **arguments):
    """The attention function under the name `sdpa` meanwhile: what it is given is noted, and goes to the one that was there before."""
    if (noted := _NOTED.get()) is not None:
        noted.note(module, query, key, attention_mask, arguments)
    return _before(module, query, key, value, attention_mask, **arguments)
