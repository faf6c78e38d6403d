"""Which adapter runs on which row of a batch, and which rows can share a forward."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from bitune.adapters.kinds import is_mixture_of_experts
from bitune.adapters.layers import (
    base_modules,
    is_plain_lora,
    rows_of_adapters,
    switch,
)
from bitune.adapters.stacked import Stacks, is_stackable
from bitune.adapters.states import WeightStates
from bitune.adapters.turns import SharedModel
from bitune.errors import UnknownNameError
from bitune.modeling.captured import DEVICES, CapturedForwards
from bitune.modeling.interface import IMPLEMENTATIONS, attention_implementation, takes_positions, without_cudnn_attention
from bitune.modeling.memory import release_freed
from bitune.modeling.packed import pack, unpack

Result = TypeVar("Result")


class AdapterRows(SharedModel):
    """A base with adapters, run so that each row of a batch has its own. At rest no adapter is active."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        self._configs: dict[str, PeftConfig] = {}
        self._trainable: set[str] = set()
        self._has_experts = is_mixture_of_experts(model)
        self._siblings: list[list[nn.Linear]] = []  # layers of the base that read the same input
        self.in_shards = False  # set by who trains so: weights are gathered and dropped as each layer runs, which nothing shows
        self._packs = self._to_int8 = self._is_packed = False
        self._active: str | None = None
        self._is_settled = False  # inside of `active_rows`, which has just looked
        self._states = WeightStates(model, [])
        self.captured = CapturedForwards(0)
        self._captured_of: tuple[int, bool] | None = None  # the base's state, and whether its forwards can be captured
        # Inside of `active_rows`: the rows and what layers compute, where none of it is PEFT's.
        self._stacked: tuple[tuple[str | None, ...], object] | None = None
        self._set_layers([])

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._is_packed = False  # a copy of a packed layer is a plain one
        self._stacks, self._states = Stacks(self._layers, self._siblings), WeightStates(self.model, self._layers)

    def __getstate__(self) -> dict:
        return {key: value for key, value in super().__getstate__().items() if key not in ("_stacks", "_states")}

    @property
    def names(self) -> tuple[str, ...]:
        """Every adapter loaded on this base."""
        return tuple(self._configs)

    def keep_packed(self, to_int8: bool) -> None:
        """From now on, while nobody trains on this base, its linear layers hold their weights as `modeling.packed` has them.

        Whoever reads such a layer's `weight` gets a copy. Adding an adapter unpacks them; the next forward packs them again.
        `to_int8`: into 8 bits; for a base whose weights were rounded to them.
        """
        self._packs, self._to_int8 = True, to_int8

    @contextmanager
    def active_adapter(self, adapter: str | None) -> Iterator[None]:
        """Run with one adapter (None: the base alone), as PEFT does, until the end of the block, also when it ends by an exception."""
        with self.turn():
            self._check_known([adapter])
            before = self._active
            try:
                self._activate(adapter)
                yield
            finally:
                self._activate(before)

    @contextmanager
    def active_rows(self, adapters: Sequence[str | None]) -> Iterator[None]:
        """Run row r of a batch under `adapters[r]` until the end of the block. They must be of one batch, see `batches`."""
        first = next((name for name in adapters if name is not None), None)
        with self.active_adapter(first), without_cudnn_attention(self.model.device):
            if self._runs_stacked():
                self._settle()
                with (
                    self._settled(),
                    self._stacks.running(adapters) as (forwards, others),
                    rows_of_adapters(others, adapters),
                    self._computing(None if others else (tuple(adapters), forwards)),
                ):
                    yield
            else:
                with rows_of_adapters(self._layers, adapters), self._computing(None):
                    yield

    def run(self, adapters: Sequence[str | None], call: Callable[[list[int]], Result]) -> list[tuple[list[int], Result]]:
        """[(rows, call(rows)), ...] for each of `batches(adapters)`: together they cover every row, row r under `adapters[r]`."""
        results = []
        with self.turn():
            self._check_known(adapters)
            for rows in self.batches(adapters):
                with self.active_rows([adapters[row] for row in rows]):
                    results.append((rows, call(rows)))
        return results

    def batches(self, adapters: Sequence[str | None]) -> list[list[int]]:
        """The rows that can share a forward: one batch for the adapters that can be mixed, and one for each other adapter.

        Rows of the same adapter are neighbours.
        """
        distinct = list(dict.fromkeys(adapters))
        together = [name for name in distinct if self.can_mix([name])]
        groups = [together, *([name] for name in distinct if name not in together)]
        return [[row for name in group for row, adapter in enumerate(adapters) if adapter == name] for group in groups if group]

    def can_mix(self, adapters: Sequence[str | None]) -> bool:
        """Whether these adapters can run in one forward, one a row, in eval mode.

        Without gradients LoRA, DoRA and IA3 on linear layers can (adapters.stacked); else what PEFT mixes can, which is plain LoRA.
        """
        if self.model.training or self._has_experts:
            return False
        return all(self._is_mixable(name) for name in adapters if name is not None)

    def _is_mixable(self, adapter: str) -> bool:
        key = (adapter, self._runs_stacked())
        if key not in self._mixable:
            self._mixable[key] = all(
                (key[1] and is_stackable(layer, adapter)) or is_plain_lora(layer, [adapter]) for layer in self._layers
            )
        return self._mixable[key]

    def states(self, adapters: Iterable[str | None]) -> dict[str | None, tuple[int, int]]:
        """For each adapter numbers that are others once somebody has written into its weights or into the base's, or scaled it."""
        with self.turn():
            if not self._is_settled:
                self._settle()
            base = self._states.number(None)
            return {name: (base, 0 if name is None else self._states.number(name)) for name in adapters}

    @property
    def captures(self) -> bool:
        """Whether this base is on a device where forwards are worth to be captured."""
        return self.captured.limit > 0 and self.model.device.type in DEVICES

    def captured_kind(self) -> tuple[Hashable, object] | None:
        """Of a forward of the active rows, inside of `active_rows`: what it is known by, and what it computes with.

        None where it cannot be one of `captured`: PEFT runs some of it, adapters learn, attention is recorded, the base is not on one
        such device, experts are chosen, its tokens have no positions, or there is a length from which on these are others. Forwards of a
        base that somebody has written into or moved are let go.
        """
        if self._stacked is None or self._trainable or not self.captures:
            return None
        if (implementation := attention_implementation(self.model)) not in IMPLEMENTATIONS:
            return None
        number = self._states.number(None)
        if self._captured_of is None or self._captured_of[0] != number:
            self.captured.clear()
            is_on_one = len({parameter.device for parameter in self.model.parameters()}) == 1
            is_alike = self.layout.rotary_switch is None and self.layout.limit is None and takes_positions(self.model)
            self._captured_of = number, is_on_one and is_alike and not self._has_experts
        rows, forwards = self._stacked
        return ((rows, implementation), forwards) if self._captured_of[1] else None

    def _runs_stacked(self) -> bool:
        """Whether nothing asks for PEFT's own arithmetic: gradients, dropout, autocast, which casts product by product, or shards."""
        first = next(self.model.parameters())
        casts, is_whole = torch.is_autocast_enabled(first.device.type), type(first) is nn.Parameter
        return is_whole and not (self.in_shards or torch.is_grad_enabled() or self.model.training or casts)

    def _settle(self) -> None:
        """Move weights to where they stay until an adapter is added or removed."""
        # Asked only where it matters: of a base that learns itself it means a copy of all weights.
        base = self._states.number(None) if self._stacks.measure_base else 0
        stacks = self._runs_stacked() and not self._stacks.are_current(base)
        packs = self._packs and not self._is_packed and not self._trainable
        if not stacks and not packs:
            return
        with self._states.moving():
            if stacks:
                self.captured.clear()  # they compute with what was stacked before
                self._stacks.build(base)
            if packs:
                pack(base_modules(self.model), self._siblings, to_int8=self._to_int8)
                self._is_packed = True
        if packs:
            release_freed()

    @contextmanager
    def _settled(self) -> Iterator[None]:
        before, self._is_settled = self._is_settled, True
        try:
            yield
        finally:
            self._is_settled = before

    @contextmanager
    def _computing(self, stacked: tuple[tuple[str | None, ...], object] | None) -> Iterator[None]:
        before, self._stacked = self._stacked, stacked
        try:
            yield
        finally:
            self._stacked = before

    def _unpack(self) -> None:
        if self._is_packed:
            with self._states.moving():
                unpack(self.model)
            self._is_packed = False

    def _set_layers(self, layers: Sequence[BaseTunerLayer]) -> None:
        self.captured.clear()
        self._layers, self._stacks = list(layers), Stacks(layers, self._siblings)
        self._states.layers = self._layers
        self._note_modules()
        self._mixable: dict[tuple[str, bool], bool] = {}

    def _activate(self, adapter: str | None) -> None:
        self._active = adapter
        for layer in self._layers:
            switch(layer, adapter)

    def _check_known(self, adapters: Iterable[str | None]) -> None:
        for name in set(adapters) - {None}:
            if name not in self.names:
                raise UnknownNameError("adapter", str(name), self.names)
