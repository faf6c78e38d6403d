"""Can this base run Bitune? Said once, when a base is taken, with the reason: never found out by a wrong answer later."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from bitune.errors import BituneError, UnsupportedModelError, is_out_of_memory, reason
from bitune.modeling.interface import attention_implementation, cache_input, decoder_config, input_device, position_input
from bitune.modeling.masks import DecoderLayout, pass_masks
from bitune.modeling.rotary import probe_lengths
from bitune.schema.variants import Attention

_ORDINARY = (DynamicLayer, DynamicSlidingWindowLayer)
_PROBE_TOKENS = 4
_PROBED_WINDOW = 64  # up to here a prompt longer than the window costs next to nothing


def check_supported(model: PreTrainedModel) -> DecoderLayout:
    """The layout of a base that can run Bitune; UnsupportedModelError says why another cannot.

    Reads the config first, then proves with forwards over a few tokens that the model obeys the masks it is given.
    """
    _check_architecture(model)
    attention_implementation(model)
    layout = DecoderLayout.of(model.config)
    _probe(model, layout)
    with _eval_mode(model):
        lengths = probe_lengths(model, layout)
    context = layout.context if lengths.limit is None else min(layout.context, lengths.limit)
    return replace(layout, context=context, limit=lengths.limit, rotary_switch=lengths.rotary_switch)


@contextmanager
def _eval_mode(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _check_architecture(model: PreTrainedModel) -> None:
    kind = model.config.model_type
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{kind!r} is an encoder-decoder model: its encoder already reads both ways; Bitune is for decoder-only models."
        )
    try:
        cache = DynamicCache(config=model.config)
    except Exception as error:  # transformers raises what comes along for configs without ordinary attention layers
        raise UnsupportedModelError(
            f"{kind!r} has no ordinary key/value cache ({reason(error)}); Bitune mixes keys and values per layer."
        ) from error
    odd = sorted({type(layer).__name__ for layer in cache.layers if type(layer) not in _ORDINARY})
    types = set(getattr(decoder_config(model), "layer_types", None) or ())
    odd += sorted(types - {"full_attention", "sliding_attention"})
    if odd or not cache.layers or model._is_stateful:
        raise UnsupportedModelError(
            f"{kind!r} has layers without an ordinary key/value cache ({', '.join(odd) or 'state-space layers'}); "
            "Bitune mixes keys and values, so every layer needs full or sliding-window attention."
        )


def _probe(model: PreTrainedModel, layout: DecoderLayout) -> None:
    """Own causal masks and padding must change nothing, bidirectional ones must let the first token see the last."""
    kind, was_training = model.config.model_type, model.training
    model.eval()
    try:
        plain, causal, bidirectional, padded = _probe_logits(model, layout)
    except Exception as error:  # models that cannot raise whatever comes along, so only what is known to be otherwise passes
        if is_out_of_memory(error) or isinstance(error, BituneError):
            raise
        raise UnsupportedModelError(
            f"{kind!r} does not run with a 4-D attention mask and a key/value cache ({reason(error)}), "
            "so it cannot read bidirectionally."
        ) from error
    finally:
        model.train(was_training)
    tolerance = (5e-2 if model.dtype != torch.float32 else 1e-3) * plain.abs().max().clamp(min=1e-6)
    if not torch.allclose(plain, causal, atol=tolerance, rtol=0):
        raise UnsupportedModelError(
            f"{kind!r} gives other logits when its own causal mask and positions are passed in, so masks cannot be trusted."
        )
    if not torch.allclose(plain[-1], padded, atol=tolerance, rtol=0):
        raise UnsupportedModelError(
            f"{kind!r} gives other logits when the prompt is padded on the left, so prompts of different lengths cannot share a batch."
        )
    if torch.equal(causal[0], bidirectional[0]):
        raise UnsupportedModelError(f"{kind!r} ignores the attention mask it is given, so it cannot read bidirectionally.")


@torch.no_grad()
def _probe_logits(model: PreTrainedModel, layout: DecoderLayout) -> tuple[torch.Tensor, ...]:
    """Logits of a few tokens: as the model itself reads them, under a causal and under a bidirectional mask of ours, each
    [tokens, vocabulary]; and of the last token behind a padded prefix, as prompts are read and answered [vocabulary]."""
    small = [window for window in layout.windows.values() if window and window <= _PROBED_WINDOW]
    tokens = max([_PROBE_TOKENS, *(window + 2 for window in small)])
    device = input_device(model)
    ids = (torch.arange(tokens, device=device) * 7 + 3)[None] % decoder_config(model).vocab_size
    ones = torch.ones_like(ids)

    def run(ids: torch.Tensor, mask, real: torch.Tensor | None, cache: DynamicCache) -> torch.Tensor:
        placed = {} if real is None else position_input(model, real, ids.shape[1])
        output = model(input_ids=ids, attention_mask=mask, use_cache=True, **cache_input(cache), **placed)
        return output.logits[0].float()

    def masks(attention: Attention, real: torch.Tensor):
        return pass_masks(layout, [attention], real, attention_implementation(model), model.dtype)

    # A cache of the run's own, of the model's kind: some families refuse to make one by themselves.
    caches = [DynamicCache(config=model.config) for _ in range(4)]
    plain = run(ids, None, None, caches[0])
    causal = run(ids, masks("causal", ones), ones, caches[1])
    bidirectional = run(ids, masks("bidirectional", ones), ones, caches[2])
    padding = torch.zeros_like(ids[:, :2])
    longer, real = torch.cat([padding, ids], dim=1), torch.cat([padding, ones], dim=1)
    run(longer[:, :-1], masks("causal", real[:, :-1]), real[:, :-1], caches[3])
    return plain, causal, bidirectional, run(longer[:, -1:], real, real, caches[3])[-1]
