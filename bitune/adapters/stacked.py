"""The adapters of a batch in a few products: in each layer the base's own, and the rows' adapters together.

PEFT runs a batch of several adapters one adapter after the other in every layer, and DoRA and IA3 not at all. Here the matrices A of all
adapters of a layer lie in one, and of layers that read the same input too, B likewise, and a row takes what is its own; a DoRA is a scale
per row and output besides, an IA3 a vector per row. tests/adapters/test_stacked.py holds it to PEFT, which stays what trains, and what runs
layers of other kinds.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft.tuners import ia3, lora
from peft.tuners.lora.variants import DoraLinearVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bitune.adapters.layers import Snapshot, parameter_places
from bitune.adapters.lora_stack import Forward, LoraStack, of_rows
from bitune.modeling.packed import PackedLinear, SharedLinear, lasting, weight_dtype

_PRODUCTS = (nn.Linear, PackedLinear, SharedLinear, Conv1D)  # classes made of these may return more, or in another dtype
_REMEMBERED = 8  # sets of rows whose forwards are kept: a request comes back with the same ones every few tokens


def is_stackable(layer: BaseTunerLayer, adapter: str) -> bool:
    """Whether this module computes what PEFT's layer does with this adapter: LoRA, DoRA or IA3 on a linear layer."""
    if type(layer) is ia3.Linear:
        return True
    if type(layer) is not lora.Linear or type(layer.base_layer) not in _PRODUCTS:
        return False
    if adapter not in layer.lora_A:
        return True
    variant = layer.lora_variant.get(adapter)
    return variant is None or (type(variant) is DoraLinearVariant and layer.lora_B[adapter].bias is None)


class Stacks:
    """The adapters on the layers of one base, as products over a batch.

    Args:
        layers: What PEFT has wrapped.
        siblings: Groups of layers of the base that read the same input.
    """

    def __init__(self, layers: Sequence[BaseTunerLayer], siblings: Sequence[Sequence[nn.Module]] = ()):
        self._layers = list(layers)
        self._group_of = {layer: index for index, group in enumerate(siblings) for layer in group}
        self._stacks: list[LoraStack] = []
        self._read: _Read | None = None
        self._base = 0
        self._forwards: OrderedDict[tuple[str | None, ...], list[Forward]] = OrderedDict()

    @contextmanager
    def running(self, rows: Sequence[str | None]) -> Iterator[tuple[list[Forward | None], list[BaseTunerLayer]]]:
        """Run row r of a batch under the adapter `rows[r]` until the end of the block, beams of a row under its adapter too.

        Without gradients, after `build`. Yields what each layer computes, and the layers that are not `is_stackable` for all of `rows`:
        those are PEFT's to run.
        """
        forwards, before = self._prepared(tuple(rows)), [vars(layer).get("forward") for layer in self._layers]
        try:
            _set_forwards(self._layers, forwards)
            yield forwards, [layer for layer, forward in zip(self._layers, forwards, strict=True) if forward is None]
        finally:
            _set_forwards(self._layers, before)

    @property
    def measure_base(self) -> bool:
        """Whether there is a DoRA, which is measured by the weights of the base."""
        return any(layer.lora_variant for layer in self._layers if type(layer) is lora.Linear)

    def are_current(self, base: int) -> bool:
        """Whether all is stacked, and nobody has written into it or moved it since.

        Args:
            base: The number of the base's state; any number that stays the same where nothing is measured by it.
        """
        return self._read is not None and self._base == base and self._read.is_current()

    @lasting()
    def build(self, base: int) -> None:
        """Stack what is there; `base` as for `are_current`."""
        self._base = base
        self._forwards.clear()
        groups = defaultdict(dict)
        for layer in self._layers:
            if type(layer) is lora.Linear and (names := [name for name in layer.lora_A if is_stackable(layer, name)]):
                weight = layer.lora_A[names[0]].weight
                place = self._group_of.get(layer.base_layer, layer)
                groups[place, weight.device, weight_dtype(layer.base_layer)][layer] = names
        self._stacks = [LoraStack(group) for group in groups.values()]
        self._read = _Read(self._layers)

    @lasting()
    def _prepared(self, rows: tuple[str | None, ...]) -> list[Forward | None]:
        if rows not in self._forwards:
            of_loras = dict(pair for stack in self._stacks for pair in stack.forwards(rows))
            self._forwards[rows] = [self._forward(layer, rows, of_loras) for layer in self._layers]
            if len(self._forwards) > _REMEMBERED:
                self._forwards.popitem(last=False)
        self._forwards.move_to_end(rows)
        return self._forwards[rows]

    def _forward(self, layer: BaseTunerLayer, rows: tuple[str | None, ...], of_loras: dict) -> Forward | None:
        if not any(rows):
            return layer.base_layer
        if not all(is_stackable(layer, name) for name in rows if name is not None):
            return None
        if isinstance(layer, ia3.Linear):
            own = [name if name in layer.ia3_l else None for name in rows]
            return _ia3_forward(layer, own) if any(own) else layer.base_layer
        return of_loras.get(layer, layer.base_layer)


class _Read:
    """The adapters on some layers as they were when they were read, and the dtype of the base under them."""

    def __init__(self, layers: Sequence[BaseTunerLayer]):
        self._loras = [layer for layer in layers if type(layer) is lora.Linear]
        self._settings = self._current_settings()
        in_base = {module for layer in layers for module in layer.base_layer.modules()}
        own = {module for layer in layers for module in layer.modules()} - in_base
        self._parameters = Snapshot(parameter_places(own))

    def _current_settings(self) -> list[object]:
        return [(weight_dtype(layer.base_layer), dict(layer.scaling)) for layer in self._loras]

    def is_current(self) -> bool:
        """Whether nobody has written into them, moved them, or put others in their place."""
        return self._current_settings() == self._settings and self._parameters.is_current()


def _set_forwards(layers: Sequence[BaseTunerLayer], forwards: Sequence[Forward | None]) -> None:
    """What each layer computes; None: what its class does."""
    for layer, forward in zip(layers, forwards, strict=True):
        if forward is None:
            vars(layer).pop("forward", None)
        else:
            vars(layer)["forward"] = forward


def _ia3_forward(layer: ia3.Linear, own: Sequence[str | None]) -> Forward:
    """base(x * l) in a feed-forward layer, base(x) * l in another one, l of each row."""
    base = layer.base_layer
    known = next(layer.ia3_l[name].detach().flatten() for name in own if name is not None)
    neutral = torch.ones_like(known)
    vectors = torch.stack([neutral if name is None else layer.ia3_l[name].detach().flatten() for name in own])
    if len(set(own)) == 1:
        vectors = vectors[:1]

    def forward(x: Tensor, *arguments, **named) -> Tensor:
        factors = vectors if len(vectors) == 1 else of_rows(vectors, x)
        if layer.is_feedforward:
            return base((x * factors).to(x.dtype), *arguments, **named)
        output = base(x, *arguments, **named)
        return (output * factors).to(output.dtype)

    return forward
