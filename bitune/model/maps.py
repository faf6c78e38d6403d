"""Attention maps of chosen layers, in either prompt pass and from the answer, and summaries of all layers.

The weights come from modeling.recorder; one layer at a time is reduced on its device and leaves as numpy.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bitune.adapters.manager import AdapterManager
from bitune.cancellation import check, current
from bitune.errors import ConfigError, UnsupportedModelError
from bitune.model.decoding import PromptCache, recall_prompts, score
from bitune.model.passes import known_with_queries, run_and_keep
from bitune.model.prefill import Row
from bitune.modeling.interface import input_device
from bitune.modeling.pass_store import StoredPass
from bitune.modeling.queries import attention_weights
from bitune.modeling.recorder import Recorder, Take, recording
from bitune.schema.results import AnswerMaps, AttentionMaps, HeadSummary
from bitune.schema.variants import PromptPass, Variant


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
    ids = torch.tensor([list(prompt_ids)], device=input_device(manager.model))
    with manager.eval_turn():
        passes, summaries = _pass_maps(manager, variant, ids, layers)
        answer, moved = _answer_maps(manager, variant, ids, answer_ids, layers)
    return AttentionMaps(tuple(layers), passes, summaries, answer, *moved)


def _pass_maps(manager: AdapterManager, variant: Variant, ids: Tensor, layers: Sequence[int]):
    """{pass name: maps [layers, heads, P - 1, P - 1]} and {pass name: HeadSummary}."""
    prefix, heads = ids[:, :-1], manager.layout.heads
    names = pass_names(variant.passes)
    size = prefix.shape[1]
    maps = {name: np.zeros((len(layers), heads, size, size), np.float16) for name in names}
    summaries = {name: HeadSummary.empty(manager.layout.layers, heads) for name in names}
    if size == 0:
        return maps, summaries
    reducers = [_reducer(maps[name], layers, summaries[name]) for name in names]
    wanted = [(one, 0) for one in variant.passes]
    if (known := known_with_queries(manager, prefix, torch.ones_like(prefix), wanted)) is not None:
        for reduce, stored in zip(reducers, known, strict=True):
            _reduce_known(stored, reduce)
        return maps, summaries
    for batch in manager.batches([prompt_pass.adapter for prompt_pass in variant.passes]):

        def take(layer: int, weights: Tensor, batch: Sequence[int] = batch) -> None:
            for row, index in enumerate(batch):
                reducers[index](layer, weights[row : row + 1])

        with recording(manager.model, take) as recorder:
            run_and_keep(manager, prefix, torch.ones_like(prefix), [wanted[index] for index in batch])
        _check_seen(manager, recorder)
    return maps, summaries


def _reduce_known(stored: StoredPass, reduce: Take) -> None:
    """Hand on the weights of a pass whose queries are kept, layer by layer: nothing of the model is run."""
    for layer, weights in enumerate(attention_weights(stored.queries, stored.layers)):
        check(current())
        reduce(layer, weights)


def _reducer(maps: np.ndarray, layers: Sequence[int], summary: HeadSummary) -> Take:
    """Writes one layer's weights into `maps` where it is asked for, and its summary; nothing else of it is kept."""
    index_of = {layer: index for index, layer in enumerate(layers)}

    def take(layer: int, weights: Tensor) -> None:
        if layer in index_of:
            maps[index_of[layer]] = weights[0].to(torch.float16).cpu().numpy()
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


def _answer_maps(
    manager: AdapterManager, variant: Variant, ids: Tensor, answer_ids: Sequence[int], layers: Sequence[int]
) -> tuple[AnswerMaps, list[np.ndarray]]:
    """AnswerMaps of the answer, and how far mixing moved keys and values: [layers, P - 1] each."""
    prompts = _mixed_and_first(manager, variant, ids)
    rows = prompts.rows
    moved = _moved(prompts)
    # An answer is read after the last prompt token; without one, that token alone is.
    answer = torch.tensor([list(answer_ids) or [0]], dtype=torch.long, device=ids.device).expand(2, -1)
    queries, keys = answer.shape[1], ids.shape[1] - 1 + answer.shape[1]
    maps = [np.zeros((len(layers), manager.layout.heads, queries, keys), np.float16) for _ in rows]
    index_of = {layer: index for index, layer in enumerate(layers)}

    def take(layer: int, weights: Tensor) -> None:
        if layer in index_of:
            for row, target in enumerate(maps):
                # A sliding layer holds the last tokens only; the others have weight 0.
                target[index_of[layer]][..., keys - weights.shape[-1] :] = weights[row].to(torch.float16).cpu().numpy()

    with recording(manager.model, take, layers):
        score(prompts, [0, 1], answer, torch.ones_like(answer), lambda *_: None)
    return AnswerMaps(*maps), moved


@torch.no_grad()
def moved_cache(manager: AdapterManager, variant: Variant, prompt_ids: Sequence[int]) -> list[np.ndarray]:
    """How far mixing moves the keys, and the values, of the first P - 1 prompt tokens: as in `AttentionMaps`, without a map. Passes that
    are remembered are not run again."""
    ids = torch.tensor([list(prompt_ids)], device=input_device(manager.model))
    with manager.eval_turn():
        return _moved(_mixed_and_first(manager, variant, ids))


def _mixed_and_first(manager: AdapterManager, variant: Variant, ids: Tensor) -> PromptCache:
    """Two rows: the variant's cache, and the one that its first pass alone leaves."""
    rows = [Row.of(variant, 0), Row(0, variant.passes[:1], answer_adapter=variant.answer_adapter)]
    return recall_prompts(manager, ids, torch.ones_like(ids), rows)


def _moved(prompts: PromptCache) -> list[np.ndarray]:
    """Of `_mixed_and_first`: for keys and for values, [layers, P - 1]."""
    if prompts.ids.shape[1] == 1:
        return [np.zeros((prompts.manager.layout.layers, 0), np.float32) for _ in range(2)]
    return [_distances(prompts.cache, kind) for kind in ("keys", "values")]


def _distances(cache, kind: str) -> np.ndarray:
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
    names = [prompt_pass.attention for prompt_pass in passes]
    return [f"second {name}" if name in names[:index] else name for index, name in enumerate(names)]


def _check_seen(manager: AdapterManager, recorder: Recorder) -> None:
    missing = set(range(manager.layout.layers)) - recorder.seen
    if missing:
        raise UnsupportedModelError(
            f"{manager.model.config.model_type!r} ran layers {sorted(missing)} without the attention function it was given, so no map is known."
        )
