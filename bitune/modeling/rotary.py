"""Up to how many tokens a key is the same whatever else is in the call: found by running a few tokens at chosen positions.

Some rotary embeddings take their frequencies from the longest position of a call (`longrope` of Phi-3, `dynamic` scaling). Keys that
were cached by a shorter call are then no longer those that the model would compute. Knows no names of families.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, PreTrainedModel

from bitune.modeling.interface import attention_implementation, cache_input, input_device, position_input
from bitune.modeling.masks import DecoderLayout, pass_masks

_TOKENS = 4
_LONGEST = 2**22  # positions beyond are not exact in float32 once doubled, and no model reads so far
_IDS = (3, 10, 17, 24)
_MARKS = (1, 6, 2, 5)  # positions that are known again as an index, and are none of four tokens


@dataclass(frozen=True)
class Lengths:
    """What a model's keys have to do with the length of the call.

    Attributes:
        limit: The most tokens that can be read and answered together: the end of a table of positions, or the length from which on
            every further token changes all keys; None where the model has neither.
        rotary_switch: Calls of at most this many tokens have the same keys at the same positions, longer ones have other keys, the
            same for all of them; None where all lengths are alike.
    """

    limit: int | None
    rotary_switch: int | None


def probe_lengths(model: PreTrainedModel, layout: DecoderLayout) -> Lengths:
    """Find out by forwards over four tokens; `model` is in eval mode and is left as it was.

    Two forwards for a model whose keys do not depend on the length, some forty for another.
    """
    if not position_input(model, torch.ones(1, _TOKENS), _TOKENS):
        # It counts by itself and has no rotary embedding: distances, and if its config names a length, a table of them.
        return Lengths(None if layout.context == sys.maxsize else layout.context, None)
    table = _end_of_table(model, layout)
    longest = min(table if table is not None else 2 * layout.context, _LONGEST)
    same = _Comparison(model, layout)
    if same(_TOKENS, longest):
        return Lengths(table, None)
    lower, upper = _TOKENS, longest
    while upper - lower > 1:
        middle = (lower + upper) // 2
        if same(lower, middle):
            lower = middle
        else:
            upper = middle
    if same(upper, longest):
        return Lengths(table, lower)
    return Lengths(lower, None)


def turns_by_length(model: PreTrainedModel, layout: DecoderLayout, shorter: int, longer: int) -> bool:
    """Whether a call of `longer` tokens turns its keys otherwise than one of `shorter` at the same positions."""
    if not position_input(model, torch.ones(1, _TOKENS), _TOKENS):
        return False
    first, second = (_run(model, layout, [0, 1, 1, length - 1]) for length in (shorter, longer))
    same = [torch.equal(one, two) for one, two in zip(first, second, strict=True)]
    return any(not keys and values for keys, values in zip(same[:-1:2], same[1::2], strict=True))


class _Comparison:
    """Whether calls of two lengths have the same keys, values and logits at the positions that both have."""

    def __init__(self, model: PreTrainedModel, layout: DecoderLayout):
        self.model, self.layout = model, layout
        # The last token differs between the calls, and with experts it may change the order of sums for the others.
        self.rounding = 1e-4 if model.dtype == torch.float32 else 5e-2

    def __call__(self, shorter: int, longer: int) -> bool:
        """`shorter` < `longer`, in tokens. Both calls read the positions 0, half and last of the shorter one, then their own last."""
        shared = [0, shorter // 2, shorter - 1]
        first = _run(self.model, self.layout, [*shared, shorter - 1])
        second = _run(self.model, self.layout, [*shared, longer - 1])
        for index, (one, two) in enumerate(zip(first, second, strict=True)):
            if torch.equal(one, two):
                continue
            # Keys that differ beside equal values of the same layer were turned otherwise: rounding would show in both.
            is_rotated = index % 2 == 0 and index + 1 < len(first) and torch.equal(first[index + 1], second[index + 1])
            return not is_rotated and all(map(self._is_close, first, second))
        return True

    def _is_close(self, one: Tensor, two: Tensor) -> bool:
        return torch.allclose(one, two, rtol=0, atol=self.rounding * float(one.abs().max()))


@torch.no_grad()
def _run(model: PreTrainedModel, layout: DecoderLayout, positions: list[int]) -> list[Tensor]:
    """What four tokens at these positions leave behind, without the last one: keys and values of every layer, then logits."""
    device = input_device(model)
    ids, real = torch.tensor([_IDS], device=device), torch.ones(1, _TOKENS, dtype=torch.long, device=device)
    mask = pass_masks(layout, ["causal"], real, attention_implementation(model), model.dtype)
    cache = DynamicCache(config=model.config)
    placed = {"position_ids": torch.tensor([positions], device=device)}
    with left_as_it_was(model):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=True, **cache_input(cache), **placed).logits
    stored = [part[:, :, : _TOKENS - 1] for layer in cache.layers for part in (layer.keys, layer.values)]
    return [part.float() for part in (*stored, logits[:, : _TOKENS - 1])]


def _end_of_table(model: PreTrainedModel, layout: DecoderLayout) -> int | None:
    """How many positions the model has a vector for, None if it computes them: an index beyond would end in an error of the device."""
    with _TableReads() as reads:
        _run(model, layout, list(_MARKS))
    return min(reads.ends, default=None)


class _TableReads(TorchFunctionMode):
    """Notes the end of every table that is read at the positions _MARKS, or at these and an offset."""

    def __init__(self):
        super().__init__()
        self.ends: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if name := getattr(func, "__name__", None):
            first, second = {"embedding": (1, 0), "__getitem__": (0, 1), "index_select": (0, 2)}.get(name, (None, None))
            if first is not None and len(args) > max(first, second):
                self._note(args[first], args[second])
        return func(*args, **(kwargs or {}))

    def _note(self, table: object, index: object) -> None:
        if isinstance(index, tuple) and index:  # table[positions, :]
            index = index[0]
        if not isinstance(index, Tensor) or index.dtype not in (torch.int64, torch.int32) or index.numel() != _TOKENS:
            return
        offset = index.flatten() - torch.tensor(_MARKS, device=index.device)
        if bool((offset == offset[0]).all()):
            self.ends.append(len(table) - int(offset[0]))


@contextmanager
def left_as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Take back, at the end of the block, what forwards wrote into the modules themselves: buffers and plain attributes."""
    state = []
    for module in model.modules():
        buffers = dict(module._buffers)
        content = {name: buffer.clone() for name, buffer in buffers.items() if buffer is not None}
        state.append((module, dict(vars(module)), buffers, content))
    try:
        yield
    finally:
        for module, attributes, buffers, content in state:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
            for name, value in content.items():
                buffers[name].copy_(value)
