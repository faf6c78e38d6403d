"""What every variant gives to every token -> JSON for programs and files, and HTML. Pure: no gradio, no model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from markupsafe import Markup

from app.ui.api_types import PartingAnswer
from app.ui.templates import render
from app.ui.variants import VariantView
from app.why.run import EndedRun
from app.why.signs import SPREAD, labelled, notation, pieces
from bitune.schema.parting import Parting, TokenScores
from bitune.schema.results import Completion

if TYPE_CHECKING:
    from bitune import Engine

COUNTED = (
    "Natural logarithms of probabilities at temperature 1, before top-p. The end token counts where an answer ended by itself; an answer that "
    "was cut has none, and none is added."
)
ENDED = {
    None: "Still writing.",
    "eos": "It ended by itself.",
    "length": "It was cut at the limit of new tokens.",
    "stop": "It ended at a stop text.",
    "cancelled": "You stopped it.",
}
DIGITS = 4  # of a log-probability in JSON


def as_json(found: Parting, prompt: str, base: str) -> PartingAnswer:
    """Everything as plain values, for the endpoint, the download and the page."""
    pairs = [(one, other) for index, one in enumerate(found.answers) for other in list(found.answers)[index + 1 :]]
    return {
        "prompt": prompt,
        "base": base,
        "answers": {
            name: {"tokens": [{"id": token, "text": found.texts[token]} for token in ids], "ended": name in found.ended}
            for name, ids in found.answers.items()
        },
        "parting": [{"one": one, "other": other, "place": found.place(one, other)} for one, other in pairs],
        "scores": {whose: {name: scores_of(one) for name, one in by.items()} for whose, by in found.scores.items()},
        "texts": {str(token): text for token, text in found.texts.items()},
        "counted": COUNTED,
    }


def scores_of(one: TokenScores) -> dict[str, object]:
    """What one variant gives to one answer, as plain values."""
    top = zip(one.top.tolist(), one.top_log_probabilities.tolist(), strict=True)
    return {
        "log_probability": round(one.sum, DIGITS),
        "per_token": round(one.per_token, DIGITS),
        "tokens": [round(value, DIGITS) for value in one.log_probabilities.tolist()],
        "ranks": one.ranks.tolist(),
        "top": [[[token, round(value, DIGITS)] for token, value in zip(*step, strict=True)] for step in top],
    }


@dataclass(frozen=True)
class Part:
    """Where an answer parts from the one it is compared with. `answer`: its number; `place` counts from 0; `said`: both tokens, the other's
    before its own."""

    view: VariantView
    answer: int
    place: int | None
    said: tuple[str, str] = ("", "")


def value(found: Parting, run: EndedRun, engine: "Engine") -> dict[str, object]:
    """What tokens.js draws: the HTML, the numbers behind it, how variants are called and coloured, and the step to open first."""
    views, reference = run.views, run.reference
    named = [views[name] for name in found.variants]
    labels = {token: labelled(token, text, engine.base.tokenizer.convert_ids_to_tokens) for token, text in found.texts.items()}
    others = [(index, other) for index, other in enumerate(found.answers) if other != reference]
    parts = [part_of(found, labels, reference, other, views, index) for index, other in others]
    first = list(found.answers).index(reference)
    strips = [
        (views[name], list(enumerate(pieces(ids, found.texts, engine.base.tokenizer.decode))), chances(found, name))
        for name, ids in found.answers.items()
    ]
    html = render(
        "why/tokens.html",
        reference=views[reference],
        first=first,
        parts=parts,
        strips=strips,
        rows=[(views[name], name in found.ended, cells(found, name)) for name in found.answers],
        scorers=named,
        counted=COUNTED,
        spread=SPREAD if any(not text for _, tokens, _ in strips for _, text in tokens) else "",
    )
    data = as_json(found, run.request.prompt, engine.base_facts.name)
    shown = [{"name": view.name, "colour": view.colour, "what_if": view.what_if} for view in named]
    return {
        "html": html,
        "data": data,
        "answers": list(found.answers),
        "views": shown,
        "labels": {str(token): label for token, label in labels.items()},
        "notation": notation(labels.values()),
        "opened": wished(run) or opened(parts, first),
    }


def part_of(
    found: Parting, labels: Mapping[int, str], reference: str, other: str, views: Mapping[str, VariantView], index: int
) -> Part:
    """Where one answer parts from the reference. `labels`: how each token is written."""
    place = found.place(reference, other)
    if place is None:
        return Part(views[other], index, None)
    return Part(views[other], index, place, tuple(labels[found.answers[name][place]] for name in (reference, other)))


def opened(parts: Sequence[Part], reference: int) -> dict[str, int]:
    """The step to look at first: where an answer parts soonest from the reference, in that; else its first token."""
    places = [part.place for part in parts if part.place is not None]
    return {"answer": reference, "place": min(places, default=0)}


def wished(run: EndedRun) -> dict[str, int] | None:
    """The step that a link opens; None where it names none that is there."""
    look, names = run.look, list(run.answers)
    if look.token_of not in names or look.token not in range(len(run.answers[look.token_of])):
        return None
    return {"answer": names.index(look.token_of), "place": look.token}


def chances(found: Parting, name: str) -> list[float]:
    """The probability of each token of an answer in the variant that gave it, from 0 to 1."""
    own = found.scores[name][name]
    return [round(math.exp(value), 3) for value in own.log_probabilities.tolist()]


def cells(found: Parting, whose: str) -> list[tuple[TokenScores, bool]]:
    """What each variant gives to an answer, and whether no other gives it more."""
    scores = list(found.scores[whose].values())
    most = max(one.sum for one in scores)
    return [(one, one.sum == most) for one in scores]


@dataclass(frozen=True)
class Beginning:
    """From where a variant goes on. `before`: text before the chosen token; `begun`: with it."""

    view: VariantView
    whose: VariantView
    place: int
    before: str
    begun: str


def beginning(tokenizer, alternative, before: Sequence[int], views: Mapping[str, VariantView]) -> Beginning:
    """In words, where `alternative` (app/why/tokens.py) goes on behind the tokens `before`."""
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in (before, [*before, alternative.token])]
    return Beginning(views[alternative.variant], views[alternative.answer], alternative.place, *texts)


def gone_on(words: Beginning, completion: Completion, *, running: bool) -> Markup:
    """An answer that went on otherwise, as what it is."""
    text = completion.text
    known = words.before if text.startswith(words.before) else ""
    chosen = words.begun.removeprefix(known) if known == words.before and text.startswith(words.begun) else ""
    rest = text[len(known) + len(chosen) :]
    ended = "" if running else ENDED[completion.finish_reason]
    return render("why/going_on.html", words=words, known=known, chosen=chosen, rest=rest, ended=ended, completion=completion)


def stopped(completion: Completion) -> Completion:
    """An answer that was cancelled on its way."""
    return completion if completion.finish_reason else replace(completion, finish_reason="cancelled")
