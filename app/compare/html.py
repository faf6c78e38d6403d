"""Answers -> HTML of Compare. Pure: no gradio, no model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.compare.prompts import Reading, readings
from app.compare.recorded import Recording
from app.compare.request import CompareRequest
from app.ui.differences import Difference, Piece, Words, difference, in_all, in_words, pieces, shared_tokens
from app.ui.markdown import rendered
from app.ui.templates import faithful, render
from app.ui.variants import VariantView
from bitune.schema.results import Completion, Update

READING = "Reading the prompt."
WAITING = "Waiting for the model."
SILENT = {None: READING, "cancelled": "Stopped before the first token."}
ENDED = {
    None: "still writing",
    "eos": "by itself",
    "length": "at the limit of new tokens",
    "stop": "at a stop text",
    "cancelled": "by you",
}
NO_TEXT = "No text: the first token already ended the answer."


@dataclass(frozen=True)
class Column:
    """One answer on the page.

    `pieces`: its text. `silent`: words of ours where there is no text. `difference`: how it differs from the reference. `completion`: None
    before the model has begun. `reading`: what it read, None while that is not known or may not be. `rendered`: its Markdown, where it is any.
    """

    view: VariantView
    pieces: Sequence[Piece] = ()
    silent: str = ""
    difference: str = ""
    completion: Completion | None = None
    reading: Reading | None = None
    rendered: Markup | None = None

    @property
    def running(self) -> bool:
        return self.completion is None or self.completion.finish_reason is None

    @property
    def figures(self) -> Mapping[str, str]:
        """What stands under the answer; nothing before the model has begun."""
        return {} if self.completion is None else figures(self.completion)


def answers(
    update: Update,
    views: Mapping[str, VariantView],
    request: CompareRequest,
    reference: str | None = None,
    recording: Recording | None = None,
    words: Sequence[str] | None = None,
) -> Markup:
    """One column a variant; once all is written, words that differ from the reference are marked, in both.

    Args:
        update: The answers.
        views: How their variants are called and coloured.
        request: What was asked.
        reference: The variant that the others are compared with; `first_with_text` if None.
        recording: That they are from, where they were not computed here and now.
        words: What of that recording is not here, where somebody has opened it.
    """
    completions = update.completions
    reference = first_with_text(completions) if reference is None else reference
    parts = {}
    if update.done:
        others = {name: completion.text for name, completion in completions.items() if name != reference}
        parts = {name: difference(completions[reference].text, text) for name, text in others.items()}
    read = readings(update, views, request)
    columns = [column(completion, views, parts, update, reference, read) for completion in completions.values()]
    return render(
        "compare/answers.html",
        columns=columns,
        reference=list(completions).index(reference) if parts else None,
        asked=None if request.history else request.prompt,
        apart=len({one.text for one in read.values()}) > 1 and not request.history,
        batch=batch(update, views),
        recording=recording,
        words=words,
    )


def first_with_text(completions: Mapping[str, Completion]) -> str:
    """The variant that others are compared with where nobody has chosen one: the first one that wrote a text; the first one if none did."""
    return next((name for name, one in completions.items() if one.text.strip()), next(iter(completions)))


def column(
    completion: Completion,
    views: Mapping[str, VariantView],
    parts: Mapping[str, Difference],
    update: Update,
    reference: str,
    read: Mapping[str, Reading],
) -> Column:
    """The column of an answer, with words of ours where it has no text; `parts`: how each other differs from the reference, in the end."""
    name, text = completion.variant, completion.text
    marked, said = [Piece(text)], ""
    if name in parts:
        first = update.completions[reference]
        marked = parts[name].pieces
        said = in_words(parts[name], views[reference].name, shared_tokens(first.token_ids, completion.token_ids))
    elif parts and name == reference:
        marked = pieces(Words.of(text), in_all(list(parts.values())), {one.point for one in parts.values()})
        said = f"The others are compared with {views[name].name}."
    shown = marked if text else ()
    formatted = rendered(text) if update.done and text else None
    return Column(views[name], shown, silent(completion, update), said, completion, read.get(name), formatted)


def silent(completion: Completion, update: Update) -> str:
    """Words of ours where an answer has no text."""
    if completion.text:
        return ""
    if update.read is not None and completion.finish_reason is None:
        return f"Reading the prompt: {update.read:.0%}."
    return WAITING if update.phase == "waiting" else SILENT.get(completion.finish_reason, NO_TEXT)


def begun(update: Update, views: Mapping[str, VariantView], request: CompareRequest) -> Markup:
    """The columns of a request that runs. What is in them comes by `live`, so that an update need not bring all of it again."""
    read = readings(update, views, request)
    columns = [
        Column(views[name], silent=READING, completion=Completion(name, "", 0, None, None, None), reading=read.get(name))
        for name in update.completions
    ]
    return running_columns(columns)


def waiting(chosen: Iterable[VariantView], words: str) -> Markup:
    """The columns before the model has begun."""
    return running_columns([Column(view, silent=words) for view in chosen])


def running_columns(columns: Sequence[Column]) -> Markup:
    """Columns in which nothing is compared yet."""
    return render("compare/answers.html", columns=columns, reference=None, asked=None, apart=False, batch="", recording=None)


def live(update: Update, views: Mapping[str, VariantView]) -> dict[str, object]:
    """What stands in the columns of `begun` now, as plain text for answers.js, and what is said of all of them."""
    columns = [
        {
            "text": faithful(completion.text),
            "silent": silent(completion, update),
            "running": completion.finish_reason is None,
            "figures": list(figures(completion).values()),
        }
        for completion in update.completions.values()
    ]
    return {"columns": columns, "batch": batch(update, views)}


def figures(completion: Completion) -> dict[str, str]:
    """Name of each figure of one answer -> what it is, in words."""
    return {"New tokens": str(completion.tokens), "Ended": ENDED[completion.finish_reason]}


def batch(update: Update, views: Mapping[str, VariantView]) -> str:
    """How long it took, which is of all answers together; nothing before the first token. Memory tells how a prompt was read: not if blind."""
    completions = list(update.completions.values())
    started = [one.seconds_to_first_token for one in completions if one.seconds_to_first_token is not None]
    if not started or any(views[one.variant].hidden for one in completions):
        return ""
    speed = max(completions, key=lambda one: one.tokens).tokens_per_second
    said = f"First token after {max(started):.2f} s" + ("" if speed is None else f", then {speed:.1f} tokens/s")
    if len(completions) > 1:
        said += " in each" if speed is not None else ""
        said += f". All {len(completions)} answers come out of one batch: these are its figures, not those of a variant alone"
    known = [views[one.variant].name for one in completions if one.from_memory]
    if known:
        who = "The prompt" if len(known) == len(completions) else f"For {', '.join(known)} the prompt"
        said += f". {who} came from memory, as it had been read before"
    return f"{said}."


def prompts(update: Update, views: Mapping[str, VariantView]) -> Markup:
    """The very text each variant read; once, where all read the same."""
    groups: dict[tuple[str, int], list[VariantView]] = {}
    for name, prompt in update.prompts.items():
        groups.setdefault((prompt, update.prompt_tokens[name]), []).append(views[name])
    return render("compare/prompts.html", groups=[(who, prompt, tokens) for (prompt, tokens), who in groups.items()])
