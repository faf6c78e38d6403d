"""The adapters of a batch in one product give each row what PEFT gives it alone, whatever the others are.

The reference is PEFT's own forward, one adapter after the other: it runs where gradients are on.
"""

import copy
import functools
import pickle
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, PreTrainedModel

from bitune import BituneModel
from bitune.adapters import stacked
from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from tests.adapters.peft_folders import EMBEDDINGS, LINEAR, base_of, dora, ia3, lora, quiet
from tests.closeness import assert_apart, assert_close
from tests.families.subjects import tiny_model as model_of_family
from tests.tiny import FAMILIES, GROUPED, SHAPE, ids, tiny_model

FEW, MANY = 3, 40  # tokens of a batch, below and above where the way of computing changes, whatever the number of rows
MIXED = {
    "lora": lora(target_modules=LINEAR),
    "patterns": lora(target_modules=LINEAR, use_rslora=True, rank_pattern={"v_proj": 2}, alpha_pattern={"down_proj": 3}),
    "two layers": lora(target_modules=["q_proj", "up_proj"], r=7, layers_to_transform=[1, 3]),
    "biases": lora(target_modules=["q_proj", "up_proj"], r=2, lora_bias=True),
    "dora": dora(target_modules=LINEAR, r=3),
    "dora, patterns": dora(target_modules=["k_proj", *LINEAR], rank_pattern={"v_proj": 5}, alpha_pattern={"q_proj": 9}),
    "head": lora(target_modules=["lm_head", "v_proj"]),
    "embeddings": lora(target_modules=EMBEDDINGS),
}
OF_IA3 = {
    "some": ia3(target_modules=LINEAR, feedforward_modules=["down_proj"]),
    "others": ia3(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "head": ia3(target_modules=["lm_head", "v_proj"], feedforward_modules=[]),
}
OF_GPT2 = {
    "lora": lora(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    "dora": dora(target_modules=["c_attn", "c_fc"], r=3, fan_in_fan_out=True),
    "positions": lora(target_modules=["wpe", "c_attn"], r=2, fan_in_fan_out=True),
}


def biased(dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A Llama whose linear layers have biases, far from 0."""
    torch.manual_seed(0)
    config = LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True, attn_implementation="sdpa")
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
    return model.to(dtype)


@quiet
def loaded(model: PreTrainedModel, configs: Mapping[str, PeftConfig], seed: int = 1) -> AdapterManager:
    """The base's manager with a random adapter of each config."""
    manager = AdapterManager.of(model)
    for number, (name, config) in enumerate(configs.items()):
        randomize(manager, manager.add(name, config, trainable=False), seed + number)
    return manager


@torch.no_grad()
def randomize(manager: AdapterManager, name: str, seed: int) -> None:
    """Write other numbers into an adapter's own parameters."""
    generator = torch.Generator().manual_seed(seed)
    for path, parameter in manager.model.named_parameters():
        if f".{name}." in f"{path}." and ("lora_" in path or "ia3_l" in path):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            is_factor = "ia3_l" in path or "magnitude" in path
            parameter.copy_(parameter * (1 + 0.2 * noise) if is_factor else 0.15 * noise)


def logits(manager: AdapterManager, tokens: Tensor) -> Tensor:
    """GPT-2 looks up its positions once for all rows, unless it is given those of each."""
    of_each = (
        {"position_ids": torch.arange(tokens.shape[1]).expand_as(tokens)} if manager.model.config.model_type == "gpt2" else {}
    )
    return manager.model(tokens, **of_each).logits


def by_peft(manager: AdapterManager, order: Sequence[str | None], tokens: Tensor) -> Tensor:
    """Logits [rows, tokens, vocabulary], one row after the other under its adapter."""
    rows = []
    with torch.enable_grad(), manager.eval_turn():
        for row, name in enumerate(order):
            with manager.active_adapter(name):
                rows.append(logits(manager, tokens[row : row + 1]).detach())
    return torch.cat(rows)


@torch.no_grad()
def together(manager: AdapterManager, order: Sequence[str | None], tokens: Tensor) -> Tensor:
    """The same in one forward; of a batch with beams `order` names the rows, whose beams follow one another."""
    assert sorted(sum(manager.batches(order), [])) == list(range(len(order))) and len(manager.batches(order)) == 1
    with manager.active_rows(order):
        products = [layer for layer in manager._layers if "forward" in vars(layer)]
        assert {type(layer).__name__ for layer in manager._layers if layer not in products} <= {"Embedding"}, "PEFT's part"
        assert products
        return logits(manager, tokens)


def prompts(rows: int, tokens: int, seed: int = 3) -> Tensor:
    return torch.cat(ids(*[tokens] * rows, seed=seed))


def check(manager: AdapterManager, order: Sequence[str | None], tokens: Tensor, why: str = "") -> Tensor:
    found = together(manager, order, tokens)
    assert_close(found, by_peft(manager, order, tokens), why)
    return found


# --- kinds, places and settings in one batch --------------------------------------------------------------------------

ORDERS = {
    "all, mixed up": [
        "dora",
        None,
        "biases",
        "lora",
        "head",
        None,
        "patterns",
        "two layers",
        "dora, patterns",
        "lora",
        "embeddings",
    ],
    "neighbours": ["lora", "lora", "patterns", None, None, "dora", "dora"],
    "only one": ["dora", "dora", "dora"],
    "one row": ["patterns"],
    "one of one kind": ["two layers", None],
    "the first and the last": ["lora", "head", None],
    "the base": [None, None],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tokens", [1, FEW, MANY])
def test_each_row_gets_what_peft_gives_it_alone(tokens, dtype):
    manager = loaded(biased(dtype), MIXED)
    for why, order in ORDERS.items():
        found = check(manager, order, prompts(1, tokens).repeat(len(order), 1), why)
        for row, name in enumerate(order):
            if name is not None and None in order:
                assert_apart(found[row], found[order.index(None)], f"{name} does nothing")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tokens", [1, MANY])
def test_of_ia3_too(tokens, dtype):
    manager = loaded(biased(dtype), OF_IA3)
    for order in (["some", None, "others", "head", "some"], ["others", "others"], [None, "head"], ["some"], [None]):
        check(manager, order, prompts(len(order), tokens))


@pytest.mark.parametrize("tokens", [1, MANY])
def test_of_gpt2_whose_weights_lie_the_other_way(tokens):
    manager = loaded(base_of("gpt2", torch.float64), OF_GPT2)
    for order in (["lora", None, "dora", "positions", "lora"], ["dora", None], ["dora", "dora"]):
        check(manager, order, prompts(len(order), tokens))


@pytest.mark.parametrize("beams", [2, 3])
@pytest.mark.parametrize("tokens", [1, MANY])
def test_beams_of_a_row_run_under_its_adapter(tokens, beams):
    order = ["dora", None, "biases", "lora", "embeddings"]
    manager, inputs = loaded(biased(), MIXED), prompts(len(order) * beams, tokens)
    expected = by_peft(manager, [name for name in order for _ in range(beams)], inputs)
    assert_close(together(manager, order, inputs), expected)


@functools.cache
def everything() -> AdapterManager:
    return loaded(biased(), MIXED)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([None, *MIXED]), min_size=1, max_size=7), st.sampled_from([1, 2, 9, 33]), st.integers(1, 2))
def test_any_rows_any_tokens_any_beams(order, tokens, beams):
    inputs = prompts(len(order) * beams, tokens)
    expected = by_peft(everything(), [name for name in order for _ in range(beams)], inputs)
    assert_close(together(everything(), order, inputs), expected)


@quiet
def test_one_forward_of_peft_s_own_model_gives_the_same():
    """Against a PeftModel, which knows nothing of this project."""
    manager = loaded(biased(), {"lora": MIXED["lora"], "dora": MIXED["dora"], "patterns": MIXED["patterns"]})
    order, inputs = ["dora", None, "patterns", "lora"], prompts(4, 7)
    found, expected = together(manager, order, inputs), []
    for row, name in enumerate(order):
        model = biased()
        if name is not None:
            model = get_peft_model(model, copy.deepcopy(MIXED[name])).eval()
            set_peft_model_state_dict(model, manager.weights(name))
        with torch.no_grad():
            expected.append(model(inputs[row : row + 1]).logits)
    assert_close(found, torch.cat(expected))


@pytest.mark.filterwarnings("ignore")  # some families warn about settings of their own
@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "opt", "qwen2", "gpt_bigcode", "gptj", "stablelm"])
def test_families(family):
    model = (tiny_model(family) if family in FAMILIES else model_of_family(family)).double()
    wide, narrow = new_peft_config(model, "lora", rank=3), new_peft_config(model, "dora", rank=2)
    narrow.layers_to_transform = [1, 2]
    manager = loaded(model, {"lora": wide, "dora": new_peft_config(model, "dora", rank=5), "narrow": narrow})
    for tokens in (1, MANY):
        check(manager, ["dora", None, "narrow", "lora", "dora"], prompts(5, tokens))


def test_a_family_whose_linear_layers_are_of_its_own_class_is_peft_s():
    manager = loaded(
        model_of_family("falcon").double(),
        {"a": lora(target_modules=["query_key_value"]), "b": lora(r=2, target_modules=["dense"])},
    )
    order, inputs = ["a", None, "b"], prompts(3, 5)
    with torch.no_grad(), manager.active_rows(order):
        found = manager.model(inputs).logits
    assert_close(found, by_peft(manager, order, inputs))


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_a_mixture_of_experts_runs_one_adapter_at_a_time(kind):
    torch.manual_seed(0)
    config = MixtralConfig(**SHAPE, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    manager = loaded(model, {name: new_peft_config(model, kind, rank=3) for name in ("a", "b")})
    order, inputs = ["a", None, "b", "a"], prompts(4, 9)
    expected = by_peft(manager, order, inputs)
    with torch.no_grad():
        results = manager.run(order, lambda rows: manager.model(inputs[rows]).logits)
    assert [rows for rows, _ in results] == [[0, 3], [1], [2]]
    for rows, found in results:
        assert_close(found, expected[rows])


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapters", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("configs", ["lora and dora", "ia3"])
def test_a_base_of_16_bits_errs_no_more_than_peft(configs, adapters):
    """PEFT keeps adapters of such a base in float32."""
    chosen = OF_IA3 if configs == "ia3" else MIXED
    manager, exact = loaded(biased(torch.bfloat16), chosen), loaded(biased(), chosen)
    for name in chosen:
        exact.fill(name, {key: value.to(adapters) for key, value in manager.weights(name).items()})
    manager_dtypes = {p.dtype for layer in manager._layers for n, p in layer.named_parameters() if "base_layer" not in n}
    assert manager_dtypes == {torch.float32}
    if adapters == torch.bfloat16:
        for layer in manager._layers:
            for name, module in layer.named_children():
                if name != "base_layer":
                    module.to(adapters)
    exact.model.load_state_dict(
        {key: value for key, value in manager.model.state_dict().items() if "lora_" not in key and "ia3_l" not in key},
        strict=False,
    )
    order = [None, *chosen]
    for tokens in (1, MANY):
        inputs = prompts(len(order), tokens)
        truth = by_peft(exact, order, inputs)
        ours, theirs = (values.double() - truth for values in (together(manager, order, inputs), by_peft(manager, order, inputs)))
        for row, name in enumerate(order):
            assert ours[row].norm() <= 2 * theirs[row].norm(), name


@pytest.mark.parametrize("configs", [MIXED, OF_IA3], ids=["lora and dora", "ia3"])
def test_a_base_that_is_moved_to_another_dtype_is_read_anew(configs):
    """Adapters of float32 stay what they are when a base of 16 bits becomes one of float32."""
    manager = loaded(biased(torch.bfloat16), configs)
    order = [None, *configs]
    inputs = prompts(len(order), 5)
    for dtype in (None, torch.float32, torch.float64, torch.float32):
        if dtype is None:
            together(manager, order, inputs)
        else:
            manager.model.to(dtype)
            check(manager, order, inputs)


# --- never stale ------------------------------------------------------------------------------------------------------

FOUR = {name: MIXED[name] for name in ("lora", "biases", "dora", "embeddings")}
BOTH = pytest.mark.parametrize("configs", [MIXED, OF_IA3], ids=["lora and dora", "ia3"])


@pytest.mark.parametrize("configs", [FOUR, OF_IA3], ids=["lora and dora", "ia3"])
@pytest.mark.parametrize("tokens", [1, MANY])
def test_changed_filled_removed_and_added_adapters_are_read_anew(configs, tokens):
    manager = loaded(biased(), configs)
    names = list(configs)
    order = [None, *names, names[0]]
    inputs = prompts(1, tokens).repeat(len(order), 1)
    before = check(manager, order, inputs)
    for number, name in enumerate(names):
        randomize(manager, name, 40 + number)
        found = check(manager, order, inputs, f"{name} was changed in place")
        changed = [row for row in range(len(order)) if not torch.allclose(found[row], before[row], rtol=1e-6, atol=1e-9)]
        assert changed == [row for row, other in enumerate(order) if other == name], "and no other row"
        before = found
    for number, name in enumerate(names):
        other = loaded(biased(), {name: configs[name]}, seed=70 + number)
        manager.fill(name, other.weights(name))
        found = check(manager, order, inputs, f"{name} was filled anew")
        assert_apart(found[order.index(name)], before[order.index(name)])
        assert_close(found[order.index(name)], together(other, [name], inputs[:1])[0])
    manager.remove(names[1])
    order.remove(names[1])
    check(manager, order, inputs[1:], "one was removed")
    again = manager.add(names[1], configs[names[1]], trainable=False)
    randomize(manager, again, 90)
    check(manager, [*order, again], inputs, "another one was added")


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tensors_that_are_put_in_place_of_others_are_read_anew(configs, dtype):
    """Also where the second one lies where the first one lay before, which is where an allocator likes to put it."""
    manager = loaded(biased(dtype), configs)
    order = [None, *configs]
    inputs = prompts(len(order), 1)
    own = [p for path, p in manager.model.named_parameters() if "lora_" in path or "ia3_l" in path]
    for _ in range(3):
        before = together(manager, order, inputs)
        for factor in (3, 0.5):
            for parameter in own:
                parameter.data = parameter.data * factor
        found = together(manager, order, inputs)
        assert all(not torch.equal(found[row], before[row]) for row in range(1, len(order)))
        manager._set_layers(manager._layers)
        assert torch.equal(together(manager, order, inputs), found)


@BOTH
def test_parameters_that_are_assigned_are_read_anew(configs):
    """As `load_state_dict(assign=True)` and accelerate put them."""
    manager, other = loaded(biased(), configs), loaded(biased(), configs, seed=30)
    order = [None, *configs]
    inputs = prompts(len(order), 1)
    before = together(manager, order, inputs)
    manager.model.load_state_dict(copy.deepcopy(other.model.state_dict()), assign=True)
    assert_apart(check(manager, order, inputs), before)


def test_a_scaling_that_changes_is_read_anew():
    manager = loaded(biased(), MIXED)
    order = ["lora", "dora", None]
    check(manager, order, prompts(3, 1))
    for layer in manager._layers:
        for name in layer.scaling:
            layer.scaling[name] *= 2
    check(manager, order, prompts(3, 1))


@quiet
def test_adapters_that_are_tied_to_one_another_are_filled_and_read_anew():
    config = lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)
    manager = loaded(base_of("gemma", torch.float64), {"tied": config, "other": lora(target_modules=["q_proj"], r=2)})
    order, inputs = ["tied", None, "other"], prompts(3, 1)
    check(manager, order, inputs)
    other = loaded(base_of("gemma", torch.float64), {"tied": config}, seed=9)
    manager.fill("tied", other.weights("tied"))
    check(manager, order, inputs)
    assert_close(together(manager, ["tied"], inputs[:1]), together(other, ["tied"], inputs[:1]))


def test_an_adapter_that_learns_beside_others_is_read_anew_after_every_step():
    manager = loaded(biased(), {"frozen": MIXED["lora"]})
    name = manager.add("learning", MIXED["dora"], trainable=True)
    order, inputs = [name, None, "frozen"], prompts(3, 1)
    optimizer = torch.optim.SGD([p for p in manager.model.parameters() if p.requires_grad], lr=0.5)
    frozen = check(manager, order, inputs)[2]
    for _ in range(2):
        with manager.active_adapter(name):
            manager.model(inputs).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(check(manager, order, inputs)[2], frozen)


def test_an_adapter_that_has_learnt_nonsense_leaves_the_other_rows_their_numbers():
    manager = loaded(biased(), {"one": MIXED["lora"], "broken": MIXED["lora"], "two": MIXED["patterns"]})
    with torch.no_grad():
        for name, parameter in manager.model.named_parameters():
            if ".broken." in name:
                parameter.fill_(float("nan") if "lora_A" in name else float("inf"))
    check(manager, ["one", None, "two"], prompts(3, 1))
    found = together(manager, ["one", "broken", "two", None], prompts(4, 1))
    assert found[[0, 2, 3]].isfinite().all() and not found[1].isfinite().any()


def test_sets_of_rows_are_forgotten_but_never_mixed_up():
    manager = loaded(biased(), FOUR)
    names = [None, *FOUR]
    for first in range(len(names)):
        for second in range(len(names)):
            order = [names[first], names[second]]
            check(manager, order, prompts(2, 1), str(order))
    assert len(manager._stacks._forwards) <= stacked._REMEMBERED


def test_rows_that_nobody_knows_the_adapter_of_are_no_silent_mistake():
    """A layer that is called once for all rows, as one of positions."""
    manager = loaded(biased(), {"a": MIXED["lora"], "b": MIXED["patterns"]})
    layer = manager.model.model.layers[0].self_attn.q_proj
    with torch.no_grad(), manager.active_rows(["a", "b", None]):
        for tokens in (1, MANY):
            for rows in (1, 2, 4):
                with pytest.raises((ValueError, RuntimeError)):
                    layer(torch.ones(rows, tokens, 32, dtype=torch.float64))


# --- what is left behind ----------------------------------------------------------------------------------------------


def own_forwards(manager: AdapterManager) -> int:
    return sum("forward" in vars(module) for module in manager.model.modules())


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_leaves_the_layers_as_they_were(error):
    manager = loaded(biased(), MIXED)
    order, inputs = ["lora", "dora", None], prompts(3, 1)
    expected = check(manager, order, inputs)
    with pytest.raises(error), torch.no_grad(), manager.active_rows(order):
        assert own_forwards(manager)
        raise error
    assert own_forwards(manager) == 0
    assert torch.equal(together(manager, order, inputs), expected)


@torch.no_grad()
def test_a_block_inside_a_block_is_undone():
    manager, inputs = loaded(biased(), MIXED), prompts(3, 1)
    outer, inner = ["lora", "dora", None], ["embeddings", None, "patterns"]
    expected = [together(manager, order, inputs) for order in (outer, inner)]
    with manager.active_rows(outer):
        with manager.active_rows(inner):
            assert torch.equal(manager.model(inputs).logits, expected[1])
        assert torch.equal(manager.model(inputs).logits, expected[0])
    assert own_forwards(manager) == 0


PEFTS_OWN = {
    "gradients": lambda: torch.enable_grad(),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("way", PEFTS_OWN)
@pytest.mark.parametrize("name", ["lora", "dora", "embeddings"])
def test_with_gradients_and_under_autocast_it_is_peft_s_arithmetic_to_the_bit(way, name):
    manager, inputs = loaded(biased(torch.float32), MIXED), prompts(2, 5)
    with torch.no_grad(), PEFTS_OWN[way](), manager.active_rows([name, name]):
        assert own_forwards(manager) == 0
        found = manager.model(inputs).logits
    alone = loaded(biased(torch.float32), {other: MIXED[other] for other in MIXED})
    with torch.no_grad(), PEFTS_OWN[way](), alone.active_adapter(name):
        assert torch.equal(alone.model(inputs).logits, found)


def test_in_train_mode_dropout_is_peft_s():
    manager, inputs = loaded(biased(torch.float32), {"a": lora(target_modules=LINEAR, lora_dropout=0.5)}), prompts(2, 5)
    manager.model.train()
    found = []
    for block in (manager.active_rows(["a", "a"]), manager.active_adapter("a")):
        torch.manual_seed(5)
        with torch.no_grad(), block:
            assert own_forwards(manager) == 0
            found.append(manager.model(inputs).logits)
    assert torch.equal(*found)
    assert_apart(found[0], by_peft(manager, ["a", "a"], inputs), "nothing was dropped")


# --- parameters that became views -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_what_was_loaded_before_and_after_they_ran(configs, dtype, tmp_path):
    manager = loaded(biased(dtype), configs)
    before = {name: manager.weights(name) for name in configs}
    state = {key: value.clone() for key, value in manager.model.state_dict().items()}
    together(manager, [None, *configs], prompts(1 + len(configs), 1))
    for name in configs:
        after = manager.weights(name)
        assert list(after) == list(before[name])
        assert all(torch.equal(after[key], before[name][key]) and after[key].is_contiguous() for key in after)
        save_file(after, tmp_path / "adapter.safetensors")
        assert all(torch.equal(value, after[key]) for key, value in load_file(tmp_path / "adapter.safetensors").items())
    now = manager.model.state_dict()
    assert list(now) == list(state) and all(torch.equal(now[key], state[key]) for key in state)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_a_model_that_ran_is_saved_as_it_was_loaded(kind, tmp_path):
    base = biased(torch.float32)
    (name,) = names = ["a"]
    manager = loaded(base, {name: new_peft_config(base, kind, rank=3)})
    weights = manager.weights(name)
    model = BituneModel.create(base, "lora", new_peft_config(base, kind, rank=3))
    manager.fill(model.names["causal"], weights)
    model.save_pretrained(tmp_path / "first")
    again = BituneModel.from_pretrained(tmp_path / "first", base=base, trainable=False)
    together(manager, [*names, None, again.names["causal"]], prompts(3, 1))
    again.save_pretrained(tmp_path / "second")
    for file in sorted((tmp_path / "first").rglob("*.safetensors")):
        assert file.read_bytes() == (tmp_path / "second" / file.relative_to(tmp_path / "first")).read_bytes()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
@BOTH
def test_a_copy_of_what_ran_runs_alike_and_is_its_own(configs, way):
    manager = loaded(biased(), configs)
    order = [None, *configs]
    inputs = prompts(len(order), 1)
    expected = together(manager, order, inputs)
    twin = AdapterManager.of(way(manager.model))
    assert twin is not manager and torch.equal(together(twin, order, inputs), expected)
    for name in configs:
        randomize(twin, name, 50)
    check(twin, order, inputs)
    assert torch.equal(together(manager, order, inputs), expected)


def test_removing_the_last_adapter_leaves_no_trace():
    manager = loaded(biased(), {"lora": MIXED["lora"], "dora": MIXED["dora"]})
    together(manager, ["lora", "dora"], prompts(2, 1))
    manager.remove("lora", "dora")
    assert own_forwards(manager) == 0 and not any(isinstance(module, BaseTunerLayer) for module in manager.model.modules())
    with torch.no_grad():
        assert torch.equal(manager.model(prompts(2, 1)).logits, biased()(prompts(2, 1)).logits)
