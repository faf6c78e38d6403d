"""Rows of a key/value cache: picked, repeated, joined, replaced. The cache that is given stays as it is.

A new cache is a shallow copy of the given one, so that the kinds of its layers and their counters are kept; only keys and
values are replaced. tests/modeling/test_contract_transformers.py holds transformers to that.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

LayerContent = Callable[[int, CacheLayerMixin], tuple[Tensor, Tensor]]


def take_rows(cache: Cache, rows: Tensor) -> Cache:
    """A new cache of some rows of another.

    Args:
        cache: Keys and values [rows, heads, tokens, head dim] a layer; an empty cache has no rows and is copied as it is.
        rows: int64 [n], repeats allowed.
    """
    if not cache.get_seq_length():
        return copy.deepcopy(cache)
    rows = rows.to(cache.layers[0].keys.device)  # once, not layer by layer: each copy to a GPU waits for it
    return with_layers(cache, lambda _, layer: (pick_rows(layer.keys, rows), pick_rows(layer.values, rows)))


def pick_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """The rows `rows` (int64 [n]) of a tensor that may lie on another device."""
    return tensor.index_select(0, rows.to(tensor.device))


def join_rows(caches: Sequence[Cache]) -> Cache:
    """The rows of several caches of the same prompt length, one cache after the other."""
    if len(caches) == 1:
        return caches[0]

    def joined(index: int, _: CacheLayerMixin) -> tuple[Tensor, Tensor]:
        layers = [cache.layers[index] for cache in caches]
        return torch.cat([layer.keys for layer in layers]), torch.cat([layer.values for layer in layers])

    return with_layers(caches[0], joined)


def with_layers(cache: Cache, content: LayerContent) -> Cache:
    """A copy of `cache` that holds `content(index, layer) -> (keys, values)` in each layer."""
    result = copy.copy(cache)
    result.layers = [copy.copy(layer) for layer in cache.layers]
    for index, layer in enumerate(result.layers):
        layer.keys, layer.values = content(index, cache.layers[index])
    return result


def copies(parts: Sequence[Tensor]) -> Sequence[Tensor]:
    """Copies of tensors, by one call where they are alike: on a GPU a call takes longer than a small copy."""
    if len({(part.shape, part.dtype, part.device) for part in parts}) == 1:
        return torch.stack(list(parts)).unbind(0)
    return [part.clone() for part in parts]


def row_of(cache: Cache, row: int, start: int) -> list[tuple[Tensor, Tensor]]:
    """A copy of one row's keys and values from token `start` on, [heads, tokens, head dim] for each layer."""
    keys = copies([layer.keys[row, :, start:] for layer in cache.layers])
    return list(zip(keys, copies([layer.values[row, :, start:] for layer in cache.layers]), strict=True))


def end_of_row(cache: Cache, row: int, tokens: int) -> list[tuple[Tensor, Tensor]]:
    """A copy of the last `tokens` tokens of one row, as `row_of` has them; fewer in a sliding layer that has forgotten some."""
    ends = [min(tokens, layer.keys.shape[-2]) for layer in cache.layers] if tokens else []
    parts = zip(cache.layers, ends, strict=False)  # an empty cache may have no keys at all
    return [(layer.keys[row, :, -end:].clone(), layer.values[row, :, -end:].clone()) for layer, end in parts]


def cache_of_rows(model: PreTrainedModel, rows: Sequence[Sequence[tuple[Tensor, Tensor]]], tokens: int) -> Cache:
    """A cache of `tokens` tokens, of rows as `row_of` or `end_of_row` returns them, padded on the left with zeros.

    Layers with a sliding window forget again what they had forgotten; no layer may miss more of a row than that.
    """
    cache = DynamicCache(config=model.config)
    for index in range(len(rows[0])):
        keys, values = (torch.stack([_padded(row[index][part], tokens) for row in rows]) for part in (0, 1))
        cache.update(keys, values, index)
    return cache


def _padded(part: Tensor, tokens: int) -> Tensor:
    missing = tokens - part.shape[-2]
    return torch.nn.functional.pad(part, (0, 0, missing, 0)) if missing else part


class _RoomyLayer(DynamicLayer):
    """A layer that grows within room taken in advance; transformers' copies all that it has for every token."""

    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.keys.shape[-2] if self.keys.dim() == key_states.dim() else 0
        needed = used + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < needed:
            size = (*key_states.shape[:2], needed + max(_LEAST_ROOM, needed // 2))
            room = [part.new_empty(*size, part.shape[-1]) for part in (key_states, value_states)]
            for whole, part in zip(room, (self.keys, self.values), strict=True):
                if used:
                    whole[:, :, :used] = part
            self._room = tuple(room)
        for whole, part in zip(self._room, (key_states, value_states), strict=True):
            whole[:, :, used:needed] = part
        self.keys, self.values = (whole[:, :, :needed] for whole in self._room)
        return self.keys, self.values


_LEAST_ROOM = 64  # tokens


def with_room(cache: Cache) -> Cache:
    """The same cache, in place, for an answer of many tokens: layers without a window no longer copy themselves for each of them."""
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            layer.__class__ = _RoomyLayer
    return cache
