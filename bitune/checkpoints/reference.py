"""Read the checkpoint folders of the authors' research code (github.com/dkopi/Bitune) into our own kind of checkpoint.

Their layout: adapter `default` (our causal slot) at the top, adapter `prefill` (our bidirectional slot) in `prefill/`, the
method's numbers in `config.json`. Mixing coefficients stand inside the adapter files; only the top-level copy takes part.
"""

import os
import re
from pathlib import Path

from torch import Tensor

from bitune.checkpoints.files import ADAPTER_WEIGHTS, REFERENCE_FILE, read_json
from bitune.checkpoints.folder import Adapter, Checkpoint, read_adapter
from bitune.checkpoints.places import check_reference
from bitune.errors import CheckpointError, ConfigError
from bitune.schema.config import BaseReference, BituneConfig, MixingSettings
from bitune.schema.variants import BIDIRECTIONAL, CAUSAL, METHODS, Method

_COEFFICIENTS = "pass_scale_"
# Diagnostics of the last step, and what PEFT 0.11 writes of the other adapter's IA3.
_UNUSED = re.compile(rf".*\.{_COEFFICIENTS}[kv]\._(?:ratio|denominator)|.*\.ia3_l\.(?:default|prefill)")
# Where nothing is mixed by this file the coefficients take no part either.
_UNUSED_UNMIXED = re.compile(rf".*\.{_COEFFICIENTS}.*|{_UNUSED.pattern}")
_PARAMETERIZATION = {607: "abs", 801: "relu"}
# (one pass?, ablation) -> method; passes.py of the authors' code. Ablation 420 is their anti-causal mask.
_METHODS = {
    (False, 0): "bitune",
    (False, 1): "only_causal",
    (False, 2): "shared_weights",
    (False, 420): "anticausal",
    (True, 0): "no_mixing",
    (True, 1): "no_mixing",  # the one pass looks at ablation 2 only
    (True, 2): "naive_bidirectional",
}
# Options of the research code that change the arithmetic and that no published setting turns on.
_MUST_BE_ZERO = ("skip_bidir", "think_tokens", "think_type", "n_pass")


def read_reference(folder: str | os.PathLike) -> Checkpoint:
    """The checkpoint in one of the authors' folders; CheckpointError names what cannot be read or is not supported."""
    folder = Path(folder)
    check_reference(folder)
    settings = read_json(folder / REFERENCE_FILE)
    method = _method(settings, folder)
    default = read_adapter(folder, beside=_COEFFICIENTS, unused=_UNUSED if method.mixed else _UNUSED_UNMIXED)
    adapters = {CAUSAL: default}
    if BIDIRECTIONAL in method.slots:
        adapters[BIDIRECTIONAL] = read_adapter(folder / "prefill", beside=_COEFFICIENTS, unused=_UNUSED_UNMIXED)
    mixing, theta = None, None
    if method.mixed:
        mixing = _mixing(settings, folder)
        theta = _coefficients(default, folder)
    config = BituneConfig(
        base=BaseReference(str(settings.get("_name_or_path") or default.config.base_model_name_or_path)),
        passes=method.passes,
        answer_adapter=method.answer_adapter,
        mixing=mixing,
        adapters={slot: slot for slot in method.slots},
        training={
            "from": "reference implementation",
            "pass_type": settings["pass_type"],
            "ablation": settings.get("ablation", 0),
        },
    )
    return Checkpoint(config, {slot: _stripped(adapters[slot]) for slot in method.slots}, theta)


def _method(settings: dict, folder: Path) -> Method:
    pass_type, ablation = settings.get("pass_type"), settings.get("ablation", 0)
    one_pass = pass_type == 1
    if "pass_type" not in settings:
        raise CheckpointError(
            f"{folder / REFERENCE_FILE} has no pass_type, so {str(folder)!r} is no folder of the authors' research code; name one that is."
        )
    if type(pass_type) is not int or not (one_pass or pass_type in _PARAMETERIZATION):
        raise CheckpointError(
            f"{folder / REFERENCE_FILE} has pass_type {pass_type!r}; known: 1 (one bidirectional pass), 607 (mixing by abs), "
            "801 (mixing by relu). Other values are experiments of the research code that were not published."
        )
    if type(ablation) is not int or (one_pass, ablation) not in _METHODS:
        raise CheckpointError(
            f"{folder / REFERENCE_FILE} has ablation {ablation!r} with pass_type {pass_type}; known: 0, 1, 2 and, for 607 and 801, 420."
        )
    for option in _MUST_BE_ZERO:
        if settings.get(option, 0):
            raise CheckpointError(
                f"{folder / REFERENCE_FILE} has {option} {settings[option]!r}; only 0, as in the paper, is supported."
            )
    return METHODS[_METHODS[one_pass, ablation]]


def _mixing(settings: dict, folder: Path) -> MixingSettings:
    try:
        return MixingSettings(_PARAMETERIZATION[settings["pass_type"]], settings.get("s_init", 0.01))
    except ConfigError as error:
        raise CheckpointError(f"{folder / REFERENCE_FILE}: s_init, here called theta_init: {error}") from error


def _coefficients(adapter: Adapter, folder: Path) -> tuple[Tensor, Tensor]:
    file, keys = folder / ADAPTER_WEIGHTS, [f"base_model.model.{_COEFFICIENTS}{kind}.weight" for kind in "kv"]
    for key in keys:
        if key not in adapter.weights:
            raise CheckpointError(f"{file} lacks {key!r}, the mixing coefficients of pass_type 607 and 801; copy it again.")
    theta_k, theta_v = (adapter.weights[key].float() for key in keys)
    if theta_k.dim() != 1 or theta_k.shape != theta_v.shape:
        raise CheckpointError(
            f"{file} holds mixing coefficients of the shapes {tuple(theta_k.shape)} and {tuple(theta_v.shape)}; pass_type 607 and "
            "801 have one number a layer in both."
        )
    return theta_k, theta_v


def _stripped(adapter: Adapter) -> Adapter:
    """The adapter as PEFT knows it, without the coefficients that the authors save as extra modules."""
    return Adapter(adapter.config, {key: value for key, value in adapter.weights.items() if _COEFFICIENTS not in key})
