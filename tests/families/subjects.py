"""One family's tiny model twice: under bitune with adapters, and as transformers and PEFT run it without bitune."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedModel

from bitune import BituneModel
from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.schema.variants import BASE, Variant
from tests.families.tiny_configs import tiny_config
from tests.tiny import randomized

_SCALE = 0.05  # of what is added to adapters, norms, biases and sinks


def tiny_model(family: str) -> PreTrainedModel:
    """A random model of `family`, float32, eval mode."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms, biases and sinks begin at 0 or 1, where one that is left out would not show
            parameter.data += _SCALE * torch.randn(parameter.shape, generator=generator)
    return model


@dataclass
class Subject:
    """A family's model under bitune, and the same weights without it.

    Attributes:
        manager: Of the model that bitune runs.
        variants: `base`, `lora` and `bitune`.
        plain: The bare model, which bitune has never seen.
        peft: The same under PEFT, with the adapters `lora`, `causal` and `bidirectional`.
        models: Hold the adapters on the base.
    """

    manager: AdapterManager
    variants: dict[str, Variant]
    plain: PreTrainedModel
    peft: PeftModel
    models: Sequence[BituneModel]

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Subject":
        """Both sides of a comparison; UnsupportedModelError if bitune refuses the model."""
        plain, under_peft = copy.deepcopy(model), copy.deepcopy(model)
        manager = AdapterManager.of(model)
        config = new_peft_config(model, rank=4)
        lora = randomized(BituneModel.create(model, "lora", config), 1, _SCALE)
        bitune = randomized(BituneModel.create(model, "bitune", config), 2, _SCALE)
        causal, bidirectional = (one.adapter for one in bitune.variant.passes)
        peft = get_peft_model(under_peft, copy.deepcopy(config), adapter_name="lora")
        for name, ours in {"lora": lora.variant.answer_adapter, "causal": causal, "bidirectional": bidirectional}.items():
            if name != "lora":
                peft.add_adapter(name, copy.deepcopy(config))
            set_peft_model_state_dict(peft, manager.weights(ours), adapter_name=name)
        variants = {"base": BASE.with_mixing(None), "lora": lora.variant, "bitune": bitune.variant}
        return cls(manager, variants, plain, peft.eval(), (lora, bitune))

    def reference(self, variant: str) -> PreTrainedModel | PeftModel:
        """What runs `base` or `lora` without bitune."""
        if variant == "base":
            return self.plain
        self.peft.set_adapter("lora")
        return self.peft
