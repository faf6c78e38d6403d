"""Packed linear layers compute what plain ones do, and whoever needs a plain layer gets one."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import AutoModelForCausalLM

from bitune.modeling import packed
from bitune.modeling.packed import PackedLinear, SharedLinear, can_pack, pack, unpack, weight_dtype
from tests.closeness import assert_close
from tests.tiny import ids, tiny_model

where_it_packs = pytest.mark.skipif(
    not can_pack(), reason="this torch or processor packs no weights; test_contract_torch.py says why"
)
pytestmark = where_it_packs


def layer(bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(33, 48, bias, dtype=dtype).requires_grad_(False)


def packed_layer(bias: bool = True) -> PackedLinear:
    found = layer(bias)
    pack([found])
    assert type(found) is PackedLinear
    return found


def tied() -> tuple[nn.Embedding, nn.Linear]:
    """A head that shares its weight with an embedding, packed."""
    embedding, head = nn.Embedding(48, 33).requires_grad_(False), layer(False)
    head.weight = embedding.weight
    pack([embedding, head])
    assert type(head) is SharedLinear and head.weight is embedding.weight
    return embedding, head


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, 33, generator=torch.Generator().manual_seed(1)).to(dtype)


def packed_model(family: str = "llama"):
    model = tiny_model(family).requires_grad_(False)
    pack(list(model.modules()))
    assert any(type(module) is PackedLinear for module in model.modules())
    return model


biases = pytest.mark.parametrize("bias", [True, False])

# --- the product ------------------------------------------------------------------------------------------------------


@biases
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (5,), (8,), (77,), (2, 1), (3, 5), (2, 3, 4)])
def test_a_packed_layer_multiplies_as_the_plain_one(shape, bias):
    plain, fast, x = layer(bias), packed_layer(bias), rows(*shape)
    with torch.no_grad():
        assert_close(fast(x), plain(x))


@biases
def test_inputs_may_lie_in_memory_in_any_way(bias):
    plain, fast = layer(bias), packed_layer(bias)
    turned, repeated, every_other = rows(5, 2).transpose(0, 1), rows(2, 1).expand(2, 4, 33), rows(6)[::2]
    with torch.no_grad():
        for x in (turned, repeated, every_other):
            assert_close(fast(x), plain(x))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (16,), (17,), (77,), (3, 5)])
def test_a_tied_head_multiplies_as_the_plain_one(shape):
    embedding, head = tied()
    with torch.no_grad():
        assert_close(head(rows(*shape)), nn.functional.linear(rows(*shape), embedding.weight))


@pytest.mark.parametrize("family", ["llama", "gemma", "phi", "gpt_neox"])
def test_a_packed_model_gives_what_the_plain_one_gives(family):
    plain, fast = tiny_model(family), packed_model(family)
    (prompt,) = ids(9)
    with torch.no_grad():
        assert_close(fast(prompt).logits, plain(prompt).logits)
        assert_close(fast(prompt[:, :1]).logits, plain(prompt[:, :1]).logits)


@pytest.mark.parametrize("make", [packed_layer, lambda: tied()[1]], ids=["packed", "tied"])
def test_gradients_flow_to_the_inputs_with_the_plain_arithmetic(make):
    fast = make()
    plain = layer(fast.bias is not None)
    plain.weight = nn.Parameter(fast.weight.detach().clone(), requires_grad=False)
    (ours, theirs) = (rows(5).requires_grad_() for _ in range(2))
    found, expected = fast(ours), plain(theirs)
    assert torch.equal(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("make", [packed_layer, lambda: tied()[1]], ids=["packed", "tied"])
def test_under_autocast_the_plain_arithmetic_is_taken(make):
    fast, x = make(), rows(5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = fast(x)
        assert found.dtype == torch.bfloat16 and torch.equal(found, nn.functional.linear(x, fast.weight, fast.bias))


def test_an_input_of_another_dtype_fails_as_in_a_plain_layer():
    with torch.no_grad():
        for found in (layer(), packed_layer(), tied()[1]):
            with pytest.raises(RuntimeError, match="same dtype"):
                found(rows(2, dtype=torch.float64))


# --- what is asked of a plain layer -----------------------------------------------------------------------------------


@biases
def test_unpacking_gives_the_same_bits_in_the_same_order(bias):
    plain, fast = layer(bias), packed_layer(bias)
    unpack(fast)
    assert type(fast) is nn.Linear and "_packed" not in vars(fast)
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert all(torch.equal(value, plain.get_parameter(name)) for name, value in fast.named_parameters())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@biases
def test_the_state_dict_is_that_of_the_plain_layer(bias):
    plain, fast = layer(bias).state_dict(), packed_layer(bias).state_dict()
    assert list(fast) == list(plain) and all(torch.equal(fast[key], plain[key]) for key in plain)
    buffer = io.BytesIO()
    torch.save(fast, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=True)["weight"], plain["weight"])


@pytest.mark.parametrize("assign", [True, False])
def test_loading_makes_it_plain(assign):
    other = {key: value + 1 for key, value in layer().state_dict().items()}
    model = nn.Sequential(packed_layer())
    model.load_state_dict({f"0.{key}": value for key, value in other.items()}, assign=assign)
    assert type(model[0]) is nn.Linear and all(torch.equal(model[0].state_dict()[key], other[key]) for key in other)


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda found: pickle.loads(pickle.dumps(found)),
    "torch.save": lambda found: torch.load(io.BytesIO(_saved(found)), weights_only=False),
}


def _saved(found) -> bytes:
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_a_plain_layer_of_its_own(way):
    plain, fast = layer(), packed_layer()
    twin = WAYS[way](fast)
    assert type(twin) is nn.Linear and type(fast) is PackedLinear
    assert list(twin.state_dict()) == list(plain.state_dict())
    assert torch.equal(twin.weight, plain.weight) and torch.equal(twin.bias, plain.bias)
    with torch.no_grad():
        twin.weight.zero_()
        twin.bias.zero_()
    assert torch.equal(fast.weight, plain.weight) and torch.equal(fast.bias, plain.bias)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_tied_head_is_plain_and_tied(way):
    embedding, head = tied()
    twin = WAYS[way](nn.Sequential(embedding, head))
    assert type(twin[1]) is nn.Linear and twin[1].weight is twin[0].weight and torch.equal(twin[0].weight, embedding.weight)


@pytest.mark.parametrize("make", [packed_layer, lambda: tied()[1]], ids=["packed", "tied"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_another_dtype_it_is_plain(dtype, make):
    fast, x = make(), rows(3, dtype=dtype)
    expected = copy.deepcopy(fast).to(dtype)
    model = nn.Sequential(fast).to(dtype)
    assert type(model[0]) is nn.Linear and model[0].weight.dtype == dtype
    with torch.no_grad():
        assert torch.equal(model(x), expected(x))


@pytest.mark.parametrize("make", [packed_layer, lambda: tied()[1]], ids=["packed", "tied"])
def test_on_another_device_it_is_plain(make):
    model = nn.Sequential(make()).to("meta")
    assert type(model[0]) is nn.Linear and model[0].weight.is_meta
    assert model(torch.empty(2, 33, device="meta")).shape == (2, 48)


def test_a_weight_that_is_set_makes_it_plain():
    fast, weight = packed_layer(), nn.Parameter(torch.zeros(48, 33))
    fast.weight = weight
    assert type(fast) is nn.Linear and fast.weight is weight


def test_its_weight_is_a_copy():
    fast = packed_layer()
    fast.weight.zero_()
    assert torch.equal(fast.weight, layer().weight) and weight_dtype(fast) == torch.float32


def test_freezing_changes_nothing_and_names_say_what_is_left():
    fast = packed_layer().requires_grad_(False)
    assert type(fast) is PackedLinear and [name for name, _ in fast.named_parameters()] == ["bias"]
    assert "in_features=33, out_features=48" in repr(fast)


def test_what_is_packed_in_inference_mode_can_learn_later():
    found = layer()
    with torch.inference_mode():
        pack([found])
        found(rows(2))
        unpack(found)
    assert not any(parameter.is_inference() for parameter in found.parameters())
    found.requires_grad_(True)
    found(rows(2)).sum().backward()
    assert found.weight.grad is not None


# --- which layers are packed ------------------------------------------------------------------------------------------


def pruned() -> nn.Linear:
    found = layer()
    prune.random_unstructured(found, "weight", 0.5)
    return found.requires_grad_(False)


class Subclass(nn.Linear):
    """Linear in another way, as some families have it."""

    def forward(self, input):
        return 2 * super().forward(input)


def subclassed() -> nn.Linear:
    return Subclass(33, 48).requires_grad_(False)


LEFT_ALONE = {
    "learns": lambda: layer().requires_grad_(True),
    "float64": lambda: layer(dtype=torch.float64),
    "float16": lambda: layer(dtype=torch.float16),
    "meta": lambda: layer().to("meta"),
    "a class of its own": subclassed,
    "pruned by a hook": pruned,
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(layer()).requires_grad_(False),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_cannot_be_packed_is_left_alone(name):
    found = LEFT_ALONE[name]()
    kind, before = type(found), {name: (id(p), p.data_ptr()) for name, p in found.named_parameters()}
    weight = found.weight.detach().clone()
    pack([found])
    assert type(found) is kind and {name: id(p) for name, p in found.named_parameters()} == {n: i for n, (i, _) in before.items()}
    assert weight.is_meta or torch.equal(found.weight, weight)


def test_layers_that_accelerate_moves_are_left_alone():
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    found = layer()
    add_hook_to_module(found, AlignDevicesHook(execution_device="cpu", offload=True))
    pack([found])
    assert type(found) is nn.Linear and found.weight.is_meta
    with torch.no_grad():
        assert torch.equal(found(rows(3)), layer()(rows(3)))
    remove_hook_from_module(found)
    pack([found])
    assert type(found) is PackedLinear


def test_hooks_of_a_packed_layer_run():
    fast, seen = packed_layer(), []
    fast.register_forward_pre_hook(lambda *_: seen.append("before"))
    fast.register_forward_hook(lambda *_: seen.append("after"))
    with torch.no_grad():
        fast(rows(1))
    unpack(fast)
    with torch.no_grad():
        fast(rows(1))
    assert seen == ["before", "after"] * 2


def test_a_tied_head_of_a_model_stays_tied():
    model = packed_model("gemma")
    assert type(model.lm_head) is SharedLinear and model.lm_head.weight is model.model.embed_tokens.weight
    unpack(model)
    assert type(model.lm_head) is nn.Linear and model.lm_head.weight is model.model.embed_tokens.weight


def test_packing_twice_is_packing_once():
    model = packed_model("gemma")
    before = {name: id(module._packed) for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    pack(list(model.modules()))
    assert {name: id(m._packed) for name, m in model.named_modules() if isinstance(m, PackedLinear)} == before


def test_no_weight_lies_in_the_map_of_its_file_any_more(tmp_path):
    tiny_model("gemma").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).requires_grad_(False)
    before = {parameter.data_ptr() for parameter in model.parameters()}
    pack(list(model.modules()))
    assert not before & {parameter.data_ptr() for parameter in model.parameters()}
    (prompt,) = ids(9)
    with torch.no_grad():
        assert_close(model(prompt).logits, tiny_model("gemma")(prompt).logits)


@pytest.mark.parametrize("family", ["llama", "gemma", "phi"])
def test_a_packed_model_is_saved_as_the_plain_one(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path / "plain")
    packed_model(family).save_pretrained(tmp_path / "packed")
    (plain, fast) = (sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("plain", "packed"))
    assert plain == fast
    assert all((tmp_path / "plain" / name).read_bytes() == (tmp_path / "packed" / name).read_bytes() for name in plain)


def test_the_vocabulary_of_a_packed_model_can_be_resized():
    plain, fast = tiny_model(), packed_model()
    (prompt,) = ids(9)
    for model in (plain, fast):
        model.resize_token_embeddings(270, mean_resizing=False)
    assert fast.lm_head.out_features == 270
    with torch.no_grad():
        assert_close(fast(prompt).logits[..., :260], plain(prompt).logits[..., :260])


# --- where torch cannot -----------------------------------------------------------------------------------------------


class Without:
    """`torch.ops.mkldnn` of a torch that lacks a product, or has it in another form."""

    def __init__(self, **changed):
        self._changed = changed

    def __getattr__(self, name):
        if name in self._changed:
            if self._changed[name] is None:
                raise AttributeError(name)
            return self._changed[name]
        return getattr(OPERATIONS, name)


OPERATIONS = torch.ops.mkldnn


def refuses(*_):
    raise RuntimeError("_linear_pointwise() expected at most 4 argument(s)")


CHANGED = {
    "no packing": {"_reorder_linear_weight": None},
    "no product": {"_linear_pointwise": None},
    "other arguments": {"_linear_pointwise": refuses},
    "other numbers": {"_linear_pointwise": lambda x, weight, bias, *_: nn.functional.linear(x, weight.to_dense()) + 1},
    "another form": {"_reorder_linear_weight": lambda weight, _: weight.flip(0).to_mkldnn()},
}


@pytest.mark.parametrize("case", CHANGED)
def test_another_torch_runs_plain_weights(case, monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", Without(**CHANGED[case]))
    packed.can_pack.cache_clear()
    try:
        assert not can_pack()
        model = tiny_model().requires_grad_(False)
        before = {name: id(parameter) for name, parameter in model.named_parameters()}
        pack(list(model.modules()))
        assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    finally:
        monkeypatch.undo()
        packed.can_pack.cache_clear()


def test_what_is_no_change_of_torch_keeps_its_name(monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(torch.ops, "mkldnn", Without(_reorder_linear_weight=fails))
    packed.can_pack.cache_clear()
    try:
        with pytest.raises(MemoryError):
            can_pack()
    finally:
        monkeypatch.undo()
        packed.can_pack.cache_clear()
    assert can_pack()
