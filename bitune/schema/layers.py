"""What each layer, and each prompt token, has to do with an answer. Plain values, as in schema/results.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LayerEffects:
    """How the log-probability of an answer changes when one layer is mixed otherwise, [layers] each; None where it is not measured yet.

    `undone`: the layer takes the first pass alone (ratio 0); `completed`: the second alone (1). Keys and values apart.
    """

    undone_keys: Sequence[float | None]
    undone_values: Sequence[float | None]
    completed_keys: Sequence[float | None]
    completed_values: Sequence[float | None]


@dataclass(frozen=True)
class MixingEffects:
    """What the mixing of each layer and of each prompt token does to an answer. Changes are in nats, over all tokens of the answer: -1 is
    e times less likely than as mixed.

    Attributes:
        log_probability: Of the answer as the variant mixes, natural logarithm, summed over its tokens.
        undone, completed: The change with all layers mixed so, keys and values; None where it is not measured yet.
        layers: The changes with one layer mixed so.
        tokens: The change when the mixing of this prompt token is undone in all layers: the cache then holds its first reading, while the
            second readings of other tokens have still seen it. [P - 1]; the last prompt token is not read twice.
        prompt: The text of every prompt token, [P].
        answer: The text of every token of the answer.
    """

    log_probability: float
    undone: float | None
    completed: float | None
    layers: LayerEffects
    tokens: Sequence[float | None]
    prompt: Sequence[str]
    answer: Sequence[str]

    @property
    def measured(self) -> tuple[int, int]:
        """How many changes are measured, and how many there are to be."""
        layers = self.layers
        by_layer = (layers.undone_keys, layers.undone_values, layers.completed_keys, layers.completed_values)
        values = [self.undone, self.completed, *self.tokens, *(value for values in by_layer for value in values)]
        return sum(value is not None for value in values), len(values)


@dataclass(frozen=True)
class Guess:
    """A token that may come next: its id, what it is decoded to, and how probable it is."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class LayerReading:
    """What one cache would say at a place of an answer after each layer.

    Attributes:
        variant: Whose.
        cache: `own`, or `first_pass`: what the first pass of a variant that mixes would have left alone.
        token: The text of the token that `probabilities` follow.
        probabilities: Of that token after each layer, [layers].
        guesses: The likeliest tokens after each layer, the likeliest first.
    """

    variant: str
    cache: Literal["own", "first_pass"]
    token: str
    probabilities: Sequence[float]
    guesses: Sequence[Sequence[Guess]]
