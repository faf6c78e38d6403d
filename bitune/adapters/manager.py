"""One base model with any number of PEFT adapters.

At rest no adapter is active: the base answers as if it had never been wrapped. Threads use a base in turns (adapters.turns).
"""

import copy
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from peft import PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import Tensor
from transformers import PreTrainedModel

from bitune.adapters.failures import injection_errors
from bitune.adapters.kinds import check_switchable
from bitune.adapters.layers import (
    BaseWeights,
    adapter_layers,
    base_modules,
    check_layers,
    check_tying,
    is_plain_lora,
    unwrap,
)
from bitune.adapters.offloaded import check_present, stand_ins
from bitune.adapters.patterns import check_patterns
from bitune.adapters.rows import AdapterRows
from bitune.adapters.saved import PREFIX, own_tensors
from bitune.base.fingerprint import fingerprint
from bitune.errors import CheckpointError, ConfigError, UnsupportedModelError, is_out_of_memory
from bitune.modeling.memory import release_freed
from bitune.modeling.packed import unpack
from bitune.modeling.pass_store import PassStore
from bitune.modeling.support import check_supported


class AdapterManager(AdapterRows):
    """The adapters of one base. Get it with `AdapterManager.of(model)`: everybody who shares a base shares its manager.

    Attributes:
        base_parameters: How many numbers the bare base holds.
        passes: Prompt passes that this base has run lately, by default in a quarter of the bytes that the base itself takes.
        captured: Forwards as CUDA graphs, on a GPU, by default in an eighth of these bytes.
    """

    def __init__(self, model: PreTrainedModel):
        if adapter_layers(model):
            raise UnsupportedModelError(
                "This model already carries adapters that PEFT put on it; pass the bare base (PeftModel.unload() returns it)."
            )
        unpack(model)  # what the manager before this one packed
        super().__init__(model)
        with self.turn():
            self.layout = check_supported(model)
            self._siblings = [[model.get_submodule(path) for path in paths] for paths in self.layout.siblings]
            self.fingerprint = fingerprint(model)
        self.base_parameters = sum(parameter.numel() for parameter in model.parameters())
        size = sum(parameter.nbytes for parameter in model.parameters())
        self.passes, self.captured.limit = PassStore(size // 4), size // 8
        self._given: set[str] = set()

    @classmethod
    def of(cls, model: PreTrainedModel) -> "AdapterManager":
        """The manager of `model`, made on first call; UnsupportedModelError if the model cannot run Bitune."""
        with _REGISTRY_LOCK:
            manager = _REGISTRY.get(id(model))
            if manager is None:
                manager = cls(model)
                model.requires_grad_(False)
                _REGISTRY[id(model)] = manager
            return manager

    def __setstate__(self, state: dict) -> None:  # a base that is copied or pickled with its manager has one of its own
        super().__setstate__(state)
        self.passes = PassStore(self.passes.limit)
        with _REGISTRY_LOCK:
            _REGISTRY[id(self.model)] = self

    def config(self, name: str) -> PeftConfig:
        """The PEFT config of an adapter; UnknownNameError for one that is not loaded."""
        self._check_known([name])
        return self._configs[name]

    def add(self, wanted: str, config: PeftConfig, weights: Mapping[str, Tensor] | None = None, *, trainable: bool) -> str:
        """Put an adapter on the base; waits for its turn.

        Args:
            wanted: Its name, with a number behind it where that is or was taken: a name is never given twice, so that nobody
                who still knows a removed adapter gets another one.
            config: LoRA (DoRA with it) or IA3.
            weights: Keys as in a PEFT folder; None for a new adapter.
            trainable: Whether its parameters require gradients.

        Returns:
            The name it got.

        Raises:
            CheckpointError: Config or weights do not fit this base; the base is then as it was.
        """
        check_switchable(config, f"Adapter {wanted!r}")
        with self.turn():
            paths = [path for path, _ in self.model.named_modules()]
        check_patterns(config, paths, f"Adapter {wanted!r}")
        with self.turn(), torch.inference_mode(False):  # its parameters outlive whatever runs now
            name = self._free_name(wanted)
            self._unpack()
            base_weights = BaseWeights(base_modules(self.model))
            try:
                with injection_errors(f"Adapter {wanted!r}"):
                    self._inject(name, copy.deepcopy(config))  # PEFT writes into it
                check_switchable(self.config(name), f"Adapter {wanted!r} on this base")  # PEFT may have chosen other modules
                check_layers(self.model, name, f"Adapter {wanted!r}")
                check_present(self._layers, name, f"Adapter {wanted!r}")
                if base_weights.restore():
                    raise CheckpointError(
                        f"Adapter {wanted!r} changes the weights of the base, which all adapters share; train or convert it with an "
                        "init_lora_weights that leaves the base as it is."
                    )
                if weights is not None:
                    self.fill(name, weights)
            except BaseException:
                base_weights.restore()
                self._take_off(name)
                raise
            if trainable:
                self._trainable.add(name)
            self._set_gradients()
        return name

    def remove(self, *names: str) -> None:
        """Take adapters off the base, all or none; the last one takes PEFT's wrappers with it.

        Waits until no request holds them, then for its turn. UnknownNameError for one that is not loaded, ConfigError where waiting
        would never end (see `Holds.last_of`).
        """
        with self._holds.last_of(names, lambda: self._check_known(names), waits=not self._turns.is_mine), self.turn():
            if self._active in names:
                raise ConfigError(f"Adapter {self._active!r} is running; remove it after that.")
            for name in names:
                self._take_off(name)

    def check_fit(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """CheckpointError unless the tensors of a PEFT folder are those of adapter `name`, see `adapters.saved`."""
        self._own(name, weights)

    def fill(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Put the tensors of a PEFT folder into adapter `name`; CheckpointError, and nothing changed, if they do not fit."""
        with self.turn():
            set_peft_model_state_dict(self.model, self._own(name, weights), adapter_name=name)

    def weights(self, name: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of an adapter's weights on the CPU, keys as in a PEFT folder; from `state`, the base's state dict, if given."""
        self._check_known([name])
        with self.turn():  # it walks over modules, among which another thread may put some
            # Given whole: of a state dict of its own PEFT says that the biases of `lora_bias` are cut short. And without packed weights.
            whole = dict(self.model.named_parameters(remove_duplicate=False) if state is None else state)
            own = get_peft_model_state_dict(self.model, whole, adapter_name=name, save_embedding_layers=False)
        return {PREFIX + key: value.detach().cpu().contiguous().clone() for key, value in own.items()}

    def trainable_parameters(self, names: Sequence[str]) -> int:
        """How many numbers the adapters `names` hold."""
        return sum(value.numel() for name in names for value in self.weights(name).values())

    @contextmanager
    def hold(self, adapters: Iterable[str | None]) -> Iterator[None]:
        """Keep adapters on the base until the end of the block, between the turns of a request too: `remove` waits for it.

        UnknownNameError for one that is not loaded, ConfigError for one that is being removed. What memory the request has freed goes back
        to the system at its end.
        """
        names = {name for name in adapters if name is not None}
        with self._holds.hold(names, lambda: self._check_known(names)):
            try:
                yield
            finally:
                if self.model.device.type == "cpu":
                    release_freed()

    @contextmanager
    def eval_turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """As `SharedModel.eval_turn`; where memory runs out, what is remembered makes room for whoever comes next."""
        with super().eval_turn(cancelled):
            try:
                yield
            except BaseException as error:
                if is_out_of_memory(error):
                    self.passes.clear()
                    self.captured.clear()
                raise

    def under_autocast(self) -> AbstractContextManager[None]:
        """Spare PEFT's casts of inputs to float32, which autocast undoes at once. For plain LoRA only: DoRA computes with what was cast."""
        return disable_input_dtype_casting(self.model, active=all(is_plain_lora(layer, self.names) for layer in self._layers))

    def _own(self, name: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with self.turn():  # it walks over modules
            self._unpack()  # the file may hold layers of the base beside the adapter's
            return own_tensors(name, self.weights(name), given, self.model)

    def _inject(self, name: str, config: PeftConfig) -> None:
        kinds = {other.peft_type for other in self._configs.values()}
        if kinds and config.peft_type not in kinds:
            raise CheckpointError(
                f"This base already carries {kinds.pop().value} adapters and PEFT cannot put {config.peft_type.value} beside them; "
                "load the base a second time for it."
            )
        if foreign := [layer for layer in adapter_layers(self.model) if vars(layer).get("bitune_manager") is not self]:
            raise UnsupportedModelError(
                f"PEFT put {len(foreign)} layers of somebody else's adapter on this base meanwhile; take them off (PeftModel.unload())."
            )
        check_tying(self.model, config, f"Adapter {name!r}")
        active = self._active
        self._configs[name] = config
        try:
            with stand_ins(self.model):
                inject_adapter_in_model(config, self.model, name)
            cast_adapter_dtype(self.model, name)  # float32 over a base of 16 bits, as PeftModel has them
        finally:
            self._set_layers(adapter_layers(self.model))
            for layer in self._layers:
                layer.bitune_manager = self
                layer.train(self.model.training)  # PEFT makes them in train mode, where dropout is on
            self._activate(active)

    def _take_off(self, name: str) -> None:
        """Remove an adapter, also one that was injected in part only. Needs a turn."""
        self._trainable.discard(name)
        self._configs.pop(name, None)
        self._states.forget(name)
        if not self._configs:
            self._active = None
            unwrap(self.model)
            self._set_layers([])
            return
        active = self._active if self._active in self.names else None
        self._activate(self.names[0])  # PEFT warns if it has to choose
        for layer in self._layers:
            layer.delete_adapter(name)
        self.model.peft_config.pop(name, None)
        self._set_layers(self._layers)  # without what was stacked of it
        self._activate(active)
        self._set_gradients()

    def _set_gradients(self) -> None:
        """Both adapters of a model learn at once, and those of others do not; PEFT would let the active one learn alone."""
        for layer in self._layers:
            layer.set_requires_grad(list(self.names), False)
            layer.set_requires_grad(sorted(self._trainable), True)

    def _free_name(self, wanted: str) -> str:
        number, name = 1, wanted
        while name in self._given:
            number += 1
            name = f"{wanted}_{number}"
        self._given.add(name)
        return name


# id of a base -> its manager, as long as somebody uses it. The manager holds the base, so the id cannot become another's; and the
# layers that it has put into the base hold the manager, so adapters never stand on a base without one.
_REGISTRY: "weakref.WeakValueDictionary[int, AdapterManager]" = weakref.WeakValueDictionary()
_REGISTRY_LOCK = threading.RLock()
