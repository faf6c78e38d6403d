"""The adapters of a batch in a few products: in each layer the base's own, and the rows' adapters together.

PEFT runs a batch of several adapters one adapter after the other in every layer, and DoRA and IA3 not at all. Here the matrices A of all
adapters of a layer lie in one, B likewise, and a row takes what is its own; a DoRA is a scale per row and output besides, an IA3 a
vector per row. tests/adapters/test_stacked.py holds it to PEFT, which stays what trains, and what runs layers of other kinds.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, groupby

import torch
from peft.tuners import ia3, lora
from peft.tuners.lora.variants import DoraLinearVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from bitune.adapters.layers import Snapshot, parameter_places
from bitune.modeling.packed import PackedLinear, SharedLinear, lasting, weight_dtype

Forward = Callable[[Tensor], Tensor]
_PRODUCTS = (nn.Linear, PackedLinear, SharedLinear, Conv1D)  # classes made of these may return more, or in another dtype
_FEW_TOKENS = 32  # of a batch, up to which one product over all adapters is faster than one for each of them
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
    """

    def __init__(self, layers: Sequence[BaseTunerLayer]):
        self._layers = list(layers)
        self._stacks: dict[int, _LoraStack] = {}  # id of a layer -> its LoRA adapters
        self._read: _Read | None = None
        self._forwards: OrderedDict[tuple[str | None, ...], list[Forward]] = OrderedDict()

    @contextmanager
    def running(self, rows: Sequence[str | None]) -> Iterator[list[BaseTunerLayer]]:
        """Run row r of a batch under the adapter `rows[r]` until the end of the block, beams of a row under its adapter too.

        Without gradients, after `build`. Yields the layers that are not `is_stackable` for all of `rows`: those are PEFT's to run.
        """
        forwards, before = self._prepared(tuple(rows)), [vars(layer).get("forward") for layer in self._layers]
        try:
            _set_forwards(self._layers, forwards)
            yield [layer for layer, forward in zip(self._layers, forwards, strict=True) if forward is None]
        finally:
            _set_forwards(self._layers, before)

    @lasting()
    def build(self) -> None:
        """Stack what is not stacked yet, or is no longer what was read: somebody wrote into it or moved it."""
        if self._read is not None and self._read.is_current():
            return
        self._forwards.clear()
        loras = [layer for layer in self._layers if type(layer) is lora.Linear]
        self._stacks = {
            id(layer): _LoraStack(layer) for layer in loras if any(is_stackable(layer, name) for name in layer.lora_A)
        }
        self._read = _Read(self._layers)

    @lasting()
    def _prepared(self, rows: tuple[str | None, ...]) -> list[Forward | None]:
        if rows not in self._forwards:
            self._forwards[rows] = [self._forward(layer, rows) for layer in self._layers]
            if len(self._forwards) > _REMEMBERED:
                self._forwards.popitem(last=False)
        self._forwards.move_to_end(rows)
        return self._forwards[rows]

    def _forward(self, layer: BaseTunerLayer, rows: tuple[str | None, ...]) -> Forward | None:
        if not any(rows):
            return layer.base_layer
        if not all(is_stackable(layer, name) for name in rows if name is not None):
            return None
        given = layer.ia3_l if isinstance(layer, ia3.Linear) else layer.lora_A
        own = [name if name in given else None for name in rows]
        if not any(own):
            return layer.base_layer
        if isinstance(layer, ia3.Linear):
            return _ia3_forward(layer, own)
        return self._stacks[id(layer)].forward(own)


class _LoraStack:
    """All LoRA adapters of one layer: R ranks altogether, one after the other.

    Attributes:
        a, b: [R, in_features] and [R, out_features], in the dtype of the base. PEFT's own parameters become views of them where they have
            this dtype and do not learn, so that nothing lies in memory twice.
        places: Adapter -> which of the R are its own.
        scales, shifts: Adapter -> [out_features], what the sum of base and adapter is multiplied with, and what is added then.
    """

    def __init__(self, layer: lora.Linear):
        self.layer, self.base = layer, layer.base_layer
        names = [name for name in layer.lora_A if is_stackable(layer, name)]
        dtype, ends = weight_dtype(self.base), list(accumulate(layer.lora_A[name].weight.shape[0] for name in names))
        self.places = {name: slice(start, end) for name, start, end in zip(names, [0, *ends], ends, strict=False)}
        self.a = torch.cat([layer.lora_A[name].weight.detach().to(dtype) for name in names])
        self.b = torch.cat([layer.lora_B[name].weight.detach().t().to(dtype) for name in names])
        for name, place in self.places.items():
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            if a.dtype == b.dtype == dtype and not (a.requires_grad or b.requires_grad):
                a.data, b.data = self.a[place], self.b[place].t()
        self.shifts, self.scales = {}, {}
        for name in names:
            if (bias := layer.lora_B[name].bias) is not None:
                self.shifts[name] = (bias.detach() * layer.scaling[name]).to(dtype)
            if name in layer.lora_variant:
                scale = _dora_scale(layer, name)
                self.scales[name] = scale.to(dtype)
                if self.base.bias is not None:  # which DoRA does not scale
                    self.shifts[name] = ((1 - scale) * self.base.bias).to(dtype)
        # Zeros in place of another row's part hold only what is finite apart; an adapter that learns need not be.
        self._is_finite = bool(self.a.isfinite().all() and self.b.isfinite().all())

    def forward(self, own: Sequence[str | None]) -> Forward:
        """What the layer computes where row r has the adapter `own[r]`."""
        segments = self._segments(own)
        places = [place for name, place in self.places.items() if name in own]
        start, end = places[0].start, places[-1].stop
        is_dense = 2 * sum(place.stop - place.start for place in places) >= end - start  # not mostly adapters of nobody's
        if len(set(own)) == 1 or not (is_dense and self._is_finite):
            return partial(self._by_segments, segments, len(own))
        a, b, masks = self.a[start:end], self.b[start:end], self._masks(own)[:, start:end]
        shift, scale = self._by_row(own, self.shifts, 0.0), self._by_row(own, self.scales, 1.0)

        def forward(x: Tensor, *arguments, **named) -> Tensor:
            if x.numel() > _FEW_TOKENS * x.shape[-1]:
                return self._by_segments(segments, len(own), x, *arguments, **named)
            output = self.base(x, *arguments, **named)
            inner = functional.linear(x, a) * _of_rows(masks, x)
            output = torch.addmm(output.view(-1, output.shape[-1]), inner.view(-1, len(a)), b).view(output.shape)
            if scale is not None:
                output = output * _of_rows(scale, x)
            return output if shift is None else output + _of_rows(shift, x)

        return forward

    def _masks(self, own: Sequence[str | None]) -> Tensor:
        """[rows, R]: the scaling of a row's adapter in its place, 0 elsewhere."""
        masks = torch.zeros(len(own), len(self.a), dtype=self.a.dtype, device=self.a.device)
        for row, name in enumerate(own):
            if name is not None:
                masks[row, self.places[name]] = self.layer.scaling[name]
        return masks

    def _segments(self, own: Sequence[str | None]) -> list[tuple[int, int, str]]:
        """(first row, row after the last one, adapter) of neighbours that have the same adapter."""
        segments, start = [], 0
        for name, group in groupby(own):
            end = start + len(list(group))
            if name is not None:
                segments.append((start, end, name))
            start = end
        return segments

    def _by_segments(self, segments: Sequence[tuple[int, int, str]], rows: int, x: Tensor, *arguments, **named) -> Tensor:
        """A product for each segment: what many tokens are run by."""
        output = self.base(x, *arguments, **named)
        beams, rest = divmod(x.shape[0], rows)
        for start, end, name in segments:
            # A segment of all rows is all there is: tokens that go to an expert come without their rows.
            is_all = (start, end) == (0, rows)
            if rest and not is_all:
                raise ValueError(f"A layer got {x.shape[0]} rows of a batch of {rows}, so that nobody knows whose they are.")
            part = slice(None) if is_all else slice(start * beams, end * beams)
            place, inputs, outputs = self.places[name], x[part], output[part].view(-1, output.shape[-1])
            inner = functional.linear(inputs.reshape(-1, x.shape[-1]), self.a[place])
            outputs.addmm_(inner, self.b[place], alpha=self.layer.scaling[name])
            if name in self.scales:
                outputs *= self.scales[name]
            if name in self.shifts:
                outputs += self.shifts[name]
        return output

    def _by_row(self, own: Sequence[str | None], vectors: dict[str, Tensor], otherwise: float) -> Tensor | None:
        """[rows, out_features], None where no row has any."""
        if not vectors.keys() & set(own):
            return None
        neutral = torch.full_like(next(iter(vectors.values())), otherwise)
        return torch.stack([vectors.get(name, neutral) for name in own])


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


def _dora_scale(layer: lora.Linear, name: str) -> Tensor:
    """m / ||W + s B A||, one number for each output [out_features]: DoRA (arXiv 2402.09353), equation 5."""
    dora, a, b = layer.lora_magnitude_vector[name], layer.lora_A[name].weight, layer.lora_B[name].weight
    norm = dora.get_weight_norm(layer.base_layer.weight.to(a.dtype), b @ a, layer.scaling[name])
    return dora.weight / norm


def _ia3_forward(layer: ia3.Linear, own: Sequence[str | None]) -> Forward:
    """base(x * l) in a feed-forward layer, base(x) * l in another one, l of each row."""
    base = layer.base_layer
    known = next(layer.ia3_l[name].detach().flatten() for name in own if name is not None)
    neutral = torch.ones_like(known)
    vectors = torch.stack([neutral if name is None else layer.ia3_l[name].detach().flatten() for name in own])
    if len(set(own)) == 1:
        vectors = vectors[:1]

    def forward(x: Tensor, *arguments, **named) -> Tensor:
        factors = vectors if len(vectors) == 1 else _of_rows(vectors, x)
        if layer.is_feedforward:
            return base((x * factors).to(x.dtype), *arguments, **named)
        output = base(x, *arguments, **named)
        return (output * factors).to(output.dtype)

    return forward


def _of_rows(values: Tensor, x: Tensor) -> Tensor:
    """`values` [rows, n] for the rows of `x`, beams of a row alike: [rows x beams, 1, n], or without the 1 for two dimensions."""
    beams = x.shape[0] // len(values)
    repeated = values if beams == 1 else values.repeat_interleave(beams, 0)
    return repeated.view(len(repeated), *[1] * (x.dim() - 2), -1)
