"""What PEFT puts into a base: which layers, whether they can be switched row by row, and whether the base itself stayed as it was."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter, is_

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.lora.variants import DoraEmbeddingVariant, DoraLinearVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitune.errors import CheckpointError

_BASE_ROW = "__base__"  # PEFT's name for a row without adapter
_SAMPLED_VALUES = 8


def adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
    """Every layer of `model` that PEFT has wrapped."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def base_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The modules of the base, without those that PEFT put around them."""
    layers = adapter_layers(model)
    of_base = {module for layer in layers for module in layer.get_base_layer().modules()}
    of_adapters = {module for layer in layers for module in layer.modules()} - of_base
    return [module for module in model.modules() if module not in of_adapters]


Place = tuple[dict[str, object], str]
"""Where a module holds something, mostly a parameter: its dict of them, and the name in it."""


def parameter_places(modules: Iterable[nn.Module]) -> list[Place]:
    """The places of all parameters that these modules hold themselves."""
    return [(module._parameters, name) for module in modules for name, value in module._parameters.items() if value is not None]


def adapter_places(layers: Iterable[BaseTunerLayer], adapter: str) -> list[Place]:
    """The places of an adapter's parameters."""
    places = []
    for layer in layers:
        for kind in layer.adapter_layer_names:
            parts = getattr(layer, kind)  # by name of the adapter: modules (lora_A), or parameters (ia3_l)
            if adapter in parts:
                is_parameter = isinstance(parts[adapter], nn.Parameter)
                places += [(parts._parameters, adapter)] if is_parameter else parameter_places(parts[adapter].modules())
    return places


class Snapshot:
    """Parameters as they are now, to see whether somebody writes into them, moves them, or puts others in their place.

    Args:
        places: Of the parameters.
        things: Places of anything else, where only another thing in its place is seen.
    """

    def __init__(self, places: Iterable[Place], things: Iterable[Place] = ()):
        places = list(places)
        self._owners, self._names = [owner for owner, _ in places], [name for _, name in places]
        self._parameters = [owner[name] for owner, name in places]
        # The tensors are held, because no other one gets the address of one that is there.
        self._held = [parameter.detach() for parameter in self._parameters]
        self._seen = self._addresses_and_versions()
        # torch's fused optimizers, which the Trainer takes, write without counting it: what learns is compared number by number.
        self._learning = [(one, one.detach().clone()) for one in self._parameters if one.requires_grad]
        self._things = [(owner, name, owner[name]) for owner, name in things]

    def is_current(self) -> bool:
        """Whether they still are. Asked at every turn, of thousands: by functions of C as far as it goes."""
        if not all(map(is_, map(dict.get, self._owners, self._names), self._parameters)):
            return False
        if self._addresses_and_versions() != self._seen:
            return False
        if any(owner.get(name) is not thing for owner, name, thing in self._things):
            return False
        return all(torch.equal(parameter, values) for parameter, values in self._learning)

    def _addresses_and_versions(self) -> tuple[list[int], list[int]]:
        return list(map(Tensor.data_ptr, self._parameters)), list(map(attrgetter("_version"), self._parameters))


def unwrap(model: PreTrainedModel) -> None:
    """Put every layer that PEFT wrapped back where it was; what PEFT calls unload needs an adapter that was injected whole."""
    outer = ""
    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and not (outer and path.startswith(f"{outer}.")):
            model.set_submodule(path, module.get_base_layer())
            outer = path
    vars(model).pop("peft_config", None)


def is_plain_lora(layer: BaseTunerLayer, adapters: Sequence[str]) -> bool:
    """Whether the layer runs these adapters as base + scaling * B A x, so that rows of one batch may have different ones.

    PEFT calls any other arithmetic a variant of LoRA; DoRA is one.
    """
    return isinstance(layer, LoraLayer) and not layer.lora_variant.keys() & set(adapters)


@contextmanager
def rows_of_adapters(layers: Sequence[BaseTunerLayer], adapters: Sequence[str | None]) -> Iterator[None]:
    """Run row r of a batch under `adapters[r]` until the end of the block, beams of a row under its adapter too.

    Nothing needs to be done where all rows have the same adapter, which is active.
    PEFT's own way in (`adapter_names=` of the model) leaves its hooks behind when the forward raises.
    """
    if len(set(adapters)) == 1:
        yield
        return
    names = [_BASE_ROW if name is None else name for name in adapters]

    def name_rows(_, args, kwargs):
        beams = args[0].shape[0] // len(names)
        return args, {**kwargs, "adapter_names": [name for name in names for _ in range(beams)]}

    hooks = [layer.register_forward_pre_hook(name_rows, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_layers(model: PreTrainedModel, adapter: str, name: str) -> None:
    """Refuse an adapter by what its layers do, whatever its config calls it.

    Args:
        adapter: An adapter that has just been injected into `model`.
        name: What the error calls it.

    Raises:
        CheckpointError: PEFT made something else of it than LoRA, DoRA or IA3 layers.
    """
    others = {type(module).__name__ for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)}
    for layer in adapter_layers(model):
        if not isinstance(layer, LoraLayer | IA3Layer) or isinstance(layer, ParamWrapper):
            others.add(type(layer).__name__)
        elif isinstance(layer, LoraLayer) and adapter in layer.lora_variant:
            variant = layer.lora_variant[adapter]
            if not isinstance(variant, DoraLinearVariant | DoraEmbeddingVariant):
                others.add(type(variant).__name__)
    if others:
        raise CheckpointError(
            f"{name} makes {', '.join(sorted(others))} of the base's layers, and bitune runs LoRA, DoRA and IA3 layers; train the "
            "adapter without the setting that asks for it."
        )


def check_tying(model: PreTrainedModel, config: PeftConfig, name: str) -> None:
    """Refuse an adapter whose tied embeddings PEFT would not tie: it does not see that layers which carry adapters are tied.

    Args:
        config: Of an adapter that is not on `model` yet.
        name: What the error calls it.

    Raises:
        CheckpointError: It sets `ensure_weight_tying`, and an embedding of `model` carries another adapter.
    """
    tied = isinstance(config, LoraConfig) and config.ensure_weight_tying
    if tied and any(isinstance(layer, BaseTunerLayer) for layer in (model.get_input_embeddings(), model.get_output_embeddings())):
        raise CheckpointError(
            f"{name} ties what it adds to the embeddings (ensure_weight_tying), and PEFT cannot do that where another adapter is on "
            "them already; load it first, or load the base a second time for it."
        )


def switch(layer: BaseTunerLayer, adapter: str | None) -> None:
    """Let a layer run with one adapter, or with none.

    Not by PEFT's `set_adapter` and `enable_adapters`: they also freeze parameters, for a moment at least, and a backward pass that
    goes on in another thread would drop their gradients.
    """
    attributes = vars(layer)  # setting one of a module is slow, and all layers are switched before every few tokens
    attributes["_disable_adapters"] = adapter is None
    if adapter is not None:
        attributes["_active_adapter"] = [adapter]


class BaseWeights:
    """The base's parameters as they are now, to see whether PEFT changes them, and to put them back.

    Args:
        modules: Of the bare base; the parameters of adapters may be learning meanwhile.
    """

    def __init__(self, modules: Sequence[nn.Module]):
        parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
        self._data = [(parameter, parameter.data, _sample(parameter)) for parameter in parameters]

    def restore(self) -> bool:
        """Put back what was replaced.

        Returns:
            Whether anything had changed. Some ways to begin an adapter (PiSSA, OLoRA, ...) subtract it from the base.
        """
        changed = False
        for parameter, data, sample in self._data:
            if parameter.data_ptr() != data.data_ptr() or not torch.equal(_sample(parameter), sample):
                parameter.data = data
                changed = True
        return changed


def _sample(parameter: Tensor) -> Tensor:
    """A few values, evenly spread: a changed matrix is changed nearly everywhere."""
    if parameter.is_meta:  # offloaded: nothing to read, and nothing that PEFT could change
        return torch.empty(0)
    flat = parameter.detach().flatten()
    return flat[:: max(1, flat.numel() // _SAMPLED_VALUES)].clone()
