"""Training in shards: accelerate's FSDP 2, where every process keeps a part of each weight and gathers a layer when it runs.

Knows models and accelerate's plugin; knows no Trainer and no file.
"""

from collections.abc import Sequence

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from transformers import Cache

from bitune.data.batches import TokenPair
from bitune.errors import ConfigError
from bitune.model.bitune_model import BituneModel
from bitune.modeling.interface import attention_modules


def prepare(model: BituneModel, plugin: FullyShardedDataParallelPlugin, pairs: Sequence[TokenPair]) -> None:
    """Make `model` one that accelerate can put into shards, layer by layer.

    Args:
        plugin: how; its precision is left to autocast, as without shards: FSDP would round adapters, theta and loss to 16 bits.
        pairs: token ids that will be trained on.

    Raises:
        ConfigError: what accelerate's config asks for does not go together with two readings of a prompt.
    """
    if plugin.fsdp_version != 2:
        raise ConfigError(
            f"accelerate's config asks for FSDP {plugin.fsdp_version}, which joins frozen and trained weights of a layer; set "
            "fsdp_version: 2 there (--fsdp_version 2)."
        )
    if plugin.activation_checkpointing:
        raise ConfigError(
            "accelerate's config has fsdp_activation_checkpointing on, which runs a layer again in the backward pass, when another "
            "adapter is active; turn it off to train."
        )
    if any(len(pair.prompt_ids) < 2 for pair in pairs):
        # A process with none but such prompts in its batch would gather no layer for them, and the others would wait for it.
        raise ConfigError(
            "A prompt to train on has one token, so there is nothing to read twice, and processes that train in shards must run the "
            "same passes; leave it out."
        )
    model.manager.in_shards = True
    plugin.mixed_precision_policy = MixedPrecisionPolicy()
    kinds = {type(module).__name__ for module in model.base.modules()}
    model._no_split_modules = sorted(kinds.intersection(model.base._no_split_modules))  # accelerate makes a unit of each of them
    model.base.base_model.register_forward_hook(_gather_for_cache, with_kwargs=True)


def _gather_for_cache(decoder: nn.Module, _, named: dict[str, object], __) -> None:
    """Gather a layer's weights also when the gradient of its keys and values arrives.

    FSDP does so for the gradient of what a layer returned, but these leave it through the cache, and of the last layer of a prompt
    pass nothing else is used.
    """
    if not torch.is_grad_enabled():
        return
    cache = next(value for value in named.values() if isinstance(value, Cache))
    units = [(name, module) for name, module in decoder.named_modules() if isinstance(module, FSDPModule)]
    paths = {id(module): name for name, module in decoder.named_modules()}
    for attention, layer in zip(attention_modules(decoder.modules()), cache.layers, strict=True):
        path = f"{paths[id(attention)]}."
        around = [unit for name, unit in units if path.startswith(f"{name}.")]
        for tensor in (layer.keys, layer.values):
            if around and tensor.requires_grad:
                tensor.register_hook(lambda _, unit=around[-1]: unit.unshard())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, where this process has a part of it; then every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: BituneModel) -> dict[str, Tensor]:
    """The part of the state dict that is trained, all of it in every process; every process must ask."""
    return {name: whole(parameter.detach()) for name, parameter in model.named_parameters() if parameter.requires_grad}


def whole_moments(optimizer: Optimizer) -> dict[str, object]:
    """The optimizer's state dict, all of every tensor in every process, as an optimizer without shards has it; every process must ask."""
    saved = optimizer.state_dict()
    state = {number: {name: whole(value) for name, value in moments.items()} for number, moments in saved["state"].items()}
    return {**saved, "state": state}


def load_moments(optimizer: Optimizer, saved: dict[str, object]) -> None:
    """Give an optimizer of weights in shards this process's part of what `whole_moments` returned; every process must do so."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def part(number: int, value: Tensor) -> Tensor:  # the count of updates is a number and has no parts
        weight = weights[number]
        return distribute_tensor(value, weight.device_mesh, weight.placements) if value.dim() else value

    state = {number: {name: part(number, value) for name, value in moments.items()} for number, moments in saved["state"].items()}
    optimizer.load_state_dict({**saved, "state": state})


def keep_whole(model: BituneModel) -> None:
    """Put all of every trained weight in the place of this process's part, so that any process alone can save the model.

    The base stays in shards: the model runs no more.
    """
    if isinstance(model, FSDPModule):
        model.reshard()  # a loss on held-out pairs leaves some weights gathered, and FSDP would put the parts back later
    for name, value in whole_state(model).items():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, nn.Parameter(value))
