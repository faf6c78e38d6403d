"""Can this base run Bitune? Said once, when a base is taken, with the reason: never found out by a wrong answer later."""

import inspect

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from bitune.errors import UnsupportedModelError
from bitune.masks import AttentionLayout, pass_masks, positions

IMPLEMENTATIONS = ("sdpa", "eager")
RECORDING = "bitune_recording"  # what attention.py registers; takes masks as eager does
_ORDINARY = (DynamicLayer, DynamicSlidingWindowLayer)
_PROBE_TOKENS = 4


def attention_implementation(model: PreTrainedModel) -> str:
    """Name of the attention implementation in use; UnsupportedModelError unless it takes 4-D masks."""
    name = model.config.get_text_config(decoder=True)._attn_implementation
    if name not in (*IMPLEMENTATIONS, RECORDING):
        raise UnsupportedModelError(
            f"Attention implementation {name!r} takes no mask of one's own, so it cannot read bidirectionally; "
            f"load the base with attn_implementation={' or '.join(map(repr, IMPLEMENTATIONS))}."
        )
    return name


def check_supported(model: PreTrainedModel) -> AttentionLayout:
    """The layout of a base that can run Bitune; UnsupportedModelError says why another cannot.

    Reads the config first, then proves with forwards over four tokens that the model obeys the masks it is given.
    """
    _check_architecture(model)
    attention_implementation(model)
    layout = AttentionLayout.of(model.config)
    _probe(model, layout)
    return layout


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
            f"{kind!r} has no ordinary key/value cache ({type(error).__name__}: {error}); Bitune mixes keys and values per layer."
        ) from error
    odd = sorted({type(layer).__name__ for layer in cache.layers if type(layer) not in _ORDINARY})
    types = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())
    odd += sorted(types - {"full_attention", "sliding_attention"})
    if odd or not cache.layers or model._is_stateful:
        raise UnsupportedModelError(
            f"{kind!r} has layers without an ordinary key/value cache ({', '.join(odd) or 'state-space layers'}); "
            "Bitune mixes keys and values, so every layer needs full or sliding-window attention."
        )


@torch.no_grad()
def _probe(model: PreTrainedModel, layout: AttentionLayout) -> None:
    """Causal masks must change nothing, bidirectional ones must let the first token see the last."""
    kind, device = model.config.model_type, model.get_input_embeddings().weight.device
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    ids = (torch.arange(_PROBE_TOKENS, device=device) * 7 + 3)[None] % vocabulary
    ones = torch.ones_like(ids)

    def logits(attention: str | None) -> torch.Tensor:
        mask = ones
        if attention is not None:
            mask = pass_masks(layout, [attention], ones, attention_implementation(model), model.dtype)
        # A cache of the run's own, of the model's kind: some families refuse to make one by themselves.
        cache = DynamicCache(config=model.config)
        output = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **position_input(model, ones))
        return output.logits[0, 0].float()

    was_training = model.training
    model.eval()
    try:
        plain, causal, both = logits(None), logits("causal"), logits("bidirectional")
    except Exception as error:
        raise UnsupportedModelError(
            f"{kind!r} does not run with a 4-D attention mask and a key/value cache ({type(error).__name__}: {error}), "
            "so it cannot read bidirectionally."
        ) from error
    finally:
        model.train(was_training)
    scale = plain.abs().max().clamp(min=1e-6)
    if not torch.allclose(plain / scale, causal / scale, atol=5e-2 if model.dtype != torch.float32 else 1e-3):
        raise UnsupportedModelError(
            f"{kind!r} gives other logits when its own causal mask is passed in, so masks cannot be trusted."
        )
    if torch.equal(causal, both):
        raise UnsupportedModelError(f"{kind!r} ignores the attention mask it is given, so it cannot read bidirectionally.")


def position_input(model: PreTrainedModel, token_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """`position_ids` for a batch with padding, or nothing for a model that takes none. `token_mask` [rows, tokens]."""
    takes = "position_ids" in inspect.signature(model.base_model.forward).parameters
    return {"position_ids": positions(token_mask)} if takes else {}
