"""What is asked about: a run that has ended, as plain values. Knows no gradio and no tab."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.ui.variants import VariantView
from app.why.look import NO_LOOK, LookLink, Wish
from bitune.schema.results import Update


class Asked(Protocol):
    """What was asked of the model: `options` are the keyword arguments of Engine.stream."""

    prompt: str
    variants: Sequence[str]

    @property
    def options(self) -> dict[str, object]: ...


class Recorded(Protocol):
    """Answers that were computed earlier."""

    update: Update
    request: Asked
    views: Mapping[str, VariantView]


class Shown(Protocol):
    """What a tab shows of a run. `recording`: instead of a run of this page; `blind`: names may not leave the server yet; `reference`: the
    variant that the others are compared with, None for the first one; `wish`: what a link wants to be looked at."""

    running: bool
    blind: bool
    update: Update | None
    request: Asked | None
    views: Mapping[str, VariantView]
    recording: Recorded | None
    reference: str | None
    wish: Wish | None


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended, or was stopped.

    Attributes:
        request: What was asked.
        answers: Token ids by name of the variant, in the order of the columns; the end token is among them where an answer ended by itself.
        views: How the variants are called and coloured, what-ifs included.
        reference: The variant among them that the others are compared with.
        look: What is opened first.
    """

    request: Asked
    answers: Mapping[str, tuple[int, ...]]
    views: Mapping[str, VariantView]
    reference: str
    look: LookLink = NO_LOOK

    @property
    def reading(self) -> dict[str, object]:
        """How the prompt is read: those of the request's options that do not say how tokens are chosen."""
        return {name: self.request.options[name] for name in ("template", "what_ifs", "history", "earlier")}


def run_of(shown: Shown) -> EndedRun | None:
    """The run on the screen, of whatever origin; None where it goes on, its names are hidden, or no token came of it."""
    kept = shown if shown.recording is None else shown.recording
    if shown.running or shown.blind or kept.update is None or kept.request is None:
        return None
    answers = {name: completion.token_ids for name, completion in kept.update.completions.items() if completion.token_ids}
    if not answers:
        return None
    reference = shown.reference if shown.reference in answers else next(iter(answers))
    look = shown.wish.look if shown.wish is not None and shown.wish.prompt == kept.request.prompt else NO_LOOK
    return EndedRun(kept.request, answers, {name: kept.views[name] for name in kept.update.completions}, reference, look)
