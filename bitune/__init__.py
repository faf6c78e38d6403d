"""Bitune: bidirectional prompt reading for any decoder-only model of transformers (arXiv 2405.14862)."""

from bitune.base import Base, load_base
from bitune.config import BituneConfig, MixingSettings
from bitune.engine import Engine
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
from bitune.model import BituneModel, BituneOutput
from bitune.results import BaseFacts, CheckpointFacts, Completion, Update
from bitune.variants import METHODS, MixingRatios, PromptPass, Variant

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
    "UnknownNameError",
    "UnsupportedModelError",
    "Update",
    "Variant",
    "WrongBaseError",
    "load_base",
]
