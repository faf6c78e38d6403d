"""Checks of values that come over HTTP or from disk, which may have any type. What is wrong is a ConfigError with one sentence."""

from reprlib import Repr
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError, ValidationInfo

from bitune.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 40
shown = _short.repr  # a value as it may stand in a sentence


def whole(value: object) -> object:
    """A whole number that JSON made a float (64.0) as int; anything else as it is, for the engine to judge."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def names(value: object, what: str = "variants") -> tuple[str, ...]:
    """`value` as a tuple of names; ConfigError, which calls it `what`, where it is no list of text."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{what} must be a list of names; got {shown(value)}.")
    return tuple(value)


def text(value: object, info: ValidationInfo) -> str:
    """`value` where it is text; ConfigError, which names the field, for anything else."""
    if not isinstance(value, str):
        raise ConfigError(f"{info.field_name} must be text; got {shown(value)}.")
    return value


# Types of fields. What the engine judges itself stays Any: its sentence is the better one.
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value, info: names(value, info.field_name))]
Text = Annotated[str, BeforeValidator(text)]
Whole = Annotated[Any, AfterValidator(whole)]

NUMBER = "which is not a number"
EXACT = {"missing": "{} is missing", "extra_forbidden": "{} is none of them", "model_type": "this is none"}
CAUSES = {
    **dict.fromkeys(("int_parsing", "int_type", "float_parsing", "float_type"), NUMBER),
    "string_type": "which is not text",
    "list_type": "which is not a list",
    "literal_error": "which is not among {expected}",
}


def checked(kind: type[Model], value: object, what: str) -> Model:
    """`value` as `kind`.

    Args:
        kind: A pydantic model.
        value: What came over HTTP or from disk.
        what: The subject of the sentence that says what is wrong, such as "The what-if 'a'".

    Raises:
        ConfigError: pydantic refuses `value`.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError(in_words(error, kind, what)) from error


def in_words(error: ValidationError, kind: type[BaseModel], what: str) -> str:
    """The first thing that pydantic refuses, as one sentence: the field, the value and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] in EXACT:
        fields = ", ".join(name for name, info in kind.model_fields.items() if info.is_required())
        return f"{what} must be an object with exactly the fields {fields}; {EXACT[first['type']].format(field)}."
    cause = CAUSES[first["type"]].format(**first.get("ctx", {})) if first["type"] in CAUSES else first["msg"]
    return f"{what} says {field}={shown(first['input'])}, {cause}."
