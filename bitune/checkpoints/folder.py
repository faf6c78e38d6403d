"""Checkpoint folders: read whole and checked before a model sees them, written whole or not at all.

Reads our own folder (DESIGN: bitune_config.json, causal/, bidirectional/, mixing.safetensors) and plain PEFT LoRA folders.
Only safetensors and JSON are read. Knows files, not models; `reference.py` reads the authors' folders into the same value.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bitune.adapters.kinds import check_switchable, read_peft_config
from bitune.base.default import HUB_PATIENCE
from bitune.errors import CheckpointError
from bitune.schema.config import BaseReference, BituneConfig
from bitune.schema.variants import CAUSAL, METHODS

CONFIG_FILE = "bitune_config.json"
MIXING_FILE = "mixing.safetensors"
LOG_FILE = "training_log.jsonl"
CARD_FILE = "README.md"
REFERENCE_FILE = "config.json"  # of the authors' code; see reference.py
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_READ = ["*.json", "*.jsonl", "*.safetensors", "*.md"]


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter in memory: its config and its weights, keys as in its file; None for one yet to be initialized."""

    config: PeftConfig
    weights: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Checkpoint:
    """Everything a folder holds. `theta` is (theta_k, theta_v), float32 [layers] each, where the method mixes.

    `log` and `card`: text of training_log.jsonl and README.md, kept through a round trip.
    """

    config: BituneConfig
    adapters: Mapping[str, Adapter]
    theta: tuple[Tensor, Tensor] | None = None
    log: str | None = None
    card: str | None = None


def resolve_checkpoint(source: str | os.PathLike) -> Path:
    """The folder of a checkpoint: `source` itself, or a snapshot of the Hub repository of that id (`user/name@revision`)."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    repository, _, revision = str(source).partition("@")
    if len(repository.split("/")) != 2 or path.is_absolute() or repository.startswith("."):
        raise CheckpointError(f"There is no checkpoint folder {str(source)!r}; give a folder, or a Hub id like 'user/name'.")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_READ, etag_timeout=HUB_PATIENCE))
    except Exception as error:  # the Hub client raises its own, requests' and the system's errors
        raise CheckpointError(
            f"{str(source)!r} is no folder here and could not be had from the Hub ({type(error).__name__}: {_line(error)}); "
            "check the spelling and the network."
        ) from error


def read(folder: str | os.PathLike) -> Checkpoint:
    """Read and check a checkpoint folder (ours, or a plain PEFT adapter, taken as LoRA). CheckpointError names the bad file."""
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file() and (folder / ADAPTER_CONFIG).is_file():
        return _read_peft(folder)
    config = BituneConfig.from_dict(read_json(folder / CONFIG_FILE), str(folder / CONFIG_FILE))
    adapters = {slot: read_adapter(folder / name) for slot, name in config.adapters.items()}
    theta = _read_theta(folder / MIXING_FILE) if config.mixing else None
    return Checkpoint(config, adapters, theta, read_text(folder / LOG_FILE), read_text(folder / CARD_FILE))


def _read_peft(folder: Path) -> Checkpoint:
    if (folder / REFERENCE_FILE).is_file() and "pass_type" in read_json(folder / REFERENCE_FILE):
        raise CheckpointError(
            f"{str(folder)!r} is a folder of the authors' research code; read it with BituneModel.from_reference, or make a "
            "checkpoint of it with `python -m bitune convert`."
        )
    adapter = read_adapter(folder)
    method = METHODS["lora"]
    base = BaseReference(adapter.config.base_model_name_or_path or "unknown", adapter.config.revision)
    config = BituneConfig(base, method.passes, method.answer_adapter, adapters={CAUSAL: CAUSAL})
    return Checkpoint(config, {CAUSAL: adapter}, card=read_text(folder / CARD_FILE))


def read_adapter(folder: Path, beside: str | None = None) -> Adapter:
    """A PEFT adapter folder. `beside`: beginning of the names of modules that were saved with it and are no part of the base."""
    file = folder / ADAPTER_CONFIG
    data = read_json(file)
    if beside and isinstance(saved := data.get("modules_to_save"), list):
        data["modules_to_save"] = [name for name in saved if not str(name).startswith(beside)] or None
    config = read_peft_config(data, str(file))
    check_switchable(config, str(file))
    return Adapter(config, _adapter_tensors(folder / ADAPTER_WEIGHTS))


def _adapter_tensors(file: Path) -> dict[str, Tensor]:
    tensors = read_tensors(file)
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise CheckpointError(f"{file} holds {key!r} as {value.dtype}, not as floating point; save the adapter again.")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{file} holds a number in {key!r} that is not finite; the training that wrote it diverged.")
    return tensors


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    if not file.is_file():
        pickled = file.with_suffix(".bin").is_file()
        cause = "only pickled weights (.bin) are there, which can run code and are not read" if pickled else "it is missing"
        raise CheckpointError(f"{file}: {cause}; save or download the checkpoint again as safetensors.")
    try:
        return load_file(str(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or cut short ({_line(error)}); download or save it again.") from error


def read_json(file: Path) -> dict:
    """A JSON object."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file} is missing, so {str(file.parent)!r} is no complete checkpoint folder; download or save it again."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not readable JSON ({_line(error)}); download or save it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds a {type(data).__name__}, not a JSON object; download or save it again.")
    return data


def read_text(file: Path) -> str | None:
    """The text of an optional file."""
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not readable text ({_line(error)}); download it again, or remove it.") from error


def _read_theta(file: Path) -> tuple[Tensor, Tensor]:
    tensors = read_tensors(file)
    if set(tensors) != {"theta_k", "theta_v"}:
        raise CheckpointError(f"{file} holds {sorted(tensors)}; it must hold exactly theta_k and theta_v.")
    theta = tensors["theta_k"], tensors["theta_v"]
    if any(t.dim() != 1 or t.dtype != torch.float32 for t in theta) or theta[0].shape != theta[1].shape:
        shapes = ", ".join(f"{key} {tuple(t.shape)} {t.dtype}" for key, t in tensors.items())
        raise CheckpointError(f"{file} holds {shapes}; both must be float32 with one number a layer.")
    if not all(torch.isfinite(t).all() for t in theta):
        raise CheckpointError(f"{file} holds a number that is not finite; the training that wrote it diverged.")
    return theta


def write(checkpoint: Checkpoint, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> Path:
    """Write a checkpoint folder, replacing one that is there; `dtype` stores the adapters in another precision.

    The new folder is complete beside the old one before it takes its place, so a cut never leaves half a checkpoint.
    """
    folder = Path(folder).resolve()  # a link, or ".", has a name and a parent too
    check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            fresh = Path(beside) / "new"
            fresh.mkdir()
            _write_into(fresh, checkpoint, dtype)
            _swap(folder, fresh, Path(beside) / "old")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(folder)!r} could not be written ({_line(error)}); free space, or choose another.") from error
    except (TypeError, ValueError) as error:  # of json: facts about a training may hold anything
        raise CheckpointError(
            f"{str(folder)!r} could not be written: its texts or facts are no JSON ({_line(error)})."
        ) from error
    return folder


def check_target(folder: str | os.PathLike) -> None:
    """CheckpointError unless a checkpoint may be written to `folder`: new, empty, or an older checkpoint."""
    folder = Path(folder)
    try:
        usable = not folder.exists() or (folder / CONFIG_FILE).is_file() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise CheckpointError(f"{str(folder)!r} cannot be written to ({_line(error)}); choose another folder.") from error
    if not usable:
        raise CheckpointError(f"{str(folder)!r} is no checkpoint and not empty; choose an empty or new folder.")


def _swap(folder: Path, fresh: Path, old: Path) -> None:
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _write_into(folder: Path, checkpoint: Checkpoint, dtype: torch.dtype | None) -> None:
    config = json.dumps(checkpoint.config.to_dict(), indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")
    for slot, name in checkpoint.config.adapters.items():
        adapter, place = checkpoint.adapters[slot], folder / name
        place.mkdir()
        (place / ADAPTER_CONFIG).write_text(_peft_json(adapter.config, checkpoint.config.base.id), encoding="utf-8")
        weights = {key: value if dtype is None else value.to(dtype) for key, value in adapter.weights.items()}
        save_file(weights, str(place / ADAPTER_WEIGHTS), metadata={"format": "pt"})
    if checkpoint.theta is not None:
        theta_k, theta_v = checkpoint.theta
        save_file({"theta_k": theta_k.contiguous(), "theta_v": theta_v.contiguous()}, str(folder / MIXING_FILE))
    for name, text in ((LOG_FILE, checkpoint.log), (CARD_FILE, checkpoint.card)):
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")


def _peft_json(config: PeftConfig, base: str) -> str:
    """adapter_config.json as PEFT writes it, but with the base's name in place of a path here, and sets in a fixed order."""
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return json.dumps(values | {"base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n"


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
