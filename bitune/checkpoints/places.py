"""Where a checkpoint is, and what its small files alone say of it: known before torch is imported. Knows no tensor."""

import os
from pathlib import Path

from bitune.checkpoints.files import ADAPTER_CONFIG, CONFIG_FILE, REFERENCE_FILE, read_json
from bitune.errors import CheckpointError, shown
from bitune.files import local_path
from bitune.schema.config import BituneConfig


def check_checkpoint(source: str | os.PathLike) -> None:
    """CheckpointError for what `resolve_checkpoint` and `read` would refuse, as far as names and the config tell."""
    if (folder := local_folder(source)) is not None:
        read_config(folder)


def local_folder(source: str | os.PathLike) -> Path | None:
    """The folder of this name, or None for what can be a repository's id; CheckpointError for what is neither."""
    path = local_path(source, CheckpointError)
    if path.is_dir():
        return path
    repository = str(source).partition("@")[0]
    if len(repository.split("/")) != 2 or path.is_absolute() or repository.startswith("."):
        raise CheckpointError(f"There is no checkpoint folder {shown(str(source))}; give a folder, or a Hub id like 'user/name'.")
    return None


def read_config(folder: Path) -> BituneConfig | None:
    """What a checkpoint folder says about itself; None for a plain PEFT adapter, which says nothing.

    Raises:
        CheckpointError: it is neither, or its config cannot be read.
    """
    file, reference = folder / CONFIG_FILE, folder / REFERENCE_FILE
    if not os.path.lexists(file) and os.path.lexists(folder / ADAPTER_CONFIG):
        if os.path.lexists(reference) and "pass_type" in read_json(reference):
            raise CheckpointError(
                f"{str(folder)!r} is a folder of the authors' research code; read it with BituneModel.from_reference, or make a "
                "checkpoint of it with `python -m bitune convert`."
            )
        return None
    if not os.path.lexists(file) and reference.is_file():
        raise CheckpointError(f"{str(folder)!r} is a base model (it has a {REFERENCE_FILE}), no checkpoint; name it as the base.")
    return BituneConfig.from_dict(read_json(file), str(file))


def check_reference(folder: str | os.PathLike) -> None:
    """CheckpointError for what is no folder of the authors' research code, but one of another kind, or none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {str(folder)!r}; check the path.")
    if (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{str(folder)!r} is a Bitune checkpoint already; load it as it is.")
    if (folder / ADAPTER_CONFIG).is_file() and not any((folder / name).exists() for name in (REFERENCE_FILE, "prefill")):
        raise CheckpointError(
            f"{str(folder)!r} is a plain PEFT adapter, as {REFERENCE_FILE} is missing, where the authors' research code says its method; load "
            "it as it is as a checkpoint, or copy that file too."
        )
