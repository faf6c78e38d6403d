"""What bitune needs to know of a loaded transformers model, and the arguments whose form depends on the installed version."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import transformers
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from bitune.errors import UnsupportedModelError
from bitune.modeling.masks import positions

IMPLEMENTATIONS = ("sdpa", "eager")
"""Attention implementations that take a 4-D mask of one's own."""
RECORDING = "bitune_recording"
"""The name under which modeling.recorder registers itself; takes masks as eager does."""
# transformers 5.24 renamed the argument.
_CACHE_ARGUMENT = "cache" if tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 24) else "past_key_values"


def decoder_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The config of the text decoder, which is a part of the config in models of several kinds of input."""
    return model.config.get_text_config(decoder=True)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids go; a model may be spread over several devices."""
    return model.get_input_embeddings().weight.device


def vocabulary_size(model: PreTrainedModel) -> int:
    """Rows of the input embedding: token ids are 0 to this - 1, whatever a config or a tokenizer says."""
    return model.get_input_embeddings().weight.shape[0]


def takes_masks(model: PreTrainedModel) -> bool:
    """Whether the attention implementation in use takes a 4-D mask."""
    return decoder_config(model)._attn_implementation in (*IMPLEMENTATIONS, RECORDING)


def attention_implementation(model: PreTrainedModel) -> str:
    """Name of the attention implementation in use; UnsupportedModelError if it takes no 4-D mask."""
    name = decoder_config(model)._attn_implementation
    if not takes_masks(model):
        raise UnsupportedModelError(
            f"Attention implementation {name!r} takes no mask of one's own, so it cannot read bidirectionally; "
            f"load the base with attn_implementation={' or '.join(map(repr, IMPLEMENTATIONS))}."
        )
    return name


def cache_input(cache: Cache) -> dict[str, object]:
    """The argument that makes a model, or its `generate`, go on from `cache` and write into it."""
    return {_CACHE_ARGUMENT: cache}


def position_input(model: PreTrainedModel, token_mask: Tensor, last: int) -> dict[str, Tensor]:
    """The positions of the tokens that are run now, as an argument of the model's forward.

    Args:
        token_mask: [rows, tokens], 1 on real tokens; covers what the cache holds too.
        last: How many tokens, at the end of `token_mask`, are run now.

    Returns:
        `position_ids` int64 [rows, last]; nothing for a model that takes none.
    """
    return {"position_ids": positions(token_mask)[:, -last:]} if takes_positions(model) else {}


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether tokens stand where they are said to; without, a model counts their places by itself."""
    return "position_ids" in inspect.signature(model.base_model.forward).parameters


@contextmanager
def without_cudnn_attention(device: torch.device) -> Iterator[None]:
    """Attend by torch's other kernels until the end of the block, where `device` is a GPU.

    On a Hopper GPU torch prefers cuDNN's, which is prepared anew for each number of tokens in each thread: some 40 ms a decode step of a
    model that computes it in 12 (Gemma-2B's shape, torch 2.11). The setting is the whole process's, and changes speed alone.
    """
    if device.type != "cuda" or not torch.backends.cuda.cudnn_sdp_enabled():
        yield
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


def logits_at(model: PreTrainedModel, wanted: Tensor, **inputs: object) -> Tensor:
    """Logits [tokens, vocabulary] of the tokens that are True in `wanted` [rows, tokens], row after row; one forward with `inputs`.

    The head, which can be a fifth of a small model, runs on these tokens alone, unless an adapter stands on it: that wants whole rows.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return model(**inputs).logits[wanted]
    hook = head.register_forward_pre_hook(lambda _, arguments: (arguments[0][wanted.to(arguments[0].device)][None],))
    try:
        return model(**inputs).logits[0]
    finally:
        hook.remove()


def attention_modules(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The attention module of every layer among a model's modules, in order: the ones that know their place in the cache."""
    return [module for module in modules if "layer_idx" in vars(module)]


def eager_attention(module: nn.Module) -> Callable | None:
    """The eager attention function of the family that an attention module belongs to; None where it has none."""
    return vars(inspect.getmodule(type(module))).get("eager_attention_forward")


@contextmanager
def before_each_layer(modules: Iterable[nn.Module], check: Callable[[], None]) -> Iterator[None]:
    """Call `check()` before every layer's attention until the end of the block; what it raises ends the forward.

    A long prompt is one forward and may take a minute: this is how it can be stopped on the way.
    """
    hooks = [module.register_forward_pre_hook(lambda *_: check()) for module in attention_modules(modules)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def counted_layers(modules: Iterable[nn.Module], count: Callable[[int], None]) -> Iterator[int]:
    """Call `count(rows times tokens)` before every layer's attention until the end of the block; gives the number of these layers."""
    layers = attention_modules(modules)

    def before(_: nn.Module, arguments: tuple, named: dict) -> None:
        hidden = named["hidden_states"] if "hidden_states" in named else arguments[0]
        count(hidden.shape[0] * hidden.shape[1])

    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    try:
        yield len(layers)
    finally:
        for hook in hooks:
            hook.remove()


def checkpoints_activations(model: PreTrainedModel) -> bool:
    """Whether gradient checkpointing is on in any part of the model."""
    return any(vars(module).get("gradient_checkpointing") for module in model.modules())
