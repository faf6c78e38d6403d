"""How likely an answer is when the two readings of its prompt are mixed in many ways: each way is a row over passes that ran once.

A request for many rows works in turns, as one for many tokens does; between them the base is bare, and what was read is kept here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from bitune.adapters.manager import AdapterManager
from bitune.model.decoding import PromptCache
from bitune.model.likelihoods import likelihoods
from bitune.model.mixing import mix_rows
from bitune.model.passes import Recall
from bitune.model.prefill import Row
from bitune.modeling.cache import with_layers
from bitune.modeling.interface import input_device, vocabulary_size
from bitune.schema.variants import MixingRatios, Variant

_TOKENS_A_TURN = 512  # of answers: about a second of the default base on two CPU cores
_BYTES_A_TURN = 2**28
_BYTES_A_LOGIT = 12  # in float32, and twice more on the way to its log-probability


@dataclass(frozen=True)
class Mix:
    """A way to mix both passes of a prompt.

    Attributes:
        ratios: Of each layer.
        undone: A prompt token whose keys and values are the first pass's in all layers, whatever the ratios; None for no token.
    """

    ratios: MixingRatios
    undone: int | None = None


@dataclass(frozen=True)
class _Passes:
    """Both passes of a prompt of P tokens, unmixed. `ids` [1, P]; `cache` holds P - 1 tokens; `first`, `second`: the rows of both."""

    variant: Variant
    ids: Tensor
    cache: Cache
    first: int
    second: int


def changes_by_mix(
    manager: AdapterManager, variant: Variant, prompt: Sequence[int], answer: Sequence[int], mixes: Sequence[Mix]
) -> Iterator[list[float]]:
    """The log-probability of an answer on differently mixed caches, minus that on the variant's own.

    Args:
        variant: Mixes two passes.
        prompt: Token ids, at least 2.
        answer: Token ids, at least 1.
        mixes: In the order in which they are measured.

    Yields:
        First the log-probability on the variant's own cache alone, then the changes of so many mixes as a turn takes; natural logarithm,
        summed over the answer's tokens. Every turn measures the unchanged cache too, so that both sides of a change are rows of one
        forward: what rounds otherwise in another batch is no change.

    Raises:
        Cancelled: The request was stopped, between two layers.
    """
    passes = _read(manager, variant, prompt)
    own = Mix(variant.mixing)
    yield _log_probabilities(manager, passes, answer, [own])
    size = _rows_a_turn(manager, passes.cache, len(answer)) - 1
    for start in range(0, len(mixes), size):
        unchanged, *changed = _log_probabilities(manager, passes, answer, [own, *mixes[start : start + size]])
        yield [value - unchanged for value in changed]


@torch.no_grad()
def _read(manager: AdapterManager, variant: Variant, prompt: Sequence[int]) -> _Passes:
    with manager.eval_turn():
        ids = torch.tensor([list(prompt)], device=input_device(manager.model))
        wanted = list(dict.fromkeys((one, 0) for one in variant.passes))
        cache, rows = Recall()(manager, ids[:, :-1], torch.ones_like(ids[:, :-1]), wanted)
    return _Passes(variant, ids, cache, *(rows[one, 0] for one in variant.passes))


@torch.no_grad()
def _log_probabilities(manager: AdapterManager, passes: _Passes, answer: Sequence[int], mixes: Sequence[Mix]) -> list[float]:
    """Of the answer on a cache of each of these mixes, in one turn."""
    with manager.eval_turn():
        rows = [Row(0, passes.variant.passes, answer_adapter=passes.variant.answer_adapter)] * len(mixes)
        cache = _mixed(passes, mixes)
        read = PromptCache(manager, passes.ids, torch.ones_like(passes.ids), rows, cache, [True] * len(rows), [None] * len(rows))
        return [found.sum for found in likelihoods(read, range(len(rows)), [answer] * len(rows))]


def _mixed(passes: _Passes, mixes: Sequence[Mix]) -> Cache:
    """A cache with a row for each mix."""
    first, second = (torch.full((len(mixes),), row) for row in (passes.first, passes.second))
    alphas = (torch.tensor([part(mix.ratios) for mix in mixes]).T for part in (lambda r: r.keys, lambda r: r.values))
    mixed, tokens = mix_rows(passes.cache, first, second, *alphas), passes.ids.shape[1] - 1

    def undone(index: int, layer) -> tuple[Tensor, Tensor]:
        keys, values, source = layer.keys, layer.values, passes.cache.layers[index]
        forgotten = tokens - keys.shape[-2]  # a sliding layer holds the last tokens only
        for row, mix in enumerate(mixes):
            if mix.undone is not None and mix.undone >= forgotten:
                place = mix.undone - forgotten
                keys[row, :, place] = source.keys[passes.first, :, place]
                values[row, :, place] = source.values[passes.first, :, place]
        return keys, values

    return with_layers(mixed, undone)


def _rows_a_turn(manager: AdapterManager, cache: Cache, answer: int) -> int:
    """How many rows a turn takes, the unchanged one among them: at least two."""
    held = sum(part[0].nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    a_row = 2 * held + answer * vocabulary_size(manager.model) * _BYTES_A_LOGIT  # a cache is copied as it grows
    return max(2, min(_TOKENS_A_TURN // answer, _BYTES_A_TURN // a_row))
