"""How large a checkpoint is, by the headers of its files: known before a tensor of it is read, or downloaded."""

import math
from pathlib import Path

from bitune.checkpoints.files import ADAPTER_WEIGHTS, WEIGHTS_BYTES
from bitune.checkpoints.places import read_config
from bitune.errors import CheckpointError
from bitune.files import read_header
from bitune.hub import hub_errors, sizes_on_hub

BYTES_A_NUMBER = 8
"""Of memory, at most, while an adapter is put on a base: as it is read from its file, and in float32, in which it stays."""


def numbers_of(folder: Path, repository: str | None = None) -> int:
    """How many numbers the adapters of a checkpoint hold.

    Args:
        folder: the checkpoint's, which may hold the JSON files alone.
        repository: of a snapshot of the Hub, whose name is the commit: then the Hub is asked for the headers of what is not here.

    Raises:
        CheckpointError: its config or a header cannot be read, or the Hub did not deliver it. A file that is not there counts nothing:
            what that means, loading says.
    """
    return sum(_numbers(folder, name, repository) for name in adapter_files(folder))


def adapter_files(folder: Path) -> list[str]:
    """The names of the files with the adapters of a checkpoint, there or not; CheckpointError where its config cannot be read."""
    config = read_config(folder)
    return [ADAPTER_WEIGHTS] if config is None else [f"{name}/{ADAPTER_WEIGHTS}" for name in config.adapters.values()]


def _numbers(folder: Path, name: str, repository: str | None) -> int:
    file = folder / name
    if file.is_file():
        return sum(math.prod(tensor.shape) for tensor in read_header(file, WEIGHTS_BYTES, CheckpointError).tensors.values())
    if repository is None:
        return 0
    with hub_errors(CheckpointError, f"{repository!r} could not be had from the Hub"):
        return sizes_on_hub(repository, name, folder.name)[1]
