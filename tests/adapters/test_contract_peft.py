"""What bitune relies on in PEFT beyond its documentation. Each test says in words what that is, and what of ours breaks.

First what would be wrong in silence: other numbers, or parameters that no longer learn, without any exception. These tests know
PEFT only, so that they tell a change of the library from a fault of ours.
"""

import warnings
from contextlib import contextmanager

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from tests.adapters.injected import CONFIGS, NAMES, PROMPT, TARGETS, adapted, kinds, logits, randomize, switch, wrapped
from tests.closeness import assert_apart, assert_close
from tests.tiny import tiny_model

# PEFT asks transformers for a property under its old name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]


def learning(model: nn.Module) -> set[str]:
    """The adapters of which all parameters require gradients; nothing else may."""
    names = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    found = {adapter for adapter in NAMES if all(on for name, on in names.items() if f".{adapter}" in name)}
    assert not [name for name, on in names.items() if on and not any(f".{adapter}" in name for adapter in found)]
    return found


# --- which adapter runs -------------------------------------------------------------------------------------------------


@kinds
def test_the_switches_of_the_layers_choose_what_runs(kind):
    """`set_adapter` and `enable_adapters` of every layer: the same as PeftModel.set_adapter, and the bare base to the bit."""
    bare = logits(tiny_model())
    peft = PeftModel(tiny_model(), CONFIGS[kind](), adapter_name="one")
    peft.add_adapter("two", CONFIGS[kind]())
    randomize(peft.get_base_model())
    expected = {None: bare}
    for name in NAMES:
        peft.set_adapter(name)
        expected[name] = logits(peft)
    model = adapted(CONFIGS[kind]())
    assert_apart(expected["one"], expected["two"])
    assert_apart(expected["one"], bare)
    for name in ("two", None, "one", None, "two", "one"):
        switch(model, name)
        assert torch.equal(logits(model), expected[name]), f"AdapterManager._activate({name!r}) would run something else"


@kinds
def test_switching_takes_gradients_from_all_adapters_and_set_requires_grad_gives_them_back(kind):
    """`inference_mode=True` gives none to the active one, and `set_requires_grad` gives them to both without switching.

    Both adapters of a Bitune model learn at once; were one of them frozen, it would stay as it was, and nobody would be told.
    """
    model = adapted(CONFIGS[kind]())
    for name in ("one", None, "two"):
        switch(model, name)
        assert learning(model) == set(), "an adapter that is loaded to be used only would learn beside another"
        running = logits(model)
        for layer in wrapped(model):
            layer.set_requires_grad(list(NAMES), True)
        assert learning(model) == set(NAMES), "an adapter of a model in training would not learn"
        assert torch.equal(logits(model), running)


@kinds
def test_gradients_reach_an_adapter_that_ran_before_another_was_switched_to(kind):
    """One forward under each adapter, one backward: the passes of Bitune. Switching must not cut the graph of what has run."""
    model = adapted(CONFIGS[kind]())
    losses = []
    for name in NAMES:
        switch(model, name)
        for layer in wrapped(model):
            layer.set_requires_grad(list(NAMES), True)
        losses.append(model(PROMPT).logits.square().mean())
    sum(losses).backward()
    for name in NAMES:
        gradients = [p.grad for key, p in model.named_parameters() if f".{name}" in key]
        assert gradients and all(g is not None and g.abs().max() > 0 for g in gradients), f"{name} would not learn"


@contextmanager
def rows_named(model: nn.Module, names: list[str]):
    """Row r of what every layer gets runs under `names[r]`: by a pre-hook that adds `adapter_names`, as bitune does."""
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: (args, kwargs | {"adapter_names": names}), with_kwargs=True)
        for layer in wrapped(model)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("active", NAMES)
def test_rows_run_under_the_adapters_that_adapter_names_gives(active):
    """Whichever adapter is active; `__base__` is a row without adapter. A name that a layer does not have counts as that too."""
    other = LoraConfig(r=2, lora_alpha=3, target_modules=["v_proj", "o_proj"], use_rslora=True)
    model = adapted(CONFIGS["lora"](), other)
    alone = {"__base__": logits(tiny_model())}
    for name in NAMES:
        switch(model, name)
        alone[name] = logits(model)
    order = ["two", "__base__", "one", "one", "__base__", "two"]
    switch(model, active)
    with rows_named(model, order):
        found = logits(model, len(order))
    for row, name in enumerate(order):
        assert_close(found[row : row + 1], alone[name])
    assert torch.equal(logits(model), alone[active])


def test_adapter_names_do_nothing_while_adapters_are_off():
    """So bitune activates one of them for a batch of rows: else every row would be the base."""
    model = adapted(CONFIGS["lora"]())
    switch(model, None)
    with rows_named(model, ["one", "two"]):
        assert torch.equal(logits(model, 2), logits(tiny_model(), 2)), (
            "PEFT now obeys adapter_names while adapters are off: AdapterManager._rows need not activate one any more"
        )


def test_a_layer_tells_its_dora_adapters_in_lora_variant():
    """And no others: rank-stabilized LoRA is none. By it bitune decides what can share a batch and what casts can be spared."""
    model = adapted(CONFIGS["dora"](), LoraConfig(r=4, target_modules=TARGETS, use_rslora=True))
    for layer in wrapped(model):
        assert isinstance(layer, LoraLayer)
        assert set(layer.lora_variant) == {"one"}, "can_mix and under_autocast would take a DoRA adapter for a plain one"
    switch(model, "two")
    with rows_named(model, ["one", "two"]), pytest.raises(ValueError, match="DoRA"):
        logits(model, 2)
    model = adapted(CONFIGS["ia3"]())
    assert not any(isinstance(layer, LoraLayer) for layer in wrapped(model)), "IA3 would be mixed in one batch as LoRA is"


@pytest.mark.parametrize("stabilized", [False, True])
def test_a_lora_layer_adds_two_products_and_a_factor(stabilized):
    """base(x) + B(A(x)) x scaling, `lora_A`, `lora_B` and `scaling` by the adapter's name; scaling is alpha / r, or / sqrt(r)."""
    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, use_rslora=stabilized)
    model = adapted(config)
    switch(model, "two")
    generator = torch.Generator().manual_seed(3)
    for layer in wrapped(model):
        x = torch.randn(2, 5, layer.in_features, generator=generator)
        assert layer.scaling["two"] == (3.0 if stabilized else 1.5)
        expected = layer.get_base_layer()(x) + layer.lora_B["two"](layer.lora_A["two"](x)) * layer.scaling["two"]
        assert_close(layer(x), expected, "rows computed from A, B and scaling would not be what PEFT computes")


def test_what_is_injected_into_a_model_in_eval_mode_is_in_training_mode():
    """So its dropout is on, and answers differ from run to run, until somebody calls eval() after every adapter that is added."""
    model = tiny_model()
    inject_adapter_in_model(LoraConfig(r=4, target_modules=TARGETS, lora_dropout=0.5, init_lora_weights=False), model, "one")
    assert not model.training
    assert any(module.training for module in model.modules()), "PEFT takes over the mode now: bitune need not set it any more"
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert torch.equal(logits(model), logits(model))


# --- what comes and goes --------------------------------------------------------------------------------------------------


@kinds
def test_injecting_wraps_the_very_layers_of_the_base_in_place(kind):
    """`get_base_layer` returns what was there; put back, and `peft_config` taken away, the model is what it was."""
    model = tiny_model()
    before, attributes, bare = dict(model.named_modules()), set(vars(model)), logits(model)
    weights = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    assert inject_adapter_in_model(CONFIGS[kind](), model, "one") is model
    layers = {path: module for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    assert {path.rsplit(".", 1)[1] for path in layers} == set(TARGETS) and len(layers) == len(TARGETS) * 4
    for path, layer in layers.items():
        assert layer.get_base_layer() is before[path], "a base that gives up its last adapter would keep other layers than it had"
        model.set_submodule(path, layer.get_base_layer())
    assert set(vars(model)) - attributes == {"peft_config"}, "PEFT leaves something else on the base: _unwrap must take it off"
    del model.peft_config
    assert dict(model.named_modules()) == before and torch.equal(logits(model), bare)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == weights


@kinds
def test_delete_adapter_of_a_layer_takes_one_adapter_whole_and_leaves_the_other(kind):
    """No parameter and no `lora_variant` of it stays, and nothing is said as long as another one is active."""
    model = adapted(CONFIGS[kind]())
    switch(model, "two")
    expected = logits(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in wrapped(model):
            layer.delete_adapter("one")
    model.peft_config.pop("one")
    assert not [name for name, _ in model.named_parameters() if ".one" in name], "weights of a removed adapter stay in memory"
    assert all("one" not in vars(layer).get("lora_variant", {}) for layer in wrapped(model))
    assert torch.equal(logits(model), expected)
    switch(model, None)
    assert torch.equal(logits(model), logits(tiny_model()))
    inject_adapter_in_model(CONFIGS["lora" if kind == "dora" else kind](), model, "one")  # the name is free, for another kind too
    assert set(model.peft_config) == {"one", "two"}
    switch(model, "two")
    assert torch.equal(logits(model.eval()), expected)


@kinds
def test_weights_have_the_keys_of_a_peft_folder_and_go_back_in(kind):
    """Paths without the adapter's name out; in with `base_model.model.` before them, as files have it, or without.

    `set_peft_model_state_dict` only returns the keys that it does not know: a prefix that it no longer took off would load nothing.
    """
    model = adapted(CONFIGS[kind]())
    one, two = (get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False) for name in NAMES)
    assert all(key.startswith("model.layers.") and ".one" not in key for key in one) and one.keys() == two.keys()
    numbers = sum(parameter.numel() for key, parameter in model.named_parameters() if ".one" in key)
    assert sum(value.numel() for value in one.values()) == numbers, "a checkpoint would lack a part of its adapter"
    state = {key: value * 2 for key, value in model.state_dict().items()}
    doubled = get_peft_model_state_dict(model, state, adapter_name="one", save_embedding_layers=False)
    assert doubled.keys() == one.keys(), "weights gathered from other processes would not be saved"
    assert all(torch.equal(value, one[key] * 2) for key, value in doubled.items())
    switch(model, "one")
    expected = logits(model)
    switch(model, "two")
    assert_apart(logits(model), expected)
    set_peft_model_state_dict(model, {f"base_model.model.{key}": value.clone() for key, value in one.items()}, adapter_name="two")
    assert torch.equal(logits(model), expected), "a checkpoint that is loaded would answer otherwise than the one saved"
    peft = PeftModel(tiny_model(), CONFIGS[kind](), adapter_name="one")
    folder = get_peft_model_state_dict(peft, adapter_name="one", save_embedding_layers=False)
    assert folder.keys() == {f"base_model.model.{key}" for key in one}, "PEFT would not read the folders that bitune writes"


# --- numbers under autocast -----------------------------------------------------------------------------------------------


def test_without_the_casts_of_inputs_plain_lora_computes_the_same_under_autocast():
    """`disable_input_dtype_casting` turns `cast_input_dtype_enabled` of every layer off, for its block only."""
    model = adapted(CONFIGS["lora"]())
    for layer in wrapped(model):
        layer.get_base_layer().to(torch.bfloat16)
    switch(model, "one")
    seen = []
    # Norms keep float32 under autocast; what comes to down_proj is in bfloat16 and is cast to the adapter's float32.
    down = model.model.layers[0].mlp.down_proj
    down.lora_A["one"].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        expected = logits(model)
        with disable_input_dtype_casting(model, active=True):
            assert not any(layer.cast_input_dtype_enabled for layer in wrapped(model))
            found = logits(model)
        with disable_input_dtype_casting(model, active=False):
            assert all(layer.cast_input_dtype_enabled for layer in wrapped(model))
    assert all(layer.cast_input_dtype_enabled for layer in wrapped(model))
    assert torch.equal(found, expected), "AdapterManager.under_autocast would train with other numbers"
    assert seen == [torch.float32, torch.bfloat16], f"inputs come as {seen}: under_autocast spares no cast any more"
