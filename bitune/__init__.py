"""Bitune: bidirectional prompt reading for any decoder-only model of transformers (arXiv 2405.14862).

What needs torch or numpy is imported when it is first asked for, so that `python -m bitune --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from bitune.errors import (
    BaseNotFoundError,
    BituneError,
    CheckpointError,
    ConfigError,
    DataError,
    PromptError,
    UnknownNameError,
    UnsupportedModelError,
    WrongBaseError,
)
from bitune.schema.config import BituneConfig, MixingSettings
from bitune.schema.conversation import Turn
from bitune.schema.variants import METHODS, MixingRatios, PromptPass, Variant

if TYPE_CHECKING:
    from bitune.base.loading import Base, load_base
    from bitune.inference.engine import Engine
    from bitune.model.bitune_model import BituneModel, BituneOutput
    from bitune.schema.results import BaseFacts, CheckpointFacts, Completion, Update

__all__ = [
    "METHODS",
    "Base",
    "BaseFacts",
    "BaseNotFoundError",
    "BituneConfig",
    "BituneError",
    "BituneModel",
    "BituneOutput",
    "CheckpointError",
    "CheckpointFacts",
    "Completion",
    "ConfigError",
    "DataError",
    "Engine",
    "MixingRatios",
    "MixingSettings",
    "PromptError",
    "PromptPass",
    "Turn",
    "UnknownNameError",
    "UnsupportedModelError",
    "Update",
    "Variant",
    "WrongBaseError",
    "load_base",
]

_MODULES = {
    "Base": "bitune.base.loading",
    "BaseFacts": "bitune.schema.results",
    "BituneModel": "bitune.model.bitune_model",
    "BituneOutput": "bitune.model.bitune_model",
    "CheckpointFacts": "bitune.schema.results",
    "Completion": "bitune.schema.results",
    "Engine": "bitune.inference.engine",
    "Update": "bitune.schema.results",
    "load_base": "bitune.base.loading",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'bitune' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
