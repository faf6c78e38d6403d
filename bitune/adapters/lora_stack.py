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
Added = Callable[[Tensor, Tensor], Tensor]  # from a layer's input and the base's output to the whole output
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
        is_finite: Whether all numbers are. Zeros in place of another row's part hold only these apart; an adapter that learns need not
            have them.
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
        self.is_finite = all(bool(part.isfinite().all()) for part in (self.a, *(layer.b for layer in self.layers)))

    def forwards(self, rows: Sequence[str | None]) -> Iterator[tuple[lora.Linear, Forward]]:
        """What each layer computes where row r has the adapter `rows[r]`, as far as that is one of its own."""
        own = [name if name in self.of else None for name in rows]
        runs = _Runs(self, own) if any(own) else None
        masked = _Masked(self, own) if self._mixes(own) else None
        for index, layer in enumerate(self.layers):
            if layer.places.keys().isdisjoint(own):
                yield layer.peft, layer.base
            else:
                yield layer.peft, _forward(layer.base, runs.added(index), masked and masked.added(index))

    def span(self, own: Sequence[str | None]) -> tuple[list[str], slice]:
        """All adapters from the first of these rows to the last one, and their ranks."""
        used = [index for index, name in enumerate(self.of) if name in own]
        names = list(self.of)[used[0] : used[-1] + 1]
        return names, slice(self.of[names[0]].start, self.of[names[-1]].stop)

    def _mixes(self, own: Sequence[str | None]) -> bool:
        """Whether one product for all these rows can do, and is not mostly for adapters of nobody's."""
        if len(set(own)) == 1 or not self.is_finite:
            return False
        used = sum(_size(place) for name, place in self.of.items() if name in own)
        return 2 * used >= _size(self.span(own)[1])


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

    def by_row(self, own: Sequence[str | None], vectors: Mapping[str, Tensor], otherwise: float) -> Tensor | None:
        """[rows, out_features], None where no row has any."""
        if not vectors.keys() & set(own):
            return None
        neutral = torch.full_like(next(iter(vectors.values())), otherwise)
        return torch.stack([vectors.get(name, neutral) for name in own])


class _Runs:
    """Rows as runs of neighbours with the same adapter, a product for each: the least arithmetic, which many tokens want."""

    def __init__(self, stack: LoraStack, own: Sequence[str | None]):
        self._stack, self._rows, self._inner = stack, len(own), OncePerInput()
        self._runs, start = [], 0
        for name, group in groupby(own):
            count = len(list(group))
            if name is not None:
                self._runs.append((start, count, name))
            start += count

    def added(self, index: int) -> Added:
        """Adds to the base's output what the adapters on that layer make of its input, in place."""
        layer, take, compute, rows = self._stack.layers[index], self._inner.take, self._compute, self._rows
        runs = [
            (start, count, layer.b[layer.places[name]], layer.peft.scaling[name], layer.scales.get(name), layer.shifts.get(name))
            for start, count, name in self._runs
            if name in layer.places
        ]

        def add(x: Tensor, output: Tensor) -> Tensor:
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

        return add

    def _compute(self, x: Tensor) -> list[list[Tensor]]:
        """For each layer what A makes of the input of each run, [tokens, ranks]."""
        inputs, stack = x.reshape(-1, x.shape[-1]), self._stack
        # A run of all rows is all there is: tokens that go to an expert come without their rows.
        if x.shape[0] % self._rows and self._runs[0][1] != self._rows:
            raise ValueError(f"A layer got {x.shape[0]} rows of a batch of {self._rows}, so that nobody knows whose they are.")
        found, tokens = [[] for _ in stack.layers], inputs.shape[0] // self._rows
        for start, count, name in self._runs:
            part = inputs if count == self._rows else inputs.narrow(0, start * tokens, count * tokens)
            inner = functional.linear(part, stack.a[stack.of[name]])
            for index, own in zip(stack.has[name], inner.split(stack.ranks[name], 1), strict=True):
                found[index].append(own)
        return found


class _Masked:
    """All adapters of the rows in one product, each row masked to its own: the fewest calls, which few tokens want."""

    def __init__(self, stack: LoraStack, own: Sequence[str | None]):
        self._stack, self._own, self._inner = stack, own, OncePerInput()
        names, whole = stack.span(own)
        self._a, device = stack.a[whole], stack.a.device
        columns, masks, self._parts = [], [], []  # of each layer, one adapter after the other as in its b
        for index, layer in enumerate(stack.layers):
            known = [name for name in layer.places if name in names]
            for name in known:
                before = stack.of[name].start - whole.start + sum(stack.ranks[name][: stack.has[name].index(index)])
                columns += range(before, before + _size(layer.places[name]))
                scaling = [layer.peft.scaling[name] if other == name else 0.0 for other in own]
                masks += [scaling] * _size(layer.places[name])
            self._parts.append(slice(layer.places[known[0]].start, layer.places[known[-1]].stop) if known else slice(0, 0))
        self._columns = torch.tensor(columns, device=device) if len(stack.layers) > 1 else None
        self._masks = torch.tensor(masks, dtype=self._a.dtype, device=device).t().contiguous()
        self._sizes = [_size(part) for part in self._parts]

    def added(self, index: int) -> Added:
        """As `_Runs.added`."""
        layer, take, compute = self._stack.layers[index], self._inner.take, self._compute
        b = layer.b[self._parts[index]]
        shift, scale = layer.by_row(self._own, layer.shifts, 0.0), layer.by_row(self._own, layer.scales, 1.0)

        def add(x: Tensor, output: Tensor) -> Tensor:
            output.view(-1, output.shape[-1]).addmm_(take(x, index, compute), b)
            if scale is not None:
                output *= of_rows(scale, x)
            if shift is not None:
                output += of_rows(shift, x)
            return output

        return add

    def _compute(self, x: Tensor) -> Sequence[Tensor]:
        """For each layer what the A of its adapters make of the input, scaled and masked, [tokens, ranks]."""
        inner = functional.linear(x, self._a)
        if self._columns is not None:
            inner = inner.index_select(-1, self._columns)
        inner = inner * of_rows(self._masks, x)
        return inner.view(-1, inner.shape[-1]).split(self._sizes, 1)


def _forward(base: Forward, many: Added, few: Added | None) -> Forward:
    """The base's product and what is added to it."""

    def forward(x: Tensor, *arguments, **named) -> Tensor:
        add = many if few is None or x.numel() > _FEW_TOKENS * x.shape[-1] else few
        return add(x, base(x, *arguments, **named))

    return forward


def of_rows(values: Tensor, x: Tensor) -> Tensor:
    """`values` [rows, n] for the rows of `x`, beams of a row alike: [rows x beams, 1, n], or without the 1 for two dimensions."""
    rows, n = values.shape
    beams = x.shape[0] // rows
    repeated = values if beams == 1 else values.repeat_interleave(beams, 0)
    return repeated.view(rows * beams, *[1] * (x.dim() - 2), n)


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
