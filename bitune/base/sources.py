"""Where base weights come from: a folder, a GGUF file, the Hugging Face Hub, or the embedded default.

Finds, downloads and checks files; never reads a weight and knows no torch, so that it can be tested without a model.
"""

import os
import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bitune.base.default import EMBEDDED, embedded_file, sha256_of
from bitune.errors import BaseNotFoundError
from bitune.files import local_path, read_bytes, read_object
from bitune.hub import cached_snapshot, download_snapshot, hub_errors, probe_hub

MAX_HASHED_BYTES = 4 * 1024**3
"""A single weights file up to this many bytes is hashed (some seconds); a larger one is known by its name only."""

MAX_INDEX_BYTES = 64 * 1024**2
"""Of model.safetensors.index.json; one of 100,000 tensors has 10 MB."""

SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
"""What a Hub repository holds besides weights: config, tokenizer, chat template."""

SUBFOLDERS = ["*/*"]
"""Never downloaded: they hold the same weights in other formats (onnx, original)."""


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


def resolve_base(source: str | os.PathLike) -> Weights:
    """Find the weights of a base on this disk, and download what is not there.

    Args:
        source: a folder, a .gguf file, a Hub id with an optional revision (`user/name@revision`), or the embedded name.

    Raises:
        BaseNotFoundError: nothing has that name, it has no weights that can be read, or the download failed.
    """
    text = os.fspath(source)
    if not text.strip():
        raise BaseNotFoundError(f"The base is {text!r}; name a folder, a .gguf file, a Hub id or {EMBEDDED.name!r}.")
    if text == EMBEDDED.name:
        file = embedded_file()
        return Weights(EMBEDDED.name, file.parent, gguf=file.name, sha256=EMBEDDED.sha256)
    path = local_path(text, BaseNotFoundError)
    if path.is_dir():
        return folder_weights(path)
    if path.is_file() or path.suffix == ".gguf":
        return gguf_weights(path)
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", text) and not text.startswith("."):
        return hub_weights(*text.split("@", 1))
    raise BaseNotFoundError(f"There is no folder or .gguf file {text!r}, and it is not a Hub id; check the spelling.")


# --- the Hub ----------------------------------------------------------------------------------------------------------


def hub_weights(repo: str, revision: str | None = None) -> Weights:
    """A snapshot of a Hub repository. What is complete in the local Hub cache is used without asking the Hub:
    a newer commit of a branch is taken by naming it, `user/name@commit`."""
    folder = _cached_snapshot(repo, revision) or _fetched_snapshot(repo, revision)
    if not weight_files(folder):
        raise BaseNotFoundError(
            f"The Hub's {repo!r} has no safetensors weights, and no pickled ones are read, as they can run code; "
            "choose a repository that has them, or download its .gguf file and name that."
        )
    weights = folder_weights(folder)
    return Weights(repo, folder, revision=folder.name, sha256=weights.sha256)


def _cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The snapshot in the Hub cache if all weights are in it."""
    folder = cached_snapshot(repo, revision, SMALL_FILES, ignore=SUBFOLDERS)
    names = weight_files(folder) if folder else []
    return folder if names and all((folder / name).is_file() for name in names) else None


def _fetched_snapshot(repo: str, revision: str | None) -> Path:
    source = f"{repo}@{revision}" if revision else repo
    what = f"The base {source!r}{_nearest(repo)} is neither a folder here nor complete in the Hub cache, and the Hub did not deliver it"
    with hub_errors(BaseNotFoundError, what, revision=revision):
        probe_hub()
        folder = download_snapshot(repo, revision, SMALL_FILES, ignore=SUBFOLDERS)
        # Only the files that will be read: many repositories hold the same weights in several formats.
        weights = weight_files(folder) or ["model.safetensors"]
        return download_snapshot(repo, folder.name, weights, ignore=SUBFOLDERS)


def _nearest(name: str) -> str:
    return f" (did you mean {EMBEDDED.name!r}?)" if get_close_matches(name.lower(), [EMBEDDED.name], cutoff=0.5) else ""


# --- local files ------------------------------------------------------------------------------------------------------


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
    return Weights(folder.resolve().name, folder, sha256=_hash_of_one(folder, names))


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
    return Weights(path.name, path.parent, gguf=path.name, sha256=_hash_of_one(path.parent, [path.name]))


def _hash_of_one(folder: Path, names: list[str]) -> str | None:
    if len(names) != 1 or (folder / names[0]).stat().st_size > MAX_HASHED_BYTES:
        return None
    return sha256_of(folder / names[0])
