"""Default targets on families where PEFT reads some names otherwise than they stand there."""

import inspect

import peft
import pytest
import torch
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import AfmoeConfig, AutoModelForCausalLM, PreTrainedModel

from bitune import BituneModel, ConfigError
from bitune.adapters.kinds import new_peft_config


def afmoe() -> PreTrainedModel:
    """Its attention has a gate that is called as the experts of other families were before transformers fused them."""
    torch.manual_seed(0)
    config = AfmoeConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        num_experts=4,
        num_experts_per_tok=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def test_peft_rewrites_a_config_as_it_is_asked_here():
    """Private of PEFT: `kinds.py` asks it which names are rewritten."""
    assert list(inspect.signature(convert_peft_config_for_transformers).parameters) == ["peft_config", "model", "conversions"]
    with pytest.raises(ValueError, match="without also targeting up_proj"):
        peft.get_peft_model(afmoe(), peft.LoraConfig(target_modules=["q_proj", "gate_proj"]))


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_default_targets_are_ones_that_peft_adapts(kind):
    base = afmoe()
    config = new_peft_config(base, kind, rank=2)
    assert {"q_proj", "k_proj", "v_proj", "o_proj"} <= set(config.target_modules)
    assert ("gate_proj" in config.target_modules) == (kind == "ia3"), "which PEFT does not rewrite"
    model = BituneModel.create(base, peft_config=config).train()
    loss = model(torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 2]])).loss
    loss.backward()
    # In the last layer the second adapter only reaches the cache through k and v.
    learning = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    assert loss.isfinite() and len(learning) > 4


def test_targets_that_peft_would_take_for_the_experts_are_refused_with_those_to_give():
    for targets in (["q_proj", "gate_proj"], ["gate_proj", "up_proj"], ["down_proj"]):
        with pytest.raises(
            ConfigError, match="On a afmoe PEFT takes the target '(gate|down)_proj' .* among k_proj, o_proj, q_proj"
        ):
            new_peft_config(afmoe(), targets=targets)
    assert set(new_peft_config(afmoe(), targets=["q_proj"]).target_modules) == {"q_proj"}
