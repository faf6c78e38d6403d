"""The names of a checkpoint folder's files, how large they may be, and how its configs and texts are read. Knows no tensor."""

from pathlib import Path

from bitune.errors import CheckpointError
from bitune.files import read_object, read_text
from bitune.schema.variants import BIDIRECTIONAL, CAUSAL

CONFIG_FILE = "bitune_config.json"
MIXING_FILE = "mixing.safetensors"
LOG_FILE = "training_log.jsonl"
CARD_FILE = "README.md"
REFERENCE_FILE = "config.json"  # of the authors' code; see reference.py
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
USUAL_FILES = (
    CONFIG_FILE,
    LOG_FILE,
    MIXING_FILE,
    *(f"{name}/{file}" for name in (CAUSAL, BIDIRECTIONAL) for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)),
)

LOG_BYTES = 64 * 1024**2
"""A step of 80 layers has 4 KB: 16,000 steps."""
CARD_BYTES = 8 * 1024**2
"""Pictures inside it count."""
WEIGHTS_BYTES = 32 * 1024**3
"""Twice the largest adapter one could mean: rank 256 on all linear layers of a base of 70 billion, in float32."""


def read_json(file: Path) -> dict:
    """The JSON object in a file of a checkpoint. CheckpointError names the file."""
    try:
        return read_object(file, CheckpointError)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file} is missing, so {str(file.parent)!r} is no complete checkpoint folder; download or save it again."
        ) from error


def read_optional_text(file: Path, limit: int) -> str | None:
    """The text of a file that need not be there. CheckpointError names the file."""
    try:
        return read_text(file, limit, CheckpointError)
    except FileNotFoundError:
        return None
