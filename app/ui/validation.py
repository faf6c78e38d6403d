"""What pydantic refuses, over HTTP or in a file, as a sentence."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from app.ui.checks import shown
from bitune.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
NUMBER = "which is not a number"
EXACT = {"missing": "{} is missing", "extra_forbidden": "{} is none of them", "model_type": "this is none"}
CAUSES = {
    **dict.fromkeys(("int_parsing", "int_type", "float_parsing", "float_type"), NUMBER),
    "int_parsing_size": "which has too many digits",
    "less_than_equal": "which is above {le}",
    "greater_than_equal": "which is below {ge}",
    "string_type": "which is not text",
    "list_type": "which is not a list",
    "literal_error": "which is not among {expected}",
}


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, as part of a sentence: where it stands in the file, and why it is refused."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    words = first["msg"].removeprefix("Value error, ")
    return f"{place}: {words[0].lower()}{words[1:]}" if place else f"{words[0].lower()}{words[1:]}"


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
