"""What bitune relies on in torch beyond its documentation: the products of oneDNN on packed weights.

Without them `modeling.packed` runs plain weights, which is right and slow; these tests say so loudly. They know torch only.
"""

import platform

import pytest
import torch
from torch.nn.functional import linear

from bitune.modeling.int8 import can_pack_int8
from bitune.modeling.packed import can_pack
from tests.closeness import assert_close

NONE = ("none", [], "")
SLOW = "bitune.modeling.packed falls back to plain weights: decoding several variants takes twice as long"
REORDER, MULTIPLY = "mkldnn::_reorder_linear_weight", "mkldnn::_linear_pointwise"

on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="weights are packed on x86 with oneDNN alone",
)


def arguments(operation: str) -> list[tuple[str, str]]:
    """(name, type) of each argument, of the one overload that the name alone means."""
    try:
        schema = torch._C._get_schema(operation, "")
    except RuntimeError:
        pytest.fail(f"torch {torch.__version__} has no {operation} any more, so {SLOW}")
    return [(argument.name, str(argument.type)) for argument in schema.arguments]


@on_x86
def test_a_weight_is_packed_for_a_number_of_rows():
    expected = [("self", "Tensor"), ("batch_size", "Optional[int]")]
    assert arguments(REORDER) == expected, f"{REORDER} takes other arguments, so {SLOW}"


@on_x86
def test_a_product_takes_a_packed_weight_a_bias_and_no_activation():
    expected = [
        ("X", "Tensor"),
        ("W", "Tensor"),
        ("B", "Optional[Tensor]"),
        ("attr", "str"),
        ("scalars", "List[Optional[number]]"),
        ("algorithm", "Optional[str]"),
    ]
    assert arguments(MULTIPLY) == expected, f"{MULTIPLY} takes other arguments, so {SLOW}"


@on_x86
def test_this_torch_packs_here():
    assert can_pack(), SLOW


@on_x86
@pytest.mark.parametrize("rows", [0, 1, 2, 5, 8, 9, 77])
def test_what_is_packed_for_eight_rows_multiplies_any_number(rows):
    generator = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(48, 33, generator=generator), torch.randn(48, generator=generator)
    x = torch.randn(rows, 33, generator=generator)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
    for shift in (bias, None):
        expected = linear(x, weight, shift)
        why = f"{MULTIPLY} multiplies wrong with {rows} rows"
        found = torch.ops.mkldnn._linear_pointwise(x, packed, shift, *NONE)
        assert found.layout is torch.strided and found.is_contiguous(), f"{MULTIPLY} returns a packed tensor"
        assert_close(found, expected, why)
        assert_close(torch.ops.mkldnn._linear_pointwise(x, weight, shift, *NONE), expected, f"{why} and a plain weight")


@on_x86
def test_a_packed_weight_gives_back_its_bits_and_is_a_copy():
    weight = torch.randn(48, 33, generator=torch.Generator().manual_seed(0))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
    kept = weight.clone()
    weight.zero_()
    assert torch.equal(packed.to_dense(), kept), f"{REORDER} loses bits, or keeps the weight that was packed in memory"
    assert packed.dtype == torch.float32


@on_x86
def test_torch_says_whether_it_multiplies_bfloat16():
    assert isinstance(torch.ops.mkldnn._is_mkldnn_bf16_supported(), bool), "bfloat16 is packed where this says so"


@on_x86
def test_this_torch_packs_8_bits_here():
    slow = "modeling.packed falls back to float32 for a base in int8: right, with four times the memory"
    assert can_pack_int8(), (
        f"torch {torch.__version__} has no product of fbgemm with an input of a given scale any more, so {slow}"
    )
