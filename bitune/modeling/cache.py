"""Rows of a key/value cache: picked, repeated, joined, replaced. The cache that is given stays as it is.

A new cache is a shallow copy of the given one, so that the kinds of its layers and their counters are kept; only keys and
values are replaced. tests/modeling/test_contract_transformers.py holds transformers to that.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

LayerContent = Callable[[int, CacheLayerMixin], tuple[Tensor, Tensor]]


def take_rows(cache: Cache, rows: Tensor) -> Cache:
    """A new cache of some rows of another.

    Args:
        cache: Keys and values [rows, heads, tokens, head dim] a layer; an empty cache has no rows and is copied as it is.
        rows: int64 [n], repeats allowed.
    """
    if not cache.get_seq_length():
        return copy.deepcopy(cache)
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
