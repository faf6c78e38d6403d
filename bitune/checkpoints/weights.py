"""Tensors of checkpoint folders, checked by the headers of their files before one of them is made. Knows no model."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bitune.checkpoints.files import WEIGHTS_BYTES
from bitune.errors import CheckpointError, reason, shown
from bitune.files import Header, TensorHeader, read_header, unreadable
from bitune.schema.config import MixingSettings

_MIXING_BYTES = 1024**2
_DTYPES = ("F64", "F32", "F16", "BF16")
_UNUSED_RANK = 256
"""A rank that a config names and no weight has is allocated nevertheless, where modules match: this much is harmless."""


def read_adapter_weights(weights: Path, config: PeftConfig, file: Path, unused: re.Pattern | None = None) -> dict[str, Tensor]:
    """The tensors of an adapter.

    Args:
        weights: a safetensors file.
        config: of the adapter.
        file: where the config stood.
        unused: keys of tensors that are not read, whatever they are.

    Raises:
        CheckpointError: the file is missing or damaged, or holds what no adapter of this config has.
    """
    header = _header(weights, WEIGHTS_BYTES).tensors
    header = {key: tensor for key, tensor in header.items() if unused is None or not unused.fullmatch(key)}
    for key, tensor in header.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"{weights} holds {shown(key)} as {shown(tensor.dtype)}; adapters are read as {', '.join(_DTYPES)}: save it in one of them."
            )
    _check_ranks(config, header, file)
    tensors = _load(weights, header)
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"{weights} holds a number in {shown(key)} that is not finite; the training that wrote it diverged."
            )
    return tensors


def _check_ranks(config: PeftConfig, header: Mapping[str, TensorHeader], file: Path) -> None:
    """Refuse a rank far beyond those of the weights before PEFT allocates it; smaller differences show when shapes are compared."""
    if not isinstance(config, LoraConfig):
        return
    found = [tensor.shape[0] for key, tensor in header.items() if "lora_" in key and "_A" in key and tensor.shape]
    largest = max(found, default=0)
    for rank in (config.r, *config.rank_pattern.values()):
        if rank > max(largest, _UNUSED_RANK):
            raise CheckpointError(
                f"{file} asks for rank {rank:,}, and its weights have rank {largest:,} at most; copy the config and the weights of "
                "one adapter."
            )


def _header(file: Path, limit: int) -> Header:
    try:
        return read_header(file, limit, CheckpointError)
    except FileNotFoundError as error:
        pickled = file.with_suffix(".bin").is_file()
        cause = "only pickled weights (.bin) are there, which can run code and are not read" if pickled else "it is missing"
        raise CheckpointError(f"{file}: {cause}; save or download the checkpoint again as safetensors.") from error


def _load(file: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of a safetensors file whose header was read."""
    try:
        with safe_open(str(file), "pt") as stored:
            return {key: stored.get_tensor(key) for key in keys}
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged or cut short ({reason(error)}); download or save it again.") from error
    except OSError as error:
        raise unreadable(file, error, CheckpointError) from error


def read_theta(file: Path) -> tuple[Tensor, Tensor]:
    """theta_k and theta_v, float32 [layers] each; CheckpointError for anything else."""
    header = _header(file, _MIXING_BYTES).tensors
    if set(header) != {"theta_k", "theta_v"}:
        raise CheckpointError(f"{file} holds {shown(sorted(header))}; it must hold exactly theta_k and theta_v.")
    shapes = [tensor.shape for tensor in header.values()]
    if any(tensor.dtype != "F32" or len(tensor.shape) != 1 for tensor in header.values()) or shapes[0] != shapes[1]:
        words = ", ".join(f"{key} {tensor.shape} {tensor.dtype}" for key, tensor in header.items())
        raise CheckpointError(f"{file} holds {words}; both must be F32 with one number a layer.")
    tensors = _load(file, header)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"{file} holds a number that is not finite; the training that wrote it diverged.")
    return tensors["theta_k"], tensors["theta_v"]


def check_coefficients(theta: tuple[Tensor, Tensor] | None, mixing: MixingSettings | None, layers: int) -> None:
    """Refuse mixing coefficients that give no ratio for each layer of a base.

    Args:
        theta: theta_k and theta_v, float32 [layers of the checkpoint]; None for a method that mixes nothing, and then `mixing` too.
        mixing: how they become ratios.
        layers: of the base.

    Raises:
        CheckpointError: there are more or fewer, or theta + theta_init leaves the numbers of float32 in one of them.
    """
    if theta is None:
        return
    both = torch.stack(theta)
    if both.shape[1] != layers:
        raise CheckpointError(
            f"The checkpoint has mixing coefficients for {both.shape[1]} layers, the base has {layers}; "
            "load it on the base it was trained on."
        )
    largest = both.abs().max()
    if not torch.isfinite(largest + mixing.theta_init):
        raise CheckpointError(
            f"The checkpoint's mixing coefficients reach {float(largest):.3g}, too large for a ratio in float32; the training that "
            "wrote it diverged."
        )
