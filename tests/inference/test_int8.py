"""An engine on a base in int8: what it says, keeps in memory and answers, with adapters on top."""

import pytest
import torch
from torch import nn

from bitune import BituneModel, Engine, WrongBaseError, load_base
from bitune.modeling.int8 import Int8Weight, can_pack_int8
from bitune.modeling.packed import PackedLinear, can_pack
from tests.closeness import assert_close
from tests.tiny import bitune_on, ids, saved_base

KINDS = ("lora", "dora", "ia3")
SETTINGS = {"max_new_tokens": 6, "template": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base and a checkpoint of each kind that was trained on it in float32."""
    folder = tmp_path_factory.mktemp("int8")
    base = saved_base(folder / "base")
    for kind in KINDS:
        model = bitune_on(base, "bitune", kind)
        model.save_pretrained(folder / kind)
        model.release()
    return folder


def engine_of(folder, *kinds) -> Engine:
    engine = Engine(load_base(folder / "base", device="cpu", dtype="int8"))
    for kind in kinds:
        engine.add_checkpoint(folder / kind)
    return engine


def packed(engine) -> list[PackedLinear]:
    return [module for module in engine.base.model.modules() if type(module) is PackedLinear]


def answers(engine, names):
    *_, last = engine.stream("hello there", names, **SETTINGS)
    return {name: completion.text for name, completion in last.completions.items()}


def test_the_head_says_int8_and_a_checkpoint_of_the_float32_base_is_this_bases(folder):
    engine = engine_of(folder, "lora")
    assert engine.base_facts.dtype == "int8"
    with pytest.raises(WrongBaseError):  # the bare model does not say what it was before
        BituneModel.from_pretrained(folder / "dora", load_base(folder / "base", device="cpu", dtype="int8").model)


@pytest.mark.skipif(not (can_pack() and can_pack_int8()), reason="no 8 bits here; tests/modeling/test_contract_torch.py says why")
@pytest.mark.parametrize("kinds", [("lora", "dora"), ("ia3",)])
def test_together_equals_one_at_a_time_and_every_linear_layer_has_8_bits(folder, kinds):
    engine = engine_of(folder, *kinds)
    together = answers(engine, ["base", *kinds])
    assert together == {name: answers(engine, [name])[name] for name in ("base", *kinds)}
    layers = packed(engine)
    assert len(layers) == 4 * 7 + 1 and all(type(layer._packed) is Int8Weight for layer in layers)
    assert not any(type(module) is nn.Linear for name, module in engine.base.model.named_modules() if name.endswith("proj"))


def test_adapters_learn_on_the_rounded_weights(folder):
    base = load_base(folder / "base", device="cpu", dtype="int8")
    Engine(base)
    model = bitune_on(base)
    before = {name: value.clone() for name, value in base.model.named_parameters() if name.endswith("base_layer.weight")}
    model(*ids(7, 4)).loss.backward()
    assert any(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(dict(base.model.named_parameters())[name], value) for name, value in before.items())
    assert_close(base.model.lm_head.weight, load_base(folder / "base", device="cpu", dtype="int8").model.lm_head.weight)
