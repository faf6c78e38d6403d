"""Checkpoint folders: read whole and checked before a model sees them, written whole or not at all.

Reads our own folder (bitune_config.json, causal/, bidirectional/, mixing.safetensors) and plain PEFT adapter folders. Only
safetensors and JSON are read. Knows files, not models; `reference.py` reads the authors' folders into the same value.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftConfig
from safetensors.torch import save
from torch import Tensor

from bitune.adapters.kinds import check_switchable, read_peft_config
from bitune.checkpoints.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARD_BYTES,
    CARD_FILE,
    CONFIG_FILE,
    LOG_BYTES,
    LOG_FILE,
    MIXING_FILE,
    read_json,
    read_optional_text,
)
from bitune.checkpoints.fingerprint import fingerprint
from bitune.checkpoints.older import CARD_HASH, check_target, hash_of, may_write_card, older_files
from bitune.checkpoints.places import local_folder, read_config
from bitune.checkpoints.replacing import replace_files
from bitune.checkpoints.weights import read_adapter_weights, read_theta
from bitune.errors import CheckpointError, disk_failure, reason
from bitune.hub import download_snapshot, hub_errors
from bitune.schema.config import BaseReference, BituneConfig
from bitune.schema.variants import CAUSAL, METHODS

DOWNLOADED = ("*.json", "*.jsonl", "*.safetensors", "*.md")
"""What of a Hub repository a checkpoint may be made of."""


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter in memory.

    Args:
        config: as in its adapter_config.json.
        weights: keys as in its file; None for an adapter that is yet to be initialized.
    """

    config: PeftConfig
    weights: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Checkpoint:
    """Everything a checkpoint folder holds.

    Args:
        config: bitune_config.json.
        adapters: slot -> adapter.
        theta: (theta_k, theta_v), float32 [layers] each; None where nothing is mixed.
        log: text of training_log.jsonl, kept through a round trip.
        card: text of README.md, likewise.
    """

    config: BituneConfig
    adapters: Mapping[str, Adapter]
    theta: tuple[Tensor, Tensor] | None = None
    log: str | None = None
    card: str | None = None

    def fingerprint(self) -> str:
        """A short name for what this runs: its passes, its template and its weights; not for what is written about it."""
        config = self.config
        said = [str(part) for part in (config.passes, config.answer_adapter, config.mixing, config.prompt_template)]
        weights = {
            f"{slot}/{name}": tensor for slot, one in self.adapters.items() for name, tensor in (one.weights or {}).items()
        }
        theta = zip(("theta_k", "theta_v"), self.theta or (), strict=False)
        return fingerprint(said, [*sorted(weights.items()), *theta])


def resolve_checkpoint(source: str | os.PathLike) -> Path:
    """The folder of a checkpoint on this disk; a Hub repository is downloaded.

    Args:
        source: a folder, or the id of a Hub repository with an optional revision (`user/name@revision`).

    Raises:
        CheckpointError: there is neither, or the download failed.
    """
    if (folder := local_folder(source)) is not None:
        return folder
    return hub_checkpoint(str(source))


def hub_checkpoint(source: str, patterns: Sequence[str] = DOWNLOADED) -> Path:
    """The files of a Hub repository that a checkpoint may have, or those of other `patterns`, on this disk; no folder here is looked at.

    Args:
        source: the id of a repository with an optional revision (`user/name@revision`).
        patterns: globs of the files.

    Raises:
        CheckpointError: the Hub did not deliver them.
    """
    repository, _, revision = source.partition("@")
    what = f"{source!r} is no folder here and could not be had from the Hub"
    with hub_errors(CheckpointError, what, revision=revision):
        return download_snapshot(repository, revision or None, patterns)


def read(folder: str | os.PathLike) -> Checkpoint:
    """Read and check a checkpoint folder: ours, or a plain PEFT adapter, which is taken as the method `lora`.

    Raises:
        CheckpointError: a file is missing, damaged or of an unknown format; it is named.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config is None:
        return _read_peft(folder)
    log, card = read_optional_text(folder / LOG_FILE, LOG_BYTES), read_optional_text(folder / CARD_FILE, CARD_BYTES)
    theta = read_theta(folder / MIXING_FILE) if config.mixing else None
    adapters = {slot: read_adapter(folder / name) for slot, name in config.adapters.items()}
    return Checkpoint(config, adapters, theta, log, card)


def _read_peft(folder: Path) -> Checkpoint:
    adapter = read_adapter(folder)
    method = METHODS["lora"]
    base = BaseReference(adapter.config.base_model_name_or_path or "unknown", adapter.config.revision)
    config = BituneConfig(base, method.passes, method.answer_adapter, adapters={CAUSAL: CAUSAL})
    return Checkpoint(config, {CAUSAL: adapter}, card=read_optional_text(folder / CARD_FILE, CARD_BYTES))


def read_adapter(folder: Path, beside: str | None = None, unused: re.Pattern | None = None) -> Adapter:
    """Read and check a PEFT adapter folder.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        beside: how the names of modules begin that were saved with the adapter and are no part of the base; they are left out of
            the config.
        unused: keys of tensors that take no part in anything; they are not read.

    Raises:
        CheckpointError: a file is missing or damaged, or the adapter is of a kind that bitune does not run.
    """
    file, weights = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    data = read_json(file)
    if beside and isinstance(saved := data.get("modules_to_save"), list):
        data["modules_to_save"] = [name for name in saved if not str(name).startswith(beside)] or None
    config = read_peft_config(data, str(file))
    check_switchable(config, str(file))
    return Adapter(config, read_adapter_weights(weights, config, file, unused))


def write(checkpoint: Checkpoint, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> Path:
    """Write a checkpoint folder, in place of an older checkpoint if there is one; whole, or nothing is changed.

    What is not a file of the older checkpoint stays: .git, notes, other files in causal/, and a README.md that is not the card
    that was written with it; then the card of this one is left out.

    Args:
        checkpoint: what is written.
        folder: a new or empty folder, or one with an older checkpoint.
        dtype: of the adapters in the files; None for the one that they have.

    Returns:
        The folder's full path.

    Raises:
        CheckpointError: the folder holds other things, the disk refuses, or a text or fact cannot be written as JSON.
    """
    folder = Path(folder).resolve()  # a link, or ".", has a name and a parent too
    if not may_write_card(folder):
        checkpoint = replace(checkpoint, card=None)
    files = _serialized(checkpoint, folder, dtype)
    check_target(folder, files)
    try:
        # A process that is killed on the way leaves a folder without config, which is refused, never a mixture.
        replace_files(folder, files, older_files(folder), essential=CONFIG_FILE)
    except OSError as error:
        failure = disk_failure(error)
        raise CheckpointError(f"{str(folder)!r} could not be written: {failure.cause}; {failure.remedy}.") from error
    return folder


def _serialized(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None) -> dict[str, bytes]:
    """Path inside the folder -> content, of every file of the checkpoint."""
    texts = {LOG_FILE: checkpoint.log, CARD_FILE: checkpoint.card}
    try:
        config = json.dumps(checkpoint.config.to_dict(), indent=2, ensure_ascii=False) + "\n"
        files = {name: text.encode() for name, text in {CONFIG_FILE: config, **texts}.items() if text is not None}
    except (TypeError, ValueError) as error:  # facts about a training may hold anything, texts half of a surrogate pair
        raise CheckpointError(
            f"{str(folder)!r} could not be written: its texts or facts are no JSON ({reason(error)}); leave out what is not text, "
            "number, list or object."
        ) from error
    metadata = {"format": "pt"}
    if checkpoint.card is not None:
        metadata[CARD_HASH] = hash_of(checkpoint.card)
    for slot, name in checkpoint.config.adapters.items():
        adapter = checkpoint.adapters[slot]
        weights = {key: value if dtype is None else value.to(dtype) for key, value in adapter.weights.items()}
        files[f"{name}/{ADAPTER_CONFIG}"] = _peft_json(adapter.config, checkpoint.config.base.id).encode()
        # `save` and not `save_file`: safetensors 0.8 makes files that only their owner may read.
        files[f"{name}/{ADAPTER_WEIGHTS}"] = _with_sorted_metadata(save(weights, metadata=metadata))
    if checkpoint.theta is not None:
        theta_k, theta_v = checkpoint.theta
        files[MIXING_FILE] = save({"theta_k": theta_k.contiguous(), "theta_v": theta_v.contiguous()})
    return files


def _peft_json(config: PeftConfig, base: str) -> str:
    """adapter_config.json as PEFT writes it, but with the base's name in place of a path here, and sets in a fixed order."""
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return json.dumps(values | {"base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n"


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same safetensors file; `save` puts the metadata in another order each time, and equal checkpoints shall be equal files."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return content[:8] + text.ljust(start - 8) + content[start:]
