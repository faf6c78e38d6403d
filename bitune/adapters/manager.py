"""One base model with any number of PEFT adapters, and which of them runs on which row of a batch.

The only file that touches PEFT's switches. At rest no adapter is active: the base answers as if it had never been wrapped.
"""

import copy
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import PreTrainedModel

from bitune.adapters.kinds import check_switchable, is_mixture_of_experts
from bitune.base.fingerprint import fingerprint
from bitune.errors import CheckpointError, ConfigError, UnknownNameError, UnsupportedModelError, reason
from bitune.modeling.support import check_supported

Result = TypeVar("Result")
_BASE_ROW = "__base__"  # PEFT's name for a row without adapter
_HOST = "_bitune_adapter_host"


class AdapterManager:
    """The adapters of one base. Get it with `AdapterManager.of(model)`: everybody who shares a base shares its manager."""

    def __init__(self, model: PreTrainedModel):
        if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
            raise UnsupportedModelError(
                "This model already carries adapters that PEFT put on it; pass the bare base (PeftModel.unload() returns it)."
            )
        self.layout = check_supported(model)
        self.fingerprint = fingerprint(model)
        self.model = model
        self._peft: PeftModel | None = None
        self._switchable: list[BaseTunerLayer] = []
        self._trainable: set[str] = set()
        self._active: str | None = None
        self._lock = threading.RLock()

    @classmethod
    def of(cls, model: PreTrainedModel) -> "AdapterManager":
        """The manager of `model`, made on first call; UnsupportedModelError if the model cannot run Bitune."""
        if _HOST not in vars(model):
            manager = cls(model)
            model.requires_grad_(False)
            setattr(model, _HOST, manager)
        return vars(model)[_HOST]

    def __getstate__(self) -> dict:  # a copied or pickled base has its own manager, and locks cannot be copied
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @property
    def names(self) -> tuple[str, ...]:
        """Every adapter loaded on this base."""
        return tuple(self._peft.peft_config) if self._peft else ()

    def config(self, name: str) -> PeftConfig:
        """The PEFT config of an adapter; UnknownNameError for one that is not loaded."""
        self._check_known([name])
        return self._peft.peft_config[name]

    def add(self, wanted: str, config: PeftConfig, weights: Mapping[str, Tensor] | None = None, *, trainable: bool) -> str:
        """Put an adapter on the base, new or with `weights` (keys as in a PEFT folder), and return the name it got.

        The name is `wanted`, with a number if that is taken. Raises CheckpointError if config or weights do not fit this
        base; the base is then as it was.
        """
        check_switchable(config, f"Adapter {wanted!r}")
        with self._lock:
            name = self._free_name(wanted)
            try:
                with warnings.catch_warnings():
                    # PEFT asks transformers for a property under its old name.
                    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                    self._inject(name, copy.deepcopy(config))  # PEFT writes into it ...
                check_switchable(self.config(name), f"Adapter {wanted!r} on this base")  # ... and may choose other places
                if weights is not None:
                    self.fill(name, weights)
            except Exception as error:
                self.remove(name)
                if isinstance(error, CheckpointError):
                    raise
                raise CheckpointError(
                    f"Adapter {wanted!r} does not fit this base ({reason(error)}); load it on the base it was made for."
                ) from error
            if trainable:
                self._trainable.add(name)
            self._activate(None)
        return name

    def remove(self, name: str) -> None:
        """Take an adapter off the base, also one that was begun only; the last one takes PEFT's wrappers with it."""
        with self._lock:
            self._trainable.discard(name)
            if set(self.names) <= {name}:
                self._peft, self._switchable, self._active = None, [], None
                _unwrap(self.model)
                return
            self._activate(next(other for other in self.names if other != name))  # PEFT warns if it has to choose
            for layer in self._switchable:
                layer.delete_adapter(name)
            self._peft.peft_config.pop(name, None)
            self._activate(None)

    def check_fit(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """CheckpointError unless `weights` are exactly the tensors of adapter `name`."""
        expected = {key: value.shape for key, value in self.weights(name).items()}
        for problem, keys in (
            ("lack", sorted(expected.keys() - weights.keys())),
            ("have, and this base has no place for,", sorted(weights.keys() - expected.keys())),
            ("have in another shape", [k for k, shape in expected.items() if k in weights and weights[k].shape != shape]),
        ):
            if keys:
                detail = f" ({tuple(weights[keys[0]].shape)} for {tuple(expected[keys[0]])})" if problem.endswith("shape") else ""
                raise CheckpointError(
                    f"The weights for adapter {name!r} {problem} {len(keys)} of {len(expected)} tensors, first {keys[0]!r}{detail}; "
                    "load it on the base it was trained on."
                )

    def fill(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Put `weights` (keys as in a PEFT folder) into adapter `name`; CheckpointError, and nothing changed, if they do not fit."""
        self.check_fit(name, weights)
        set_peft_model_state_dict(self._peft, dict(weights), adapter_name=name)

    def weights(self, name: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of an adapter's weights on the CPU, keys as in a PEFT folder; from `state`, the base's state dict, if given."""
        self._check_known([name])
        inner = None if state is None else {f"base_model.model.{key}": value for key, value in state.items()}
        state = get_peft_model_state_dict(self._peft, inner, adapter_name=name, save_embedding_layers=False)
        return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}

    def trainable_parameters(self, names: Sequence[str]) -> int:
        """How many numbers the adapters `names` hold."""
        return sum(value.numel() for name in names for value in self.weights(name).values())

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else runs this base until the end of the block."""
        with self._lock:
            yield

    @contextmanager
    def active_adapter(self, adapter: str | None) -> Iterator[None]:
        """Run with one adapter (None: the base alone) until the end of the block, also when it ends by an exception."""
        self._check_known([adapter])
        with self._lock:
            before = self._active
            try:
                self._activate(adapter)
                yield
            finally:
                self._activate(before)

    def run(self, adapters: Sequence[str | None], call: Callable[[list[int]], Result]) -> list[tuple[list[int], Result]]:
        """Call `call(rows)` for batches that together cover every row, row r under `adapters[r]`.

        One batch for the adapters that PEFT can mix, and one for each other adapter. Returns [(rows, result), ...].
        """
        self._check_known(adapters)
        results = []
        for rows in self._batches(adapters):
            with self._rows([adapters[row] for row in rows]):
                results.append((rows, call(rows)))
        return results

    def under_autocast(self) -> AbstractContextManager[None]:
        """Spare PEFT's casts of every layer's input to float32, which autocast undoes at once: same numbers, an eighth of the time.

        For plain LoRA only: DoRA computes with what was cast, and IA3 casts nothing.
        """
        plain = all(isinstance(layer, LoraLayer) and not layer.lora_variant for layer in self._switchable)
        return disable_input_dtype_casting(self.model, active=plain)

    def can_mix(self, adapters: Sequence[str | None]) -> bool:
        """Whether PEFT can run these adapters, one a row, in one forward: plain LoRA on linear layers, in eval mode."""
        if self.model.training or is_mixture_of_experts(self.model):
            return False
        named = {name for name in adapters if name is not None}
        # A "variant" is what PEFT calls DoRA.
        return all(isinstance(layer, LoraLayer) and not named & layer.lora_variant.keys() for layer in self._switchable)

    def _batches(self, adapters: Sequence[str | None]) -> list[list[int]]:
        distinct = list(dict.fromkeys(adapters))
        together = [name for name in distinct if self.can_mix([name])]
        groups = [together, *([name] for name in distinct if name not in together)]
        return [[row for row, adapter in enumerate(adapters) if adapter in group] for group in groups if group]

    @contextmanager
    def _rows(self, adapters: Sequence[str | None]) -> Iterator[None]:
        distinct = set(adapters)
        if len(distinct) == 1:
            with self.active_adapter(adapters[0]):
                yield
            return
        names = [_BASE_ROW if name is None else name for name in adapters]

        # PEFT's own way in (adapter_names= of the model) leaves its hooks behind when the forward raises.
        def name_rows(_, args, kwargs):
            beams = args[0].shape[0] // len(names)
            return args, {**kwargs, "adapter_names": [name for name in names for _ in range(beams)]}

        with self.active_adapter(next(name for name in adapters if name is not None)):
            hooks = [layer.register_forward_pre_hook(name_rows, with_kwargs=True) for layer in self._switchable]
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()

    def _inject(self, name: str, config: PeftConfig) -> None:
        if self._peft is not None and config.peft_type != self._peft.peft_type:
            raise CheckpointError(
                f"This base already carries {self._peft.peft_type.value} adapters and PEFT cannot put {config.peft_type.value} "
                "beside them; load the base a second time for it."
            )
        try:
            if self._peft is None:
                self._peft = PeftModel(self.model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        finally:
            self._switchable = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]

    def _activate(self, adapter: str | None) -> None:
        self._active = adapter
        for layer in self._switchable:
            if adapter is not None:
                layer.enable_adapters(True)
                layer.set_adapter(adapter, inference_mode=True)
            else:
                layer.enable_adapters(False)
            # PEFT freezes whatever is not active; here both adapters of a model learn at once.
            if self._trainable:
                layer.set_requires_grad(sorted(self._trainable), True)

    def _free_name(self, wanted: str) -> str:
        number, name = 1, wanted
        while name in self.names:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def _check_known(self, adapters: Sequence[str | None]) -> None:
        for name in set(adapters) - {None}:
            if name not in self.names:
                raise UnknownNameError("adapter", str(name), self.names)


def _unwrap(model: PreTrainedModel) -> None:
    """Put every layer that PEFT wrapped back in its place; what it calls unload needs an adapter that was injected whole."""
    outer = ""
    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and not (outer and path.startswith(f"{outer}.")):
            model.set_submodule(path, module.get_base_layer())
            outer = path
    vars(model).pop("peft_config", None)


def require_no_checkpointing(model: PreTrainedModel) -> None:
    """ConfigError if gradient checkpointing is on: it would re-run a layer in the backward pass under another adapter."""
    if model.training and any(vars(module).get("gradient_checkpointing") for module in model.modules()):
        raise ConfigError("Gradient checkpointing is on; Bitune switches adapters between passes, so turn it off to train.")
