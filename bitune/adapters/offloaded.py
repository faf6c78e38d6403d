"""Adapters on a base of which accelerate keeps some layers on disk or in main memory, and fetches each when it runs (`device_map`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from bitune.errors import CheckpointError


@contextmanager
def stand_ins(model: nn.Module) -> Iterator[None]:
    """Zeros that take no memory in the place of the weights that are not here, until the end of the block.

    PEFT makes an adapter's weights on the device of the layer's own; of those that are not here that is `meta`, where they hold nothing.
    """
    absent = [(module, *entry) for module in model.modules() for entry in module._parameters.items()]
    absent = [(module, name, weight) for module, name, weight in absent if weight is not None and weight.is_meta]
    try:
        for module, name, weight in absent:
            zero = torch.zeros(1, dtype=weight.dtype, device=module._hf_hook.execution_device)
            module._parameters[name] = nn.Parameter(zero.expand(weight.shape), requires_grad=False)
        yield
    finally:
        for module, name, weight in absent:
            module._parameters[name] = weight


def check_present(layers: Sequence[BaseTunerLayer], adapter: str, name: str) -> None:
    """Refuse a DoRA on a layer whose weight is not here: it takes the norm of it besides what the layer computes.

    Args:
        layers: What PEFT has wrapped.
        adapter: An adapter that has just been injected.
        name: What the error calls it.

    Raises:
        CheckpointError: There is such a layer.
    """
    dora = [layer for layer in layers if isinstance(layer, LoraLayer) and adapter in layer.lora_variant]
    if absent := sum(layer.get_base_layer().weight.is_meta for layer in dora):
        raise CheckpointError(
            f"{name} is a DoRA, which needs the weights themselves of the layers it adapts, and {absent} of them are offloaded; give "
            "the base a device_map that keeps them, or use LoRA or IA3."
        )
