"""A tiny model with two random adapters, put on it by PEFT alone, for the tests of what bitune relies on in it."""

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from tests.tiny import ids, tiny_model

TARGETS = ["q_proj", "v_proj", "down_proj"]
CONFIGS = {
    "lora": lambda: LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS),
    "dora": lambda: LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, use_dora=True),
    "ia3": lambda: IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
}
NAMES = ("one", "two")
kinds = pytest.mark.parametrize("kind", CONFIGS)
(PROMPT,) = ids(9)


def wrapped(model: nn.Module) -> list[BaseTunerLayer]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def adapted(config: PeftConfig, other: PeftConfig | None = None) -> PreTrainedModel:
    """A tiny Llama in eval mode that carries the adapters `one` and `two`, both random."""
    model = tiny_model()
    for name, each in zip(NAMES, (config, other or config), strict=True):
        inject_adapter_in_model(each, model, name)
    return randomize(model)


def randomize(model: nn.Module) -> nn.Module:
    """Random adapters, the same for the same names and shapes; what is a factor lies around 1."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if any(f".{adapter}" in name for adapter in NAMES):
            factor = "ia3_l" in name or "magnitude" in name
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator) + factor
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, rows: int = 1) -> torch.Tensor:
    return model(PROMPT.expand(rows, -1)).logits


def switch(model: nn.Module, adapter: str | None) -> None:
    """As bitune does: layer by layer, without gradients."""
    for layer in wrapped(model):
        layer.enable_adapters(adapter is not None)
        if adapter is not None:
            layer.set_adapter(adapter, inference_mode=True)
