"""Linear layers of a CPU with weights of 8 bits: a quarter of the memory of float32, and less to read in a step.

A base is rounded once, when it is loaded: each output's row of a weight becomes whole numbers from -127 to 127 times a scale. What is left
is an ordinary model in float32, which any device, trainer or adapter takes. `pack` puts the whole numbers themselves in the place of such
a weight where nobody trains; nothing is lost by it, and `unpack` returns the same bits.

torch's product (fbgemm) takes the input in 8 bits too, which changes answers far more than the weights do. So the input goes in twice in
one product: rounded, and what the rounding left, which makes 13 bits. Each row of it gets a scale of its own, by its largest number, so
that no answer depends on what else is in its batch. tests/modeling/test_contract_torch.py holds torch to it.
"""

import functools
import platform
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST = 127  # of a weight
_INPUT = 63  # largest number of an input: fbgemm adds two products in 16 bits on CPUs without VNNI, where 2 x 127 x 127 has room
_TINY = torch.finfo(torch.bfloat16).tiny  # instead of the scale of a row of zeros


class Int8Weight:
    """A weight [out_features, in_features] in the form that fbgemm multiplies. Give it a weight that was rounded.

    Attributes:
        dtype: Of what it is multiplied with, and of what comes out.
    """

    dtype = torch.float32

    def __init__(self, weight: Tensor):
        whole, scales = _parts(weight)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with _fbgemm():
            quantized = torch._make_per_channel_quantized_tensor(whole, scales.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(quantized, None)

    def to_dense(self) -> Tensor:
        """The weight as it was given, to the bit."""
        with _fbgemm():
            quantized, _ = torch.ops.quantized.linear_unpack(self._packed)
            return quantized.int_repr().float() * quantized.q_per_channel_scales().float()[:, None]

    def multiply(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        """rows [..., in_features] -> [..., out_features], without gradients."""
        largest = torch.linalg.vector_norm(rows, torch.inf, -1, keepdim=True).clamp_(min=_TINY)
        inputs = rows.div(largest)
        coarse = inputs.mul(_INPUT).round_().div_(_INPUT)
        both = torch.stack((coarse, (inputs - coarse).mul_(2 * _INPUT)))
        # Scale and zero of the input: -1 to 1 is 1 to 127.
        output = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(both, 1 / _INPUT, _INPUT + 1, self._packed)
        output = output[0].add_(output[1], alpha=1 / (2 * _INPUT)).mul_(largest)
        return output if bias is None else output.add_(bias)


def round_weights(model: nn.Module) -> int:
    """Round the weights of linear layers to 8 bits, in place: output o's row to whole numbers from -127 to 127 times max |row| / 127.

    Left alone is a weight that something else reads too, as a tied head's: the embedding is looked up, not multiplied.

    Returns:
        How many weights were rounded.
    """
    modules = list(model.modules())
    uses = uses_of(modules)
    own = [module.weight for module in modules if type(module) is nn.Linear and uses[id(module.weight)] == 1]
    for weight in own:
        whole, scales = _parts(weight.detach())
        weight.data = whole.float() * scales[:, None]
    return len(own)


def uses_of(modules: Iterable[nn.Module]) -> Counter[int]:
    """By id of a parameter, how many of these modules hold it."""
    return Counter(id(parameter) for module in modules for parameter in module._parameters.values())


def is_x86() -> bool:
    """Whether this processor is one of those on which packed weights were measured."""
    return platform.machine().lower() in ("x86_64", "amd64")


@functools.cache
def can_pack_int8() -> bool:
    """Whether this torch packs 8 bits on this processor, and multiplies right with what it packed."""
    if not is_x86() or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    weight, rows = torch.tensor([[127.0, -127.0], [1.0, 127.0]]), torch.tensor([[63.0, -63.0], [63.0, 1.0]])
    try:
        packed = Int8Weight(weight)
        found = packed.multiply(rows, None)
    except (AttributeError, NotImplementedError, RuntimeError):  # torch means to remove them
        return False
    return torch.allclose(found, F.linear(rows, weight)) and torch.equal(packed.to_dense(), weight)


def _parts(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers [out_features, in_features] and scales [out_features], whose product is the weight where it was rounded before.

    Scales have the 8 bits of bfloat16, so that a product with a whole number fits into a float32: rounding again changes nothing.
    """
    scales = (weight.abs().amax(1) / _LARGEST).bfloat16().float().clamp(min=_TINY)
    return (weight / scales[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scales


@contextmanager
def _fbgemm() -> Iterator[None]:
    """fbgemm's form of packed weights: torch's own choice of a form is another one on CPUs with VNNI, which lacks this product."""
    chosen = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)  # torch means to remove them one day
            yield
    finally:
        torch.backends.quantized.engine = chosen
