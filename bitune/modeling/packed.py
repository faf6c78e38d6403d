"""Linear layers of a CPU in the form that oneDNN multiplies fastest: packed weights in the place of the plain ones.

A product with two to eight rows, which is a decoding step of several variants, takes about as long as one with a single row then; with
plain weights it takes twice as long. The numbers are the same to rounding. tests/modeling/test_contract_torch.py holds torch to it.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitune.modeling.int8 import Int8Weight, can_pack_int8, is_x86, uses_of
from bitune.modeling.siblings import OncePerInput

_ROWS = 8  # for which oneDNN chooses the form; more or fewer rows run on it as well
_FEW_ROWS = 16  # up to here oneDNN is faster than torch's own product also on a weight that is not packed
_NONE = ("none", [], "")  # no activation after the product


class _Replacement(nn.Linear):
    """What runs in the place of a plain layer. Moved to another device or dtype it is a plain one again, and so is a copy of it."""

    def _apply(self, fn, recurse=True):
        return _unpack(self)._apply(fn, recurse)

    def __reduce_ex__(self, protocol):
        plain = _new_linear()
        vars(plain).update(vars(self), _parameters=dict(self._parameters))
        return _new_linear, (), vars(_unpack(plain))


class PackedWeight:
    """The weights [out_features, in_features] of a layer, or of siblings one after the other, in oneDNN's form."""

    def __init__(self, weights: Sequence[Tensor]):
        self._sizes = [len(weight) for weight in weights]
        whole = torch.cat(list(weights)) if len(weights) > 1 else weights[0].contiguous()
        self._whole = torch.ops.mkldnn._reorder_linear_weight(whole, _ROWS)
        self._products = OncePerInput()
        self.dtype = self._whole.dtype

    def of(self, index: int) -> Tensor:
        """A plain copy of the weight of one layer."""
        whole = self._whole.to_dense()
        return whole if len(self._sizes) == 1 else whole.split(self._sizes)[index].clone()

    def multiply(self, x: Tensor, index: int, bias: Tensor | None) -> Tensor:
        """What that layer makes of `x` [..., in_features]; its siblings find theirs ready."""
        if len(self._sizes) == 1:
            return torch.ops.mkldnn._linear_pointwise(x, self._whole, bias, *_NONE)
        output = self._products.take(x, index, self._multiply)
        return output if bias is None else output.add_(bias)

    def _multiply(self, x: Tensor) -> list[Tensor]:
        output = torch.ops.mkldnn._linear_pointwise(x, self._whole, None, *_NONE)
        return [part.contiguous() for part in output.split(self._sizes, -1)]


class _Part:
    """The weight of one layer in a `PackedWeight`."""

    def __init__(self, shared: PackedWeight, index: int):
        self._shared, self._index, self.dtype = shared, index, shared.dtype

    def to_dense(self) -> Tensor:
        return self._shared.of(self._index)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return self._shared.multiply(x, self._index, bias)


class PackedLinear(_Replacement):
    """A linear layer that holds its weight packed, and unpacks a copy of it for whoever reads `weight`.

    Whatever needs the layer's parameter itself (setting or loading it too) gets a plain layer back.
    """

    @property
    def weight(self) -> Tensor:
        """A plain copy [out_features, in_features]; writing into it changes nothing."""
        return self._packed.to_dense()

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or input.dtype != self._packed.dtype or torch.is_autocast_enabled("cpu"):
            return F.linear(input, self.weight, self.bias)
        return self._packed.multiply(input, self.bias)

    def __setattr__(self, name, value):
        if name == "weight":
            setattr(_unpack(self), name, value)
        else:
            super().__setattr__(name, value)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}weight"] = self.weight
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *arguments, **named):
        return _unpack(self)._load_from_state_dict(*arguments, **named)


class SharedLinear(_Replacement):
    """A linear layer whose weight something else reads too, as a tied head's: it stays plain, and few rows are multiplied by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        if rows > _FEW_ROWS or torch.is_grad_enabled() or input.dtype != self.weight.dtype or torch.is_autocast_enabled("cpu"):
            return F.linear(input, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, *_NONE)


def pack(modules: Sequence[nn.Module], siblings: Sequence[Sequence[nn.Linear]] = (), *, to_int8: bool = False) -> None:
    """Pack the weights of the linear layers that can be, in place and one after the other: at no time are there two of all.

    Left alone are layers whose weight requires a gradient, lies on another device, is not float32 (bfloat16 where the CPU has it), or
    is no plain parameter: quantized, sharded, or made by a hook from others.
    Nothing is done where torch cannot pack, or where it would not be faster.

    Args:
        modules: All modules of a model, however deep.
        siblings: Layers among them that read the same input: these are one product.
        to_int8: Into 8 bits, where torch can: what `modeling.int8.round_weights` has rounded. Else as any other weight of its dtype.
    """
    if not can_pack():
        return
    to_int8 = to_int8 and can_pack_int8()
    uses = uses_of(modules)
    linear = [
        module for module in modules if type(module) is nn.Linear and "_hf_hook" not in vars(module) and _fits(module.weight)
    ]
    own = {module for module in linear if uses[id(module.weight)] == 1}
    with lasting():
        for module in linear:
            if module not in own:
                module.__class__ = SharedLinear
        groups = [] if to_int8 else [[layer for layer in group if layer in own] for group in siblings]
        for group in [*groups, *([layer] for layer in linear if layer in own)]:
            layers = [layer for layer in group if type(layer) is nn.Linear and weight_dtype(layer) == weight_dtype(group[0])]
            _put(layers, [layer._parameters.pop("weight").detach() for layer in layers], to_int8)
        for module in modules:
            _leave_the_file(module)


def _put(layers: Sequence[nn.Linear], weights: Sequence[Tensor], to_int8: bool) -> None:
    """Make packed layers of plain ones."""
    if not layers:
        return
    shared = None if to_int8 else PackedWeight(weights)
    for index, layer in enumerate(layers):
        layer._packed = Int8Weight(weights[index]) if shared is None else _Part(shared, index)
        layer.__class__ = PackedLinear


def packed_places(modules: Sequence[nn.Module]) -> list[tuple[dict[str, object], str]]:
    """Where packed weights are held: another one stands there once somebody has set the layer's weight and it was packed again."""
    return [(vars(module), "_packed") for module in modules if "_packed" in vars(module)]


def unpack(model: nn.Module) -> None:
    """Make plain linear layers of what `pack` changed."""
    for module in model.modules():
        if isinstance(module, _Replacement):
            _unpack(module)


def _leave_the_file(module: nn.Module) -> None:
    """Copy what is still plain: weights that were read lie in a map of their file, which stays in memory whole as long as one does."""
    for parameter in module.parameters(recurse=False):
        if _fits(parameter):
            parameter.data = parameter.data.clone()


def _new_linear() -> nn.Linear:
    return nn.Linear.__new__(nn.Linear)


def weight_dtype(layer: nn.Module) -> torch.dtype:
    """The dtype of a linear layer's weight, without unpacking it."""
    return layer._packed.dtype if isinstance(layer, PackedLinear) else layer.weight.dtype


def _unpack(module: nn.Linear) -> nn.Linear:
    """The same layer, in place, as the plain one that it was."""
    packed = vars(module).pop("_packed", None)
    module.__class__ = nn.Linear
    if packed is not None:
        with lasting():
            weight = nn.Parameter(packed.to_dense(), requires_grad=False)
        vars(module)["_parameters"] = {"weight": weight, **module._parameters}  # first again: optimizers go by the order
    return module


@contextmanager
def lasting() -> Iterator[None]:
    """Make tensors that may be written into later, or learn, also where the model runs under `torch.inference_mode`."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _fits(weight: Tensor) -> bool:
    is_plain = type(weight) is nn.Parameter
    return is_plain and weight.device.type == "cpu" and not weight.requires_grad and can_multiply(weight.dtype)


@functools.cache
def can_multiply(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a fast product of this dtype on this CPU."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


@functools.cache
def can_pack() -> bool:
    """Whether this torch packs, on a processor where it was measured to be faster, and multiplies right with what it packed."""
    if not is_x86() or not torch.backends.mkldnn.is_available():
        return False
    weight, rows = torch.arange(12.0).view(4, 3), torch.ones(2, 3)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        found = torch.ops.mkldnn._linear_pointwise(rows, packed, None, *_NONE)
    except (AttributeError, NotImplementedError, RuntimeError):  # private to torch: absent, or with other arguments
        return False
    return torch.equal(found, F.linear(rows, weight)) and torch.equal(packed.to_dense(), weight)
