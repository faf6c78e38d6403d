"""How to answer, as plain values that are checked where they are made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bitune.errors import ConfigError, shown

FinishReason = Literal["eos", "length", "stop", "cancelled"]
"""How an answer ended: by the end token, at the limit of new tokens, at a stop string, or because a person stopped it."""
MAX_SEED = 2**63 - 1
GREEDY_BELOW = 1e-6
"""Temperatures below it choose the likeliest token: divided by one, float32 scores overflow, and a difference that their rounding leaves is
so large that no draw changes the order."""


@dataclass(frozen=True)
class GenerationSettings:
    """How to answer. `temperature` 0, or below GREEDY_BELOW, is greedy (then `top_p` and `seed` do nothing); `stop`: strings that end an
    answer."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: Iterable[str] = ()

    def __post_init__(self):
        _check_number("max_new_tokens", self.max_new_tokens, 1, math.inf, whole=True)
        _check_number("temperature", self.temperature, 0, 100)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("seed", self.seed, 0, MAX_SEED, whole=True)
        if self.top_p == 0:
            raise ConfigError("top_p is 0; it must be above 0, as it is the share of probability that is kept.")
        is_list = isinstance(self.stop, Iterable) and not isinstance(self.stop, str)
        texts = tuple(self.stop) if is_list else ()
        if not is_list or not all(isinstance(text, str) and text for text in texts):
            raise ConfigError(f"stop is {shown(self.stop)}; it must be a list of strings that are not empty.")
        object.__setattr__(self, "stop", texts)  # frozen for everybody else


def _check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        words = "a whole number" if whole else "a number"
        limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ConfigError(f"{name} is {shown(value)}; it must be {words} {limits}.")
