"""Weights of 8 bits: rounded once, then the same model plain, packed, copied and saved; and no row depends on its batch."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from bitune.modeling import int8
from bitune.modeling.int8 import Int8Weight, can_pack_int8, round_weights
from bitune.modeling.packed import PackedLinear, can_pack, pack, unpack, weight_dtype
from tests.closeness import assert_close
from tests.tiny import ids, tiny_model

where_it_packs = pytest.mark.skipif(
    not (can_pack() and can_pack_int8()), reason="this torch or processor packs no 8 bits; test_contract_torch.py says why"
)


@pytest.fixture(autouse=True)
def without_gradients():
    """As an engine runs: where there are gradients a packed layer takes the plain arithmetic."""
    with torch.no_grad():
        yield


def layer(bias: bool = True) -> nn.Linear:
    """A rounded layer, with one row of zeros."""
    torch.manual_seed(0)
    found = nn.Linear(33, 48, bias).requires_grad_(False)
    found.weight[3] = 0
    round_weights(found)
    return found


def packed_layer(bias: bool = True) -> PackedLinear:
    found = layer(bias)
    pack([found], to_int8=True)
    assert type(found) is PackedLinear and type(found._packed) is Int8Weight
    return found


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 33, generator=torch.Generator().manual_seed(1))


# --- rounding ---------------------------------------------------------------------------------------------------------


def test_weights_move_by_half_a_step_at_most_and_the_largest_stays_one_of_the_ends():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(33, 48), nn.Linear(48, 5))
    before = [module.weight.detach().clone() for module in model]
    assert round_weights(model) == 2
    for weight, found in zip(before, model, strict=True):
        steps = found.weight.abs().amax(1, keepdim=True) / 127
        whole = found.weight / steps
        assert torch.equal(whole, whole.round()) and torch.equal(whole.abs().amax(1), torch.full((len(whole),), 127.0))
        assert (
            (weight - found.weight).abs() <= steps * 0.76
        ).all()  # half a step; the ends up to a quarter more, by their scale's rounding


def test_rounding_again_changes_no_bit():
    found = layer()
    before = found.weight.clone()
    round_weights(found)
    assert torch.equal(found.weight, before) and not before[3].any()


def test_a_tied_head_and_its_embedding_keep_their_numbers():
    embedding, head = nn.Embedding(48, 33), nn.Linear(33, 48, bias=False)
    head.weight = embedding.weight
    before = embedding.weight.detach().clone()
    assert round_weights(nn.Sequential(embedding, head)) == 0
    assert torch.equal(head.weight, before) and head.weight is embedding.weight


def test_a_number_that_is_none_stays_none():
    found = layer()
    found.weight[1, 1], found.weight[2, 2] = torch.nan, torch.inf
    round_weights(found)
    assert found.weight[1].isnan().all() and not found.weight[2].isfinite().any() and found.weight[0].isfinite().all()


# --- the product ------------------------------------------------------------------------------------------------------


@where_it_packs
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (5, 1), (2, 77), (3, 2, 4)])
def test_it_multiplies_as_the_plain_layer_does(shape, bias):
    x, plain = rows(*shape), layer(bias)
    step = x.abs().amax(-1, keepdim=True) / (63 * 126)
    most = step / 2 * plain.weight.abs().sum(1)  # every input off by half a step, all in one direction
    assert_close(packed_layer(bias)(x), plain(x), allowed=most + 1e-6)


@where_it_packs
def test_a_row_does_not_depend_on_the_others():
    x, fast = rows(6, 3), packed_layer()
    x[0] *= 1e4
    together = fast(x)
    for row in range(6):
        assert torch.equal(together[row], fast(x[row]))
        assert torch.equal(together[row, :1], fast(x[row, :1]))


@where_it_packs
def test_the_largest_numbers_do_not_overflow():
    weight = torch.full((4, 64), 127.0)
    weight[1::2] *= -1
    x = torch.full((2, 64), 5.0)
    assert_close(Int8Weight(weight).multiply(x, None), linear(x, weight), size=64 * 127 * 5)


@where_it_packs
def test_no_rows_rows_of_zeros_and_numbers_that_are_none():
    fast = packed_layer()
    assert fast(rows(0)).shape == (0, 48)
    x = torch.zeros(3, 33)
    x[1, 0] = torch.nan
    found = fast(x)
    assert torch.equal(found[0], fast.bias) and torch.equal(found[2], fast.bias)
    assert found[1].isnan().all()


@where_it_packs
def test_inputs_may_lie_in_memory_in_any_way():
    fast, x = packed_layer(), rows(4, 6)
    assert torch.equal(fast(x.transpose(0, 1)), fast(x).transpose(0, 1))
    assert torch.equal(fast(x[:, ::2]), fast(x)[:, ::2])


@where_it_packs
def test_gradients_flow_through_the_plain_arithmetic():
    plain, fast = layer(), packed_layer()
    one, other = rows(2).requires_grad_(True), rows(2).requires_grad_(True)
    with torch.enable_grad():
        plain(one).square().sum().backward()
        fast(other).square().sum().backward()
    assert_close(other.grad, one.grad)


# --- back to a plain layer ----------------------------------------------------------------------------------------------


@where_it_packs
def test_unpacked_copied_and_pickled_it_is_the_plain_layer_to_the_bit():
    plain = layer().weight
    fast = packed_layer()
    assert weight_dtype(fast) == torch.float32 and torch.equal(fast.weight, plain)
    for found in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), packed_layer().double().float()):
        assert type(found) is nn.Linear and torch.equal(found.weight, plain)
    assert torch.equal(fast.state_dict()["weight"], plain)
    unpack(fast)
    assert type(fast) is nn.Linear and torch.equal(fast.weight, plain)


@where_it_packs
def test_a_model_is_saved_as_the_rounded_one(tmp_path):
    plain = tiny_model().requires_grad_(False)
    round_weights(plain)
    fast = copy.deepcopy(plain)
    pack(list(fast.modules()), to_int8=True)
    plain.save_pretrained(tmp_path / "plain")
    fast.save_pretrained(tmp_path / "packed")
    name = "model.safetensors"
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "packed" / name).read_bytes()
    assert not torch.equal(fast(ids(9)[0]).logits, plain(ids(9)[0]).logits)  # its inputs have 13 bits


# --- a torch that has it no more ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear_prepack", "linear_with_input_q_dq_qweight_dq_output_fp32"])
@pytest.mark.skipif(not can_pack(), reason="nothing is packed here")
def test_another_torch_runs_the_rounded_weights_plain(name, monkeypatch):
    def removed(*arguments):
        raise AttributeError(f"no {name}")

    monkeypatch.setattr(torch.ops.quantized, name, removed)
    int8.can_pack_int8.cache_clear()
    try:
        found = layer()
        pack([found], to_int8=True)
        assert type(found) is PackedLinear and torch.equal(found.weight, layer().weight)
        assert_close(found(rows(2)), layer()(rows(2)))
    finally:
        int8.can_pack_int8.cache_clear()


@where_it_packs
def test_torchs_choice_of_a_form_stays_what_it_was():
    before = torch.backends.quantized.engine
    packed_layer()
    assert torch.backends.quantized.engine == before
