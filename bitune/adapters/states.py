"""Numbers for how the weights of a base and of its adapters are: another one as soon as somebody has changed them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from bitune.adapters.layers import Snapshot, adapter_places, base_modules, parameter_places
from bitune.modeling.packed import packed_places


@dataclass
class _Known:
    """How weights were when somebody asked last.

    Attributes:
        number: Of this state.
        scaling: Of each layer that has the adapter.
        snapshot: None while they are being moved.
    """

    number: int = 0
    scaling: list[float] | None = None
    snapshot: Snapshot | None = None


class WeightStates:
    """The states of the weights on one base. Its user owns the base meanwhile.

    Args:
        model: The base.

    Attributes:
        layers: What PEFT has wrapped now.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[BaseTunerLayer]):
        self.layers = layers
        self._model = model
        self._known: dict[str | None, _Known] = {}

    def number(self, adapter: str | None) -> int:
        """A number that no other state of this adapter, or of the base for None, has had."""
        known = self._known.setdefault(adapter, _Known())
        if not self._is_current(adapter):
            self._known[adapter] = _Known(known.number + 1, self._scaling(adapter), self._snapshot(adapter))
        return self._known[adapter].number

    def forget(self, adapter: str) -> None:
        """Let go of an adapter that was removed; its name is never given again."""
        self._known.pop(adapter, None)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """What is done in the block puts weights elsewhere and changes none of their numbers: whoever was as last seen is so afterwards."""
        current = [adapter for adapter in self._known if self._is_current(adapter)]
        for known in self._known.values():
            known.snapshot = None  # it holds the weights where they were
        yield
        for adapter in current:
            self._known[adapter].snapshot = self._snapshot(adapter)

    def _is_current(self, adapter: str | None) -> bool:
        known = self._known[adapter]
        return known.snapshot is not None and known.scaling == self._scaling(adapter) and known.snapshot.is_current()

    def _scaling(self, adapter: str | None) -> list[float]:
        return [layer.scaling[adapter] for layer in self.layers if isinstance(layer, LoraLayer) and adapter in layer.scaling]

    def _snapshot(self, adapter: str | None) -> Snapshot:
        if adapter is not None:
            return Snapshot(adapter_places(self.layers, adapter))
        modules = base_modules(self._model)
        # accelerate puts new parameters in the places of offloaded weights whenever a layer has run.
        places = [(owner, name) for owner, name in parameter_places(modules) if not owner[name].is_meta]
        return Snapshot(places, packed_places(modules))
