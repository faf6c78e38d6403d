"""Prompts to begin with, written for this page. The first one is what the page opens with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """`key` names its recording, `title` its button."""

    key: str
    title: str
    prompt: str


EXAMPLES = (
    Example(
        "puddle",
        "Choices after the question",
        "A puddle is gone after a sunny day. Where did the water go?\n\nChoices:\nIt turned into stone.\nIt evaporated into the air.\n"
        "It became ice.\nIt turned into sugar.",
    ),
    Example(
        "hen-first",
        "Choices before the question",
        "Choices:\na dog\na hen\na cow\na whale\n\nWhich animal lays eggs?",
    ),
    Example("planet", "A question alone", "Which planet is closest to the Sun?"),
    Example("bees", "An open question", "What do bees make?"),
)
