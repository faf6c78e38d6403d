"""Layers that read the same input are computed together, and give what each gives by itself, whatever inputs they get."""

import gc

import pytest
import torch
from torch import nn

from bitune.adapters.manager import AdapterManager
from bitune.modeling import siblings
from bitune.modeling.packed import PackedLinear, can_pack, pack, unpack
from bitune.modeling.siblings import OncePerInput, noting_siblings
from tests.closeness import assert_close
from tests.tiny import FAMILIES, bitune_on, ids, tiny_model, tiny_tokenizer

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
GROUPS = {"phi": [ATTENTION], "gpt_neox": []}
where_it_packs = pytest.mark.skipif(not can_pack(), reason="this torch or processor packs no weights")


class Counting(OncePerInput):
    """Notes how often something was computed."""

    computed = 0

    def take(self, x, index, compute):
        def counted(x):
            Counting.computed += 1
            return compute(x)

        return super().take(x, index, counted)


@pytest.fixture
def computed(monkeypatch):
    """How often the products of siblings were computed since the last call of it."""
    monkeypatch.setattr("bitune.modeling.packed.OncePerInput", Counting)
    monkeypatch.setattr("bitune.adapters.lora_stack.OncePerInput", Counting)

    def since() -> int:
        count, Counting.computed = Counting.computed, 0
        return count

    since()
    return since


def kept() -> int:
    """How many results lie ready somewhere."""
    return sum(type(thing) is siblings._Kept for thing in gc.get_objects())


# --- which layers are siblings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_siblings_of_every_family(family):
    found = AdapterManager.of(tiny_model(family)).layout.siblings
    expected = GROUPS.get(family, [ATTENTION, MLP])
    assert [tuple(path.split(".")[-1] for path in paths) for paths in found] == expected * 4
    assert all(len({path.rpartition(".")[0] for path in paths}) == 1 for paths in found)


def test_only_the_very_same_tensor_in_the_same_module_makes_siblings():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
            self.inside = nn.Sequential(nn.Linear(4, 4))

        def forward(self, x):
            return self.a(x), self.b(x), self.c(x.clone()), self.d(x[:]), self.inside(x), self.c(x)

    with torch.no_grad(), noting_siblings(Module()) as nothing:
        pass
    assert nothing == []
    model = Module()
    with torch.no_grad(), noting_siblings(model) as found:
        for _ in range(2):
            model(torch.ones(1, 4))
    assert found == [("a", "b")]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_whose_input_comes_by_name_stays_alone():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.one(x) + self.two(input=x)

    model = ByName()
    with noting_siblings(model) as found:
        model(torch.ones(1, 2))
    assert found == []


# --- one computation for an input --------------------------------------------------------------------------------------


def test_each_part_is_taken_once_and_belongs_to_who_took_it():
    once, x, calls = OncePerInput(), torch.ones(2), []

    def compute(x):
        calls.append(x)
        return [x * 2, x * 3]

    first = once.take(x, 0, compute)
    first.add_(100)
    assert once.take(x, 1, compute).tolist() == [3, 3] and len(calls) == 1
    assert once.take(x, 0, compute).tolist() == [2, 2] and len(calls) == 2, "the first one is its taker's"


def test_an_equal_tensor_is_another_input_and_so_is_one_that_was_written_into():
    once, x = OncePerInput(), torch.ones(2)

    def compute(x):
        return [x * 2, x * 3]

    once.take(x, 0, compute)
    assert once.take(torch.full((2,), 5.0), 1, compute).tolist() == [15, 15]
    once.take(x, 0, compute)
    x.add_(1)
    assert once.take(x, 1, compute).tolist() == [6, 6]
    with torch.inference_mode():
        x = torch.ones(2)
        once.take(x, 0, compute)
        x.add_(1)
        assert once.take(x, 1, compute).tolist() == [6, 6]


def test_nothing_is_kept_longer_than_the_input():
    once, x = OncePerInput(), torch.ones(2)
    once.take(x, 0, lambda x: [x * 2, x * 3])
    assert once._kept is not None
    del x
    assert once._kept is None


# --- packed weights ----------------------------------------------------------------------------------------------------


def group(bias: bool) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(33, size, bias).requires_grad_(False) for size in (48, 16, 7)]


@where_it_packs
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (77,), (1, 1), (2, 1), (3, 5)])
def test_packed_siblings_multiply_as_plain_layers(shape, bias, computed):
    plain, fast = group(bias), group(bias)
    pack(fast, [fast])
    x, other = (torch.randn(*shape, 33, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    with torch.no_grad():
        for layer, expected in zip(fast, plain, strict=True):
            found = layer(x)
            assert_close(found, expected(x))
            assert found.is_contiguous()
            found.fill_(7)  # what a layer returns is the caller's
        assert computed() == 1
        for layer, expected in zip(fast, plain, strict=True):
            assert_close(layer(other), expected(other))
            assert_close(layer(x), expected(x))
            x.mul_(2)
    assert computed() == 6


@where_it_packs
@pytest.mark.parametrize("bias", [True, False])
def test_packed_siblings_hold_one_weight_and_give_it_back_to_the_bit(bias):
    plain, fast = group(bias), group(bias)
    pack(fast, [fast])
    assert all(type(layer) is PackedLinear and "weight" not in layer._parameters for layer in fast)
    assert len({id(layer._packed._shared) for layer in fast}) == 1
    for layer, expected in zip(fast, plain, strict=True):
        assert torch.equal(layer.weight, expected.weight)
        assert all(torch.equal(value, layer.state_dict()[key]) for key, value in expected.state_dict().items())
    unpack(fast[1])
    assert type(fast[1]) is nn.Linear and torch.equal(fast[1].weight, plain[1].weight)
    x = torch.randn(3, 33, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer, expected in zip(fast, plain, strict=True):
            assert_close(layer(x), expected(x))


@where_it_packs
def test_siblings_that_cannot_be_packed_together_are_packed_alone():
    """One learns, one is of another dtype, one has its weight from elsewhere."""
    fast = group(True)
    fast[0].requires_grad_(True)
    fast[1].double()
    tied = nn.Linear(33, 7).requires_grad_(False)
    tied.weight = fast[2].weight
    pack([*fast, tied], [[*fast, tied]])
    assert [type(layer).__name__ for layer in (*fast, tied)] == ["Linear", "Linear", "SharedLinear", "SharedLinear"]


# --- whole models ------------------------------------------------------------------------------------------------------


@where_it_packs
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wrong", [False, True])
def test_a_model_gives_what_the_plain_one_gives_whatever_is_taken_for_siblings(family, wrong):
    plain, fast = tiny_model(family), tiny_model(family).requires_grad_(False)
    paths = AdapterManager.of(tiny_model(family)).layout.siblings
    together = [[fast.get_submodule(path) for path in group] for group in paths]
    if wrong:  # layers of the same width, in turn
        layers = [module for module in fast.modules() if type(module) is nn.Linear and module.in_features == 32]
        together = [layers[start::3] for start in range(3)]
    pack(list(fast.modules()), together)
    (prompt,) = ids(9)
    with torch.no_grad():
        assert_close(fast(prompt).logits, plain(prompt).logits)
        assert_close(fast(prompt[:, :1]).logits, plain(prompt[:, :1]).logits)
    with torch.inference_mode():
        assert_close(fast(prompt).logits.clone(), plain(prompt).logits.clone())
    assert kept() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tokens", [1, 40])
def test_a_layer_of_siblings_costs_one_product_of_their_adapters(dtype, tokens, computed):
    model = bitune_on(tiny_model().to(dtype))
    manager, order = model.manager, [None, *model.names.values()]
    prompt = torch.cat(ids(*[tokens] * len(order)))
    with torch.no_grad(), manager.active_rows(order):
        manager.model(prompt)
        count = computed()
        manager.model(prompt)
    assert count == computed() == 4 * 4, "q, k, v; o; gate, up; down: of each layer"
    assert kept() == 0


@where_it_packs
def test_a_forward_that_fails_leaves_nothing_behind():
    from bitune import Engine
    from bitune.base.loading import Base

    engine = Engine(Base(tiny_model(), tiny_tokenizer(), "tiny", None, None))
    model = engine.base.model
    *_, last = engine.stream("Which way?", ["base"], template="none", max_new_tokens=2)
    assert last["base"].tokens == 2 and kept() == 0
    assert len({id(layer._packed._shared) for layer in model.modules() if type(layer) is PackedLinear}) == 4 * 4 + 1

    def fails(*_):
        raise ZeroDivisionError

    hook = model.model.layers[1].self_attn.k_proj.register_forward_hook(fails)
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        model(ids(5)[0])
    hook.remove()
    gc.collect()
    assert kept() == 0
