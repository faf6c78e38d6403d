"""The embedded default, dequantized once and kept in the cache: the same numbers, read in 1 s instead of 15 s.

Almost all of the 15 s go into parsing a GGUF file in Python, at every start. The copy is float32 safetensors of half a gigabyte;
deleting it is safe. Knows files only; what is in them comes from the caller.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

from bitune.base.default import locked, sha256_of
from bitune.base.local import EMBEDDED, cache_folder
from bitune.errors import BituneError, disk_error, disk_failure
from bitune.progress import doing

logger = logging.getLogger(__name__)

MANIFEST = "unpacked.json"
"""Beside the files: name -> sha256 of each. Written last."""
NEEDED = {"config.json", "model.safetensors", "tokenizer.json"}
"""Without which a manifest is none."""


def dequantized_default(save: Callable[[Path], None]) -> Path | None:
    """The folder in the cache that holds the dequantized default; written first where there is none, or a damaged one.

    Args:
        save: writes model and tokenizer into the folder that it is given.

    Returns:
        The folder, as `save_pretrained` writes it; None if the cache cannot be written: the GGUF file is still good to read.
    """
    target = _target()
    if _is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(cache_folder() / EMBEDDED.name):  # one lock for all versions: each removes what the others left
            if not _is_whole(target):  # else another process was faster
                with doing(f"Unpacking {EMBEDDED.name}, which only the first start has to do"):
                    _write(target, save)
    except Exception as error:
        if isinstance(error, BituneError) or (cause := disk_error(error)) is None:
            raise
        failure = disk_failure(cause)
        logger.warning(
            "%s cannot be written (%s), so each start reads the GGUF file, which takes longer; %s, or set BITUNE_CACHE to another folder.",
            target,
            failure.cause,
            failure.remedy,
        )
        return None
    return target


def kept_default() -> Path | None:
    """The folder in the cache if it is there and whole; then the GGUF file is not needed."""
    return target if _is_whole(target := _target()) else None


def _target() -> Path:
    """Where the folder lies. Another version of transformers may dequantize otherwise: it gets a folder of its own."""
    return cache_folder() / f"{EMBEDDED.name}-{EMBEDDED.sha256[:12]}-transformers-{version('transformers')}"


def _write(target: Path, save: Callable[[Path], None]) -> None:
    """`target` from a temporary folder beside it, in place of what older versions of transformers or a damaged disk left."""
    for stale in target.parent.glob(f"{EMBEDDED.name}-*"):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink()
    folder = Path(mkdtemp(prefix=f"{EMBEDDED.name}-unfinished-", dir=target.parent))
    try:
        save(folder)
        hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n")
        folder.chmod(0o755)  # mkdtemp and safetensors let nobody else in, but what is in a cache is no secret of this user
        for path in folder.iterdir():
            path.chmod(0o644)
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether every file of the manifest is there with its hash."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())
        return hashes.keys() >= NEEDED and all(sha256_of(folder / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False
