"""Where base weights come from: a folder, a GGUF file, the Hugging Face Hub, or the embedded default.

Finds and downloads files; never reads a weight and knows no torch, so that it can be tested without a model.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bitune.base.default import embedded_file, sha256_of
from bitune.base.local import EMBEDDED, Weights, check_base, folder_weights, weight_files
from bitune.errors import BaseNotFoundError
from bitune.hub import cached_snapshot, download_snapshot, hub_errors, probe_hub

MAX_HASHED_BYTES = 4 * 1024**3
"""A single weights file up to this many bytes is hashed (some seconds); a larger one is known by its name only."""

SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
"""What a Hub repository holds besides weights: config, tokenizer, chat template."""

SUBFOLDERS = ["*/*"]
"""Never downloaded: they hold the same weights in other formats (onnx, original)."""


def resolve_base(source: str | os.PathLike) -> Weights:
    """Find the weights of a base on this disk, and download what is not there.

    Args:
        source: a folder, a .gguf file, a Hub id with an optional revision (`user/name@revision`), or the embedded name.

    Raises:
        BaseNotFoundError: nothing has that name, it has no weights that can be read, or the download failed.
    """
    return _hashed(fetch_base(source))


def fetch_base(source: str | os.PathLike) -> Weights:
    """The same, but that only the embedded default's file is hashed: for somebody who does not ask yet which weights these are."""
    weights = check_base(source)
    if weights is not None:
        return weights
    text = os.fspath(source)
    if text == EMBEDDED.name:
        file = embedded_file()
        return Weights(EMBEDDED.name, file.parent, gguf=file.name, sha256=EMBEDDED.sha256)
    return _hub_weights(*hub_name(text))


# --- the Hub ----------------------------------------------------------------------------------------------------------


def hub_name(source: str) -> tuple[str, str | None]:
    """Repository and revision of `user/name@revision`."""
    repository, _, revision = source.partition("@")
    return repository, revision or None


def hub_config(repo: str, revision: str | None = None) -> Path:
    """The folder of what a Hub repository holds besides its weights, which are there as well if the local Hub cache has all of them."""
    return _cached_snapshot(repo, revision) or _small_snapshot(repo, revision)


def no_safetensors(repo: str) -> BaseNotFoundError:
    """The sentence about a repository without weights that can be read."""
    return BaseNotFoundError(
        f"The Hub's {repo!r} has no safetensors weights, and no pickled ones are read, as they can run code; "
        "choose a repository that has them, or download its .gguf file and name that."
    )


@contextlib.contextmanager
def delivered(repo: str, revision: str | None) -> Iterator[None]:
    """BaseNotFoundError where the Hub does not deliver what is asked of it in this block."""
    source = f"{repo}@{revision}" if revision else repo
    what = f"The base {source!r}{_nearest(repo)} is neither a folder here nor complete in the Hub cache, and the Hub did not deliver it"
    with hub_errors(BaseNotFoundError, what, revision=revision):
        yield


def _hub_weights(repo: str, revision: str | None = None) -> Weights:
    """A snapshot of a Hub repository. What is complete in the local Hub cache is used without asking the Hub:
    a newer commit of a branch is taken by naming it, `user/name@commit`."""
    folder = _cached_snapshot(repo, revision) or _fetched_snapshot(repo, revision)
    if not weight_files(folder):
        raise no_safetensors(repo)
    return replace(folder_weights(folder), id=repo, revision=folder.name)


def _cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The snapshot in the Hub cache if all weights are in it."""
    folder = cached_snapshot(repo, revision, SMALL_FILES, ignore=SUBFOLDERS)
    names = weight_files(folder) if folder else []
    return folder if names and all((folder / name).is_file() for name in names) else None


def _small_snapshot(repo: str, revision: str | None) -> Path:
    with delivered(repo, revision):
        probe_hub()
        return download_snapshot(repo, revision, SMALL_FILES, ignore=SUBFOLDERS)


def _fetched_snapshot(repo: str, revision: str | None) -> Path:
    folder = _small_snapshot(repo, revision)
    # Only the files that will be read: many repositories hold the same weights in several formats.
    weights = weight_files(folder) or ["model.safetensors"]
    with delivered(repo, revision):
        return download_snapshot(repo, folder.name, weights, ignore=SUBFOLDERS)


def _nearest(name: str) -> str:
    return f" (did you mean {EMBEDDED.name!r}?)" if get_close_matches(name.lower(), [EMBEDDED.name], cutoff=0.5) else ""


def _hashed(weights: Weights) -> Weights:
    """With the hash of the one file, where it is one and not too large."""
    names = weight_files(weights.folder) if weights.gguf is None else [weights.gguf]
    unhashed = weights.sha256 is None and len(names) == 1
    if not unhashed or (weights.folder / names[0]).stat().st_size > MAX_HASHED_BYTES:
        return weights
    return replace(weights, sha256=sha256_of(weights.folder / names[0]))
