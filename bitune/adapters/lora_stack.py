"""The LoRA adapters of layers that read the same input, as products over a batch whose rows have different ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby

import torch
from peft.tuners import lora
from torch import Tensor
from torch.nn import functional

from bitune.modeling.packed import weight_dtype
from bitune.modeling.siblings import OncePerInput

Forward = Callable[[Tensor], Tensor]
_FEW_TOKENS = 32  # of a batch, up to which one product over all adapters is faster than one for each of them


class LoraStack:
    """All LoRA adapters of some layers: R ranks altogether, an adapter after the other, and of each adapter a layer after the other.

    Args:
        adapters: The layers, with the names of the adapters on each; in a group they read the same input.

    Attributes:
        a: [R, in_features], in the dtype of the base. PEFT's own parameters become views of it where they have this dtype and do not
            learn, so that nothing lies in memory twice; likewise `b` of a layer.
        of: Adapter -> which of the R are its own on all layers together.
        has, ranks: Adapter -> the indices of its layers, and how many ranks it has on each.
    """

    def __init__(self, adapters: Mapping[lora.Linear, Sequence[str]]):
        names = list(dict.fromkeys(name for given in adapters.values() for name in given))
        self.layers = [_Layer(layer, [name for name in names if name in given]) for layer, given in adapters.items()]
        self.has = {name: [index for index, layer in enumerate(self.layers) if name in layer.places] for name in names}
        self.ranks = {name: [_size(self.layers[index].places[name]) for index in self.has[name]] for name in names}
        self.of = dict(zip(names, _one_after_the_other([sum(self.ranks[name]) for name in names]), strict=True))
        weights = [self.layers[index].peft.lora_A[name].weight for name in names for index in self.has[name]]
        dtype = weight_dtype(self.layers[0].base)
        self.a = torch.cat([weight.detach().to(dtype) for weight in weights])
        for weight, place in zip(weights, _one_after_the_other([len(weight) for weight in weights]), strict=True):
            if weight.dtype == dtype and not weight.requires_grad:
                weight.data = self.a[place]

    def forwards(self, rows: Sequence[str | None]) -> Iterator[tuple[lora.Linear, Forward]]:
        """What each layer computes where row r has the adapter `rows[r]`, as far as that is one of its own."""
        own = [name if name in self.of else None for name in rows]
        runs = _Runs(self, own) if any(own) else None
        for index, layer in enumerate(self.layers):
            is_bare = layer.places.keys().isdisjoint(own)
            yield layer.peft, layer.base if runs is None or is_bare else runs.forward(index)


class _Layer:
    """What of the adapters on one layer comes after A.

    Attributes:
        b: [ranks on this layer, out_features].
        places: Adapter -> which of these ranks are its own.
        scales, shifts: Adapter -> [out_features], what the sum of base and adapter is multiplied with, and what is added then.
    """

    def __init__(self, layer: lora.Linear, names: Sequence[str]):
        self.peft, self.base = layer, layer.base_layer
        dtype = weight_dtype(self.base)
        self.b = torch.cat([layer.lora_B[name].weight.detach().t().to(dtype) for name in names])
        ranks = [layer.lora_B[name].weight.shape[1] for name in names]
        self.places = dict(zip(names, _one_after_the_other(ranks), strict=True))
        self.shifts, self.scales = {}, {}
        for name, place in self.places.items():
            weight, bias = layer.lora_B[name].weight, layer.lora_B[name].bias
            if weight.dtype == dtype and not weight.requires_grad:
                weight.data = self.b[place].t()
            if bias is not None:
                self.shifts[name] = (bias.detach() * layer.scaling[name]).to(dtype)
            if name in layer.lora_variant:
                scale = _dora_scale(layer, name)
                self.scales[name] = scale.to(dtype)
                if self.base.bias is not None:  # which DoRA does not scale
                    self.shifts[name] = ((1 - scale) * self.base.bias).to(dtype)

    def after(self, name: str) -> tuple[Tensor, float, Tensor | None, Tensor | None]:
        """What an adapter does with what its A has made: its B, its scaling, and its part of `scales` and `shifts`."""
        return self.b[self.places[name]], self.peft.scaling[name], self.scales.get(name), self.shifts.get(name)


class _Runs:
    """Rows of a batch as runs of neighbours that have the same adapter.

    Each run takes its own part of each product, in place. What A makes of the input comes in one product for all adapters where tokens are
    few, since the calls take longer than their arithmetic then; and in one for each run where they are many.
    """

    def __init__(self, stack: LoraStack, own: Sequence[str | None]):
        self._stack, self._rows, self._inner = stack, len(own), OncePerInput()
        self._runs, start = [], 0
        for name, group in groupby(own):
            end = start + len(list(group))
            if name is not None:
                self._runs.append((start, end - start, name))
            start = end
        used = [place for name, place in stack.of.items() if name in own]
        whole = slice(used[0].start, used[-1].stop)
        is_dense = 2 * sum(map(_size, used)) >= _size(whole)  # not mostly ranks of others
        self._few_tokens = _FEW_TOKENS if len(used) > 1 and is_dense else 0
        self._whole = stack.a[whole]
        self._parts = [(stack.a[stack.of[name]], stack.of[name].start - whole.start) for _, _, name in self._runs]

    def forward(self, index: int) -> Forward:
        """What that layer computes."""
        layer, take, compute, rows = self._stack.layers[index], self._inner.take, self._compute, self._rows
        base, runs = layer.base, [(start, count, *layer.after(name)) for start, count, name in self._runs if name in layer.places]

        def forward(x: Tensor, *arguments, **named) -> Tensor:
            output = base(x, *arguments, **named)
            outputs = output.view(-1, output.shape[-1])
            tokens = outputs.shape[0] // rows
            for (start, count, b, scaling, scale, shift), inner in zip(runs, take(x, index, compute), strict=True):
                part = outputs if count == rows else outputs.narrow(0, start * tokens, count * tokens)
                part.addmm_(inner, b, alpha=scaling)
                if scale is not None:
                    part *= scale
                if shift is not None:
                    part += shift
            return output

        return forward

    def _compute(self, x: Tensor) -> list[list[Tensor]]:
        """For each layer what A makes of the input of each run, [tokens, ranks]."""
        inputs, stack = x.reshape(-1, x.shape[-1]), self._stack
        # A run of all rows is all there is: tokens that go to an expert come without their rows.
        if x.shape[0] % self._rows and self._runs[0][1] != self._rows:
            raise ValueError(f"A layer got {x.shape[0]} rows of a batch of {self._rows}, so that nobody knows whose they are.")
        found, tokens = [[] for _ in stack.layers], inputs.shape[0] // self._rows
        whole = functional.linear(inputs, self._whole) if inputs.shape[0] <= self._few_tokens else None
        for (start, count, name), (a, first) in zip(self._runs, self._parts, strict=True):
            source = inputs if whole is None else whole
            source = source if count == self._rows else source.narrow(0, start * tokens, count * tokens)
            inner = functional.linear(source, a) if whole is None else source.narrow(1, first, a.shape[0])
            for index, part in zip(stack.has[name], inner.split(stack.ranks[name], 1), strict=True):
                found[index].append(part)
        return found


def _dora_scale(layer: lora.Linear, name: str) -> Tensor:
    """m / ||W + s B A||, one number for each output [out_features]: DoRA (arXiv 2402.09353), equation 5."""
    dora, a, b = layer.lora_magnitude_vector[name], layer.lora_A[name].weight, layer.lora_B[name].weight
    norm = dora.get_weight_norm(layer.base_layer.weight.to(a.dtype), b @ a, layer.scaling[name])
    return dora.weight / norm


def _one_after_the_other(sizes: Sequence[int]) -> list[slice]:
    ends = list(accumulate(sizes))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _size(place: slice) -> int:
    return place.stop - place.start
