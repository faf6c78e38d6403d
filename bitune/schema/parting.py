"""Where answers part, token by token, and what each variant gives to each answer: plain values without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TOP = 8
"""How many of the likeliest tokens are kept of each step."""


@dataclass(frozen=True)
class TokenScores:
    """What one variant gives to an answer of n tokens: to each of them after its own prompt and the answer's tokens before it.

    Attributes:
        log_probabilities: Of the answer's tokens, natural logarithm, float32 [n]; at temperature 1 and without top-p, whatever the answer
            was drawn with.
        ranks: How many tokens of the vocabulary are likelier, int32 [n]; 0 is the greedy choice.
        top: Ids of the likeliest tokens, the likeliest first, int32 [n, TOP], or fewer where the vocabulary has fewer.
        top_log_probabilities: Of these, float32 like `top`.
    """

    log_probabilities: np.ndarray
    ranks: np.ndarray
    top: np.ndarray
    top_log_probabilities: np.ndarray

    @property
    def sum(self) -> float:
        """The log-probability of the whole answer."""
        return float(self.log_probabilities.sum(dtype=np.float64))

    @property
    def per_token(self) -> float:
        """Its mean over the tokens."""
        return self.sum / len(self.log_probabilities)


@dataclass(frozen=True)
class Parting:
    """Answers to one prompt, and what every variant gives to every answer.

    Attributes:
        answers: Token ids by name of the variant that gave them. What is scored is these very tokens: the end token counts where an answer
            ended by itself, and none is added where it was cut.
        scores: scores[a][v] is what variant v gives to the answer of variant a.
        texts: Text of every token id in here, as it stands inside of a text; one that is a part of a character has U+FFFD.
        ended: Whose answers end with an end token.
    """

    answers: Mapping[str, tuple[int, ...]]
    scores: Mapping[str, Mapping[str, TokenScores]]
    texts: Mapping[int, str]
    ended: frozenset[str]

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that score, in the order of the request."""
        return tuple(next(iter(self.scores.values())))

    def place(self, one: str, other: str) -> int | None:
        """The first place, counted from 0, at which the answers of two variants have different tokens; None where there is none, as they
        are the same or one goes on where the other was cut."""
        return parting_place(self.answers[one], self.answers[other])


def parting_place(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place at which two lists of token ids differ; None where one begins with the other."""
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
