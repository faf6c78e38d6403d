"""Answers -> HTML of Compare. Pure: no gradio, no model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.compare.recorded import Recording
from app.ui.differences import difference, in_words
from app.ui.templates import faithful, render
from app.ui.variants import VariantView
from bitune.schema.results import Completion, Update

READING = "Reading the prompt."
WAITING = "Waiting for the model."


@dataclass(frozen=True)
class Column:
    """One answer on the page.

    `pieces`: its text, each piece marked or not. `silent`: words of ours where there is no text. `difference`: how it differs from the
    first column. `completion`: None before the model has begun.
    """

    view: VariantView
    pieces: Sequence[tuple[str, bool]] = ()
    silent: str = ""
    difference: str = ""
    completion: Completion | None = None

    @property
    def running(self) -> bool:
        return self.completion is None or self.completion.finish_reason is None

    @property
    def figures(self) -> Mapping[str, str]:
        """What stands under the answer; nothing before the model has begun. Time and memory tell how a prompt was read: not if blind."""
        known = {} if self.completion is None else figures(self.completion)
        return {name: words for name, words in known.items() if not self.view.hidden or name not in TELLING}


def answers(
    update: Update, views: Mapping[str, VariantView], recording: Recording | None = None, words: Sequence[str] | None = None
) -> Markup:
    """One column a variant; differing words are marked once all is written.

    Args:
        update: The answers.
        views: How their variants are called and coloured.
        recording: That they are from, where they were not computed here and now.
        words: What of that recording is not here, where somebody has opened it.
    """
    first, *others = update.completions.values()
    reference = views[first.variant].name
    compared = f"The others are compared with {reference}." if others and update.done else ""
    columns = [column(first, views, [(first.text, False)], compared, update.phase)]
    for completion in others:
        if update.done and (first.text or completion.text):
            parts = difference(first.text, completion.text)
            columns.append(column(completion, views, parts.pieces, in_words(parts, reference)))
        else:
            columns.append(column(completion, views, [(completion.text, False)], "", update.phase))
    return render("compare/answers.html", columns=columns, recording=recording, words=words)


def begun(chosen: Iterable[VariantView]) -> Markup:
    """The columns of a request that runs. What is in them comes by `live`, so that an update need not bring all of it again."""
    columns = [Column(view, silent=READING, completion=Completion(view.name, "", 0, None, None, None)) for view in chosen]
    return render("compare/answers.html", columns=columns, recording=None)


def live(update: Update, views: Mapping[str, VariantView]) -> list[dict[str, object]]:
    """What stands in the columns of `begun` now, as plain text for answers.js."""
    columns = [column(completion, views, (), "", update.phase) for completion in update.completions.values()]
    return [
        {
            "text": faithful(one.completion.text),
            "silent": one.silent,
            "running": one.running,
            "figures": list(one.figures.values()),
        }
        for one in columns
    ]


def figures(completion: Completion) -> dict[str, str]:
    """Name of each figure -> what it is, in words."""
    first, speed = completion.seconds_to_first_token, completion.tokens_per_second
    return {
        "New tokens": str(completion.tokens),
        "First token": "–" if first is None else f"{first:.2f} s" + (", from memory" if completion.from_memory else ""),
        "Speed": "–" if speed is None else f"{speed:.1f} tokens/s",
        "Ended": ENDED[completion.finish_reason],
    }


def column(
    completion: Completion,
    views: Mapping[str, VariantView],
    pieces: Sequence[tuple[str, bool]],
    difference: str,
    phase: str = "done",
) -> Column:
    """The column of an answer, with words of ours where it has no text."""
    words = WAITING if phase == "waiting" else SILENT.get(completion.finish_reason, NO_TEXT)
    silent = "" if completion.text else words
    return Column(views[completion.variant], pieces, silent, difference, completion)


TELLING = ("First token", "Speed")
SILENT = {None: READING, "cancelled": "Stopped before the first token."}
ENDED = {
    None: "still writing",
    "eos": "by itself",
    "length": "at the limit of new tokens",
    "stop": "at a stop text",
    "cancelled": "by you",
}
NO_TEXT = "No text: the first token already ended the answer."


def waiting(chosen: Iterable[VariantView], words: str) -> Markup:
    """The columns before the model has begun."""
    return render("compare/answers.html", columns=[Column(view, silent=words) for view in chosen], recording=None)


def prompts(update: Update, views: Mapping[str, VariantView]) -> Markup:
    """The very text each variant read; once, where all read the same."""
    groups: dict[tuple[str, int], list[VariantView]] = {}
    for name, prompt in update.prompts.items():
        groups.setdefault((prompt, update.prompt_tokens[name]), []).append(views[name])
    return render("compare/prompts.html", groups=[(who, prompt, tokens) for (prompt, tokens), who in groups.items()])
