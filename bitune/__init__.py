"""Bitune: bidirectional prompt reading for any decoder-only model of transformers (arXiv 2405.14862)."""

from bitune.base.loading import Base, load_base
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
from bitune.inference.engine import Engine
from bitune.model.bitune_model import BituneModel, BituneOutput
from bitune.schema.config import BituneConfig, MixingSettings
from bitune.schema.results import BaseFacts, CheckpointFacts, Completion, Update
from bitune.schema.variants import METHODS, MixingRatios, PromptPass, Variant

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
