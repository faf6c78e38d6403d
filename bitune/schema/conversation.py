"""A conversation as plain values: what was asked and answered before, and how that is read again. Knows no model and no tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitune.errors import ConfigError, PromptError, UnknownNameError, shown

RECOMPUTE, ALTERNATING = "recompute", "alternating"
EARLIER = (RECOMPUTE, ALTERNATING)
"""How turns before the last question are read; see `Engine.stream`. The paper proposes both and tests neither."""

_CHARACTERS = 10_000_000  # of an answer before: more than any context


@dataclass(frozen=True)
class Turn:
    """One question of a conversation and what each variant answered to it.

    Args:
        prompt: What a person wrote.
        answers: Name of a variant -> the text of its answer, which may be empty.
    """

    prompt: str
    answers: Mapping[str, str]


def check_earlier(earlier: str) -> None:
    """UnknownNameError unless `earlier` is one of EARLIER."""
    if earlier not in EARLIER:
        raise UnknownNameError("way to read the turns before", str(earlier), EARLIER)


def turns_of(variant: str, history: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    """One variant's own conversation, as question and answer of each turn.

    Raises:
        ConfigError: A turn has no answer of this variant.
        PromptError: An answer is no text.
    """
    turns = []
    for number, turn in enumerate(history, 1):
        if variant not in turn.answers:
            raise ConfigError(
                f"Turn {number} of the history has no answer of {variant!r}, so it cannot go on from there; give its answer, or leave "
                "the variant out."
            )
        answer = turn.answers[variant]
        if not isinstance(answer, str) or len(answer) > _CHARACTERS or any(0xD800 <= ord(sign) <= 0xDFFF for sign in answer):
            raise PromptError(
                f"The answer of {variant!r} in turn {number} is {shown(answer)}, which is no text that a model reads."
            )
        turns.append((turn.prompt, answer))
    return tuple(turns)
