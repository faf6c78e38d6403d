"""Which base is this, and is it the one that a checkpoint was trained on? Knows no checkpoint file and no forward."""

from transformers import PreTrainedModel

from bitune.adapters.manager import AdapterManager
from bitune.base.default import EMBEDDED
from bitune.base.fingerprint import same_weights
from bitune.base.loading import Base
from bitune.errors import WrongBaseError
from bitune.schema.config import BaseReference


def module_of(base: Base | PreTrainedModel) -> PreTrainedModel:
    """The model of a base, or the model itself."""
    return base.model if isinstance(base, Base) else base


def describe(base: Base | PreTrainedModel, name: str | None = None) -> BaseReference:
    """What identifies a loaded base."""
    model = module_of(base)
    manager, known = AdapterManager.of(model), isinstance(base, Base)
    return BaseReference(
        id=name or (base.id if known else model.config.name_or_path or "unnamed"),
        revision=base.revision if known else None,
        sha256=base.sha256 if known else None,
        model_type=model.config.model_type,
        layers=manager.layout.layers,
        hidden_size=manager.layout.hidden_size,
        fingerprint=base.unrounded if known and base.unrounded else manager.fingerprint,
    )


def check_base(expected: BaseReference, found: BaseReference) -> None:
    """WrongBaseError if a checkpoint trained on `expected` meets `found`; what a checkpoint does not say is not compared."""
    for key in ("model_type", "layers", "hidden_size"):
        wanted, given = getattr(expected, key), getattr(found, key)
        if wanted is not None and wanted != given:
            raise WrongBaseError(
                f"The checkpoint was trained on {expected.id!r} ({key} {wanted}), the base {found.id!r} has {key} {given}; "
                "load the base it was trained on."
            )
    if expected.sha256 and expected.sha256 == found.sha256:
        return
    if expected.fingerprint and found.fingerprint and not same_weights(expected.fingerprint, found.fingerprint):
        raise WrongBaseError(
            f"The checkpoint was trained on {expected.id!r}; {found.id!r} has the same shape but other weights. "
            "Load the base it was trained on, or pass allow_other_base=True if you mean it (another quantization, say)."
        )


def is_local(base: BaseReference) -> bool:
    """Whether a checkpoint names a folder or file of the machine it was made on, of which it keeps the bare name alone."""
    return base.revision is None and base.id != EMBEDDED.name


def source_of(base: BaseReference) -> str:
    """What load_base takes for the base that a checkpoint names, unless it `is_local`."""
    return f"{base.id}@{base.revision}" if base.revision else base.id
