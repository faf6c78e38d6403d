"""What pydantic refuses, over HTTP or in a file, as a sentence."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.ui.checks import shown
from bitune.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
NUMBER = "which is not a number"
EXACT = {"missing": "{} is missing", "extra_forbidden": "{} is none of them", "model_type": "this is none"}
CAUSES = {
    **dict.fromkeys(("int_parsing", "int_type", "float_parsing", "float_type", "finite_number"), NUMBER),
    "int_parsing_size": "which has too many digits",
    "less_than_equal": "which is above {le}",
    "greater_than_equal": "which is below {ge}",
    "string_type": "which is not text",
    "string_too_long": "which is longer than {max_length} characters",
    "list_type": "which is not a list",
    "too_long": "which has more than {max_length} entries",
    "bool_type": "which is neither true nor false",
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
        raise ConfigError(in_words(error.errors(include_url=False)[0], kind, what)) from error


def as_far_as_valid(kind: type[Model], value: object, what: str) -> tuple[Model, list[str]]:
    """`value` as `kind`, without the fields that pydantic refuses, and a sentence for each of these.

    Args:
        kind: A pydantic model that needs no field.
        value: What came over HTTP or in a file.
        what: The subject of the sentences.
    """
    if not isinstance(value, Mapping):
        return kind(), [f"{what} must be an object; got {shown(value)}."]
    try:
        return kind.model_validate(value), []
    except ValidationError as error:
        first = {}
        for problem in error.errors(include_url=False):
            first.setdefault(problem["loc"][0], problem)
        kept = {name: given for name, given in value.items() if name not in first}
        return kind.model_validate(kept), [in_words(problem, kind, what) for problem in first.values()]


def in_words(problem: Mapping[str, Any], kind: type[BaseModel], what: str) -> str:
    """What pydantic refuses, one of its `errors`, as a sentence: the field, the value and what is wrong with it."""
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] in EXACT:
        needed = [name for name, info in kind.model_fields.items() if info.is_required()]
        fields = f"exactly the fields {', '.join(needed)}" if needed else f"no other fields than {', '.join(kind.model_fields)}"
        return f"{what} must be an object with {fields}; {EXACT[problem['type']].format(shown(field)[1:-1])}."
    cause = CAUSES[problem["type"]].format(**problem.get("ctx", {})) if problem["type"] in CAUSES else problem["msg"]
    return f"{what} says {field}={shown(problem['input'])}, {cause}."
