"""Forwards by transformers alone, for the tests of what bitune relies on in it."""

import inspect

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from tests.tiny import FAMILIES

LAYERS = 4
families = pytest.mark.parametrize("family", sorted(FAMILIES))


def cache_argument(model: PreTrainedModel) -> str:
    """What this version calls the argument of forward that holds the key/value cache."""
    return "cache" if "cache" in inspect.signature(model.base_model.forward).parameters else "past_key_values"


@torch.no_grad()
def run(model: PreTrainedModel, tokens: torch.Tensor, cache: DynamicCache, **arguments) -> torch.Tensor:
    """Logits [rows, tokens, vocabulary] of tokens that go on from `cache` and are written into it."""
    return model(tokens, use_cache=True, **{cache_argument(model): cache}, **arguments).logits
