"""What pydantic refuses in a file, in words."""

from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, as part of a sentence: where it stands in the file, and why it is refused."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    words = first["msg"].removeprefix("Value error, ")
    return f"{place}: {words[0].lower()}{words[1:]}" if place else f"{words[0].lower()}{words[1:]}"
