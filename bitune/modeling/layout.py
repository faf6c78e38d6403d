"""What bitune reads from a model's config and modules, asked for once, when a base is taken: whoever needs a number later finds it here."""

import sys

from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from bitune.errors import UnsupportedModelError, shown
from bitune.modeling.interface import decoder_config
from bitune.modeling.masks import DecoderLayout

_ORDINARY_TYPES = {"full_attention", "sliding_attention"}
_ORDINARY_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
_CONTEXT_NAMES = (
    "max_position_embeddings",
    "max_seq_len",
    "max_target_positions",
)  # by family; the first one that is there counts


def read_layout(model: PreTrainedModel) -> DecoderLayout:
    """The layout of a model whose layers have an ordinary key/value cache; UnsupportedModelError names what is missing or odd.

    `limit` and `rotary_switch` are not known from a config: modeling.rotary finds them.
    """
    text = decoder_config(model)
    layers = _cache_layers(model)
    windows = [layer.sliding_window if layer.is_sliding else None for layer in layers]
    # Older families have one window for all layers and no list of layer types.
    types = getattr(text, "layer_types", None) or ["all"] * len(layers)
    # Where the config does not say it, a token's vector is as wide as the layers are.
    width = _number(model, "hidden_size") if _has(text, "hidden_size") else model.get_input_embeddings().weight.shape[1]
    return DecoderLayout(
        layers=len(layers),
        heads=_number(model, "num_attention_heads"),
        context=_context(model),
        windows=dict(zip(types, windows, strict=True)),
        hidden_size=width,
    )


def _cache_layers(model: PreTrainedModel) -> list[DynamicLayer]:
    """The layers of the key/value cache that transformers makes for this model."""
    kind, text = model.config.model_type, decoder_config(model)
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{kind!r} is an encoder-decoder model: its encoder already reads both ways; Bitune is for decoder-only models."
        )
    types = getattr(text, "layer_types", None)
    odd = sorted(map(str, set(types or ()) - _ORDINARY_TYPES))
    if not odd and model._is_stateful:
        odd = ["state-space layers"]
    if not odd:
        layers = _number(model, "num_hidden_layers")
        if types is not None and len(types) != layers:
            raise UnsupportedModelError(
                f"The config of this {kind!r} base has num_hidden_layers {layers} and {len(types)} layer_types; correct its config.json."
            )
        cache = DynamicCache(config=model.config)
        odd = sorted({type(layer).__name__ for layer in cache.layers if type(layer) not in _ORDINARY_LAYERS})
    if odd:
        raise UnsupportedModelError(
            f"{kind!r} has layers without an ordinary key/value cache ({', '.join(odd)}); Bitune mixes keys and values, so every layer needs "
            "full or sliding-window attention."
        )
    return cache.layers


def _context(model: PreTrainedModel) -> int:
    """The longest input that the config names, in tokens; without one there is no limit: positions are distances, say (ALiBi)."""
    text = decoder_config(model)
    named = [name for name in _CONTEXT_NAMES if _has(text, name) and getattr(text, name) != -1]  # XLNet's way to say "no limit"
    return _number(model, named[0]) if named else sys.maxsize


def _has(config: PreTrainedConfig, name: str) -> bool:
    """Whether a config has a value under this name, or under the one that its family uses for it."""
    return getattr(config, name, None) is not None


def _number(model: PreTrainedModel, name: str) -> int:
    """A whole number above 0 from the decoder's config; UnsupportedModelError where there is none."""
    kind, text = model.config.model_type, decoder_config(model)
    if not _has(text, name):
        raise UnsupportedModelError(
            f"The config of this {kind!r} base has no {name}, which Bitune needs; add it to its config.json, or choose another base."
        )
    value = getattr(text, name)
    if type(value) is not int or not 1 <= value <= sys.maxsize:
        raise UnsupportedModelError(
            f"The config of this {kind!r} base has {name} {shown(value)}, and Bitune needs one whole number above 0; "
            "correct its config.json, or choose another base."
        )
    return value
