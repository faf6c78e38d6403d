"""An older checkpoint in the folder that is written to: which files are its own and may be replaced, and which are other people's."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from bitune.checkpoints.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARD_BYTES,
    CARD_FILE,
    CONFIG_FILE,
    LOG_FILE,
    MIXING_FILE,
    USUAL_FILES,
    WEIGHTS_BYTES,
    read_json,
)
from bitune.errors import CheckpointError, disk_failure
from bitune.files import read_header, read_text
from bitune.schema.config import BituneConfig

CARD_HASH = "card_sha256"
"""In the metadata of an adapter's weights: of the card that was written with it, to tell it from one that somebody else wrote."""


def check_target(folder: str | os.PathLike, files: Iterable[str] = USUAL_FILES) -> None:
    """Refuse a folder to which a checkpoint cannot be written without harm.

    Args:
        folder: new, empty, or with an older checkpoint.
        files: what will be written, as paths inside the folder.

    Raises:
        CheckpointError: it holds other things and no checkpoint, or things of other people under these very names.
    """
    folder = Path(folder).resolve()  # itself it may be a link
    try:
        usable = not folder.exists() or (folder / CONFIG_FILE).is_file() or (folder.is_dir() and not any(folder.iterdir()))
        if not usable:
            cause = "no checkpoint and not empty" if folder.is_dir() else "a file"
            raise CheckpointError(f"{str(folder)!r} is {cause}; choose an empty or new folder.")
        older = set(older_files(folder))
        for name in sorted(older.union(files) - {CARD_FILE}):
            file = folder / name
            _check_subfolder(file.parent)
            if os.path.lexists(file) and (name not in older or file.is_dir()):
                raise CheckpointError(
                    f"{str(file)!r} is no part of the checkpoint that {str(folder)!r} holds, and saving would replace it; move it away, "
                    "or choose another folder."
                )
    except OSError as error:
        failure = disk_failure(error)
        raise CheckpointError(f"{str(folder)!r} cannot be written to: {failure.cause}; {failure.remedy}.") from error


def _check_subfolder(place: Path) -> None:
    """CheckpointError where an adapter's folder, or the checkpoint's own, is there and no folder of its own."""
    if place.is_symlink():
        raise CheckpointError(
            f"{str(place)!r} is a link to {os.readlink(place)!r}, and saving would replace what lies there; put a folder in its place, or "
            "choose another folder."
        )
    if place.exists() and not place.is_dir():
        raise CheckpointError(f"{str(place)!r} is a file where a folder belongs; move it away, or choose another folder.")


def older_files(folder: Path) -> list[str]:
    """What the older checkpoint in `folder` consists of besides its card, there or not."""
    if not os.path.lexists(folder / CONFIG_FILE):
        return []
    config = _older_config(folder)
    if config is None:  # damaged: the usual names
        return list(USUAL_FILES)
    adapters = [f"{name}/{file}" for name in config.adapters.values() for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    return [CONFIG_FILE, LOG_FILE, *adapters, *([MIXING_FILE] if config.mixing else [])]


def _older_config(folder: Path) -> BituneConfig | None:
    try:
        return BituneConfig.from_dict(read_json(folder / CONFIG_FILE))
    except CheckpointError:
        return None


def may_write_card(folder: Path) -> bool:
    """Whether README.md in `folder` may be written: there is none, or it is the card that the older checkpoint was written with."""
    file = folder / CARD_FILE
    if not os.path.lexists(file):
        return True
    try:
        text = read_text(file, CARD_BYTES, CheckpointError)
        config = _older_config(folder)
        hashes = [
            read_header(folder / name / ADAPTER_WEIGHTS, WEIGHTS_BYTES, CheckpointError).metadata.get(CARD_HASH)
            for name in (config.adapters.values() if config else ())
        ]
    except (CheckpointError, FileNotFoundError):
        return False
    return hash_of(text) in hashes


def hash_of(text: str) -> str:
    """What stands for a card under CARD_HASH."""
    return hashlib.sha256(text.encode()).hexdigest()
