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
        "conductor",
        "Choices after the question",
        "Which of these lets electricity through best?\n\nChoices:\na wooden spoon\na copper wire\na rubber glove\na glass cup",
    ),
    Example(
        "choices-first",
        "Choices before the question",
        "Choices:\na wooden spoon\na copper wire\na rubber glove\na glass cup\n\nWhich of these lets electricity through best?",
    ),
    Example(
        "review",
        "Judge a review",
        "The film was slow, but its last ten minutes were worth the whole evening.\n\nIs this review positive or negative?",
    ),
    Example("float", "A short instruction", "Name three things that float on water."),
)
