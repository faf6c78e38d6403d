"""Attention maps of chosen layers, in either prompt pass and from the answer, and summaries of all layers.

A recording attention function, registered with transformers, runs what the model runs and, for the layers asked for, computes the
weights once more with the model family's own eager function, on the same queries, keys and mask. One layer at a time is
reduced on its device and leaves as numpy.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitune.adapters.manager import AdapterManager
from bitune.errors import ConfigError, UnsupportedModelError
from bitune.model.mixing import take_rows
from bitune.model.prefill import Row, prefill, run_passes
from bitune.modeling.support import RECORDING, attention_implementation, cache_input, position_input
from bitune.schema.results import AnswerMaps, AttentionMaps, HeadSummary
from bitune.schema.variants import PromptPass, Variant

Take = Callable[[int, Tensor], None]


@dataclass
class _Recorder:
    """What runs while recording: the implementation that the model uses, and who takes the weights of which layers."""

    implementation: str
    take: Take
    layers: frozenset[int] | None
    seen: set[int] = field(default_factory=set)


_CURRENT: ContextVar[_Recorder | None] = ContextVar("bitune_recorder", default=None)


@contextmanager
def recording(model: PreTrainedModel, take: Take, layers: Collection[int] | None = None) -> Iterator[_Recorder]:
    """Hand the attention weights of `layers` (default: every one) to `take(layer, weights [rows, heads, query, key])` until the end of the block.

    Query heads, grouped ones expanded. The weights are the model's (its mask, softcap and sinks included); what it computes
    stays as it was. UnsupportedModelError for a family without an eager attention function.
    """
    before = attention_implementation(model)
    recorder = _Recorder(before, take, None if layers is None else frozenset(layers))
    token = _CURRENT.set(recorder)
    try:
        model.set_attn_implementation(RECORDING)
        if attention_implementation(model) != RECORDING:
            raise UnsupportedModelError(
                f"{model.config.model_type!r} does not let its attention function be chosen, so no map can be recorded."
            )
        yield recorder
    finally:
        model.set_attn_implementation(before)
        _CURRENT.reset(token)


def _record(module, query, key, value, attention_mask, **arguments):
    """The attention function under the name RECORDING: [rows, heads, query, dim] in, ([rows, query, heads, dim], None) out."""
    recorder = _CURRENT.get()
    eager = vars(inspect.getmodule(type(module))).get("eager_attention_forward")
    if eager is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} has no eager attention function, so its weights cannot be computed."
        )
    own = ALL_ATTENTION_FUNCTIONS.get_interface(recorder.implementation, eager)
    output, weights = own(module, query, key, value, attention_mask, **arguments)
    recorder.seen.add(module.layer_idx)
    if recorder.layers is None or module.layer_idx in recorder.layers:
        if weights is None:
            weights = eager(module, query, key, value, attention_mask, **arguments)[1]
        # Attention sinks are a key that holds nothing: a column too many in the families that have them.
        recorder.take(module.layer_idx, weights[..., : key.shape[2]])
    return output, None


AttentionInterface.register(RECORDING, _record)
# The additive form: sdpa takes it as well as eager, and it is never left out as the boolean one may be.
AttentionMaskInterface.register(RECORDING, eager_mask)


@torch.no_grad()
def attention_maps(
    manager: AdapterManager, variant: Variant, prompt_ids: Sequence[int], answer_ids: Sequence[int], layers: Sequence[int]
) -> AttentionMaps:
    """Maps of `layers` and summaries of all layers, of the passes over the first P - 1 prompt tokens and of the answer.

    The answer's rows are the last prompt token and every answer token but the last, with the answer adapter: once on the
    variant's cache and once on the cache that its first pass alone leaves. ConfigError for a layer that is not there.
    """
    for layer in layers:
        if not 0 <= layer < manager.layout.layers:
            raise ConfigError(f"There is no layer {layer}; this base has layers 0 to {manager.layout.layers - 1}.")
    ids = torch.tensor([list(prompt_ids)], device=manager.model.get_input_embeddings().weight.device)
    with manager.exclusive():
        passes, summaries = _pass_maps(manager, variant, ids, layers)
        answer, moved = _answer_maps(manager, variant, ids, answer_ids, layers)
    return AttentionMaps(tuple(layers), passes, summaries, answer, *moved)


def _pass_maps(manager: AdapterManager, variant: Variant, ids: Tensor, layers: Sequence[int]):
    """{pass name: maps [layers, heads, P - 1, P - 1]} and {pass name: HeadSummary}."""
    prefix, heads = ids[:, :-1], _heads(manager)
    names = pass_names(variant.passes)
    size = prefix.shape[1]
    maps = {name: np.zeros((len(layers), heads, size, size), np.float16) for name in names}
    summaries = {name: HeadSummary.empty(manager.layout.layers, heads) for name in names}
    if size == 0:
        return maps, summaries
    for name, reading in zip(names, variant.passes, strict=True):
        reduce = _reducer(maps[name], layers, summaries[name])
        with recording(manager.model, reduce) as recorder:
            run_passes(manager, prefix, torch.ones_like(prefix), [(reading, 0)])
        _check_seen(manager, recorder)
    return maps, summaries


def _reducer(maps: np.ndarray, layers: Sequence[int], summary: HeadSummary) -> Take:
    """Writes one layer's weights into `maps` where it is asked for, and its summary; nothing else of it is kept."""
    places = {layer: place for place, layer in enumerate(layers)}

    def take(layer: int, weights: Tensor) -> None:
        if layer in places:
            maps[places[layer]] = weights[0].to(torch.float16).cpu().numpy()
        for measure, values in summarize(weights[0]).items():
            getattr(summary, measure)[layer] = values.cpu().numpy()

    return take


def summarize(weights: Tensor) -> dict[str, Tensor]:
    """Per head, the mean over queries, of `weights` [heads, query, key] whose last query is the last key; float32 [heads] each.

    `look_ahead`: attention on later tokens; `entropy` in nats; `distance`: mean |query - key| in tokens; `first_token`:
    attention on the first token.
    """
    heads, queries, keys = weights.shape
    weights = weights.float()
    distance = torch.arange(keys, device=weights.device) - torch.arange(keys - queries, keys, device=weights.device)[:, None]
    return {
        "look_ahead": weights.masked_fill(distance <= 0, 0).sum(-1).mean(-1),
        "entropy": torch.special.entr(weights).sum(-1).mean(-1),
        "distance": torch.einsum("hqk,qk->hq", weights, distance.abs().float()).mean(-1),
        "first_token": weights[..., 0].mean(-1),
    }


def _answer_maps(manager: AdapterManager, variant: Variant, ids: Tensor, answer_ids: Sequence[int], layers: Sequence[int]):
    """AnswerMaps of the answer, and how far mixing moved keys and values: [layers, P - 1] each."""
    mask = torch.ones_like(ids)
    cache = prefill(manager, ids, mask, [Row.of(variant, 0), Row(0, variant.passes[:1])])
    moved = (
        [_moved(cache, kind) for kind in ("keys", "values")]
        if ids.shape[1] > 1
        else [np.zeros((manager.layout.layers, 0), np.float32)] * 2
    )
    inputs = torch.cat([ids[:, -1:], torch.tensor([list(answer_ids)[:-1]], dtype=torch.long, device=ids.device)], dim=1).expand(
        2, -1
    )
    full = torch.ones((2, ids.shape[1] + inputs.shape[1] - 1), dtype=torch.long, device=ids.device)
    heads, shape = _heads(manager), (inputs.shape[1], full.shape[1])
    maps = [np.zeros((len(layers), heads, *shape), np.float16) for _ in range(2)]
    places = {layer: place for place, layer in enumerate(layers)}

    def take(layer: int, weights: Tensor) -> None:
        if layer in places:
            for row, target in enumerate(maps):
                # A sliding layer holds the last tokens only; the others have weight 0.
                target[places[layer]][..., shape[1] - weights.shape[-1] :] = weights[row].to(torch.float16).cpu().numpy()

    placed = position_input(manager.model, full, inputs.shape[1])
    with recording(manager.model, take, layers), manager.active_adapter(variant.answer_adapter):
        own = take_rows(cache, torch.tensor([0, 1]))
        manager.model(input_ids=inputs, attention_mask=full, use_cache=True, **cache_input(own), **placed)
    return AnswerMaps(*maps), moved


def _moved(cache, kind: str) -> np.ndarray:
    """||mixed - first|| / ||first|| of a layer's keys or values, per token, over heads: [layers, P - 1], nan where not kept."""
    tokens = cache.get_seq_length()
    result = np.full((len(cache.layers), tokens), np.nan, np.float32)
    for index, layer in enumerate(cache.layers):
        mixed, first = getattr(layer, kind).float().transpose(1, 2).flatten(2)
        ratio = (mixed - first).norm(dim=-1) / first.norm(dim=-1).clamp(min=1e-9)
        result[index, tokens - len(ratio) :] = ratio.cpu().numpy()
    return result


def pass_names(passes: Sequence[PromptPass]) -> list[str]:
    """What passes are called in results: their attentions; the second of two alike is `second causal`, say."""
    names = [reading.attention for reading in passes]
    return [name if name not in names[:place] else f"second {name}" for place, name in enumerate(names)]


def _heads(manager: AdapterManager) -> int:
    return manager.model.config.get_text_config(decoder=True).num_attention_heads


def _check_seen(manager: AdapterManager, recorder: _Recorder) -> None:
    missing = set(range(manager.layout.layers)) - recorder.seen
    if missing:
        raise UnsupportedModelError(
            f"{manager.model.config.model_type!r} ran layers {sorted(missing)} without the attention function it was given, so no map is known."
        )
