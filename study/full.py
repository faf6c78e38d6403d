"""Full fine-tuning in the place of adapters: whole sets of a base's linear weights, of which one is in force at a time.

To BituneModel it is a manager like any other, so every method of the variant table trains and answers with it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitune.adapters.manager import AdapterManager
from bitune.base.loading import Base
from bitune.errors import CheckpointError


class WeightSets(AdapterManager):
    """Each `adapter` is a float32 copy of every linear weight of the decoder; at rest the base's own are in force."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        head = model.get_output_embeddings()
        self._modules_by_path = {
            path: module
            for path, module in model.base_model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
        self._base_weights = {path: module.weight for path, module in self._modules_by_path.items()}
        self._configs: dict[str, PeftConfig] = {}
        # A part of the model, so that its parameters are found by optimizers.
        model.weight_sets = nn.ModuleDict()

    @classmethod
    def on_copy(cls, base: Base) -> Base:
        """A copy of a bare base whose models train whole sets of weights."""
        model = copy.deepcopy(base.model)
        vars(model)["weight_sets_manager"] = cls.of(model)  # a manager lives as long as somebody holds it
        return replace(base, model=model)

    @property
    def names(self) -> tuple[str, ...]:
        """Every set there is."""
        return tuple(self._configs)

    def config(self, name: str) -> PeftConfig:
        """What `add` was given: nothing here asks for it."""
        return self._configs[name]

    def add(self, wanted: str, config: PeftConfig, weights: Mapping[str, Tensor] | None = None, *, trainable: bool) -> str:
        """A set that begins as the base's weights, or as `weights`."""
        name = self._free_name(wanted)
        self.model.weight_sets[name] = nn.ParameterDict(
            {_key(path): nn.Parameter(weight.detach().float().clone(), trainable) for path, weight in self._base_weights.items()}
        )
        self._configs[name] = config
        if weights is not None:
            self.fill(name, weights)
        return name

    def remove(self, *names: str) -> None:
        """Forget sets."""
        for name in names:
            self._configs.pop(name)
            del self.model.weight_sets[name]

    @torch.no_grad()
    def fill(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Put `weights` into a set; CheckpointError if they do not fit."""
        self.check_fit(name, weights)
        for key, value in self.model.weight_sets[name].items():
            value.copy_(weights[key])

    def check_fit(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """CheckpointError unless `weights` are exactly the tensors of the set."""
        shapes = {key: value.shape for key, value in self.model.weight_sets[name].items()}
        if shapes != {key: value.shape for key, value in weights.items()}:
            raise CheckpointError(
                f"The weights for {name!r} are not those of this base's linear layers; load them on their base."
            )

    def weights(self, name: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of a set on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.model.weight_sets[name].items()}

    def trainable_parameters(self, names: Sequence[str]) -> int:
        """How many numbers the sets hold."""
        return sum(value.numel() for name in names for value in self.model.weight_sets[name].values())

    def can_mix(self, adapters: Sequence[str | None]) -> bool:
        """Never: rows of one batch share the weights."""
        return False

    def _activate(self, adapter: str | None) -> None:
        self._active = adapter
        chosen = None if adapter is None else self.model.weight_sets[adapter]
        for path, module in self._modules_by_path.items():
            module.weight = self._base_weights[path] if chosen is None else chosen[_key(path)]


def _key(path: str) -> str:
    return path.replace(".", "-")  # a parameter's name must not hold dots
