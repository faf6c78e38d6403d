"""Checks of single values that come over HTTP and may have any type. What is wrong is a ConfigError with one sentence."""

from collections.abc import Iterable
from reprlib import Repr
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from bitune.errors import ConfigError, PromptError

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 40


def shown(value: object) -> str:
    """A value as it may stand in a sentence, shorter than the library cuts it: visitors send what they like."""
    text = _short.repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def whole(value: object) -> object:
    """A whole number that JSON made a float (64.0) as int; anything else as it is, for the engine to check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def names(value: object, what: str = "variants") -> tuple[str, ...]:
    """`value` as a tuple of names, each once; ConfigError, which calls it `what`, where it is no list of text."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{what} must be a list of names; got {shown(value)}.")
    return tuple(dict.fromkeys(value))


def text(value: object, info: ValidationInfo) -> str:
    """`value` where it is text; ConfigError, which names the field, for anything else."""
    if not isinstance(value, str):
        raise ConfigError(f"{info.field_name} must be text; got {shown(value)}.")
    return value


def answer_text(answer: str) -> str:
    """An answer that a tokenizer can read; PromptError for any other."""
    if len(answer) > MAX_ANSWER:
        raise PromptError(f"The answer has {len(answer):,} characters; shorten it.")
    if any(0xD800 <= ord(sign) <= 0xDFFF for sign in answer):
        raise PromptError("The answer holds half of a surrogate pair, which is not text; remove it.")
    return answer


def not_here(unknown: Iterable[str]) -> list[str]:
    """A sentence on the variants that a link or a saved run names and this page has not; none where it has all."""
    named = ", ".join(map(shown, unknown))
    return [f"Not loaded here: {named}."] if named else []


# Types of fields. What the engine checks itself stays Any: its sentence is the better one.
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value, info: names(value, info.field_name))]
Text = Annotated[str, BeforeValidator(text)]
AnswerText = Annotated[Text, AfterValidator(answer_text)]
Whole = Annotated[Any, AfterValidator(whole)]

# Types of what a link or a file of somebody else may hold.
MAX_CHARACTERS = 1_000_000  # of a prompt: what the engine refuses without counting its tokens
MAX_ANSWER = 24 * 1024  # of an answer, generously: counting the tokens of a megabyte takes seconds
MAX_NAMES = 64
MAX_NAME = 200  # characters: a name stands in every column, mark and chart of an answer
Name = Annotated[str, Field(max_length=MAX_NAME)]
NameList = Annotated[list[Name], Field(max_length=MAX_NAMES, fail_fast=True)]
