"""Results -> HTML. Pure: no gradio, no model. All text that is not ours goes through `faithful` or `escape`."""

from collections.abc import Iterable, Mapping
from datetime import date
from html import escape

from app.ui.differences import difference, in_words
from app.ui.figures import passes_icon, way_of_a_prompt
from app.ui.variants import VariantView
from bitune.schema.results import BaseFacts, CheckpointFacts, Completion, Update

ENDED = {
    None: "still writing",
    "eos": "by itself",
    "length": "at the limit of new tokens",
    "stop": "at a stop text",
    "cancelled": "by you",
}
# Control characters have no shape of their own and some swallow their neighbours: they are shown as their Unicode pictures.
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
SENTENCE = (
    "A language model reads your prompt once, left to right. Bitune reads it <em>twice</em>: left to right, and again with every "
    "word seeing every other. It mixes the two readings, and answers from the mix."
)


def faithful(text: str) -> str:
    """Model text as HTML that shows exactly this text and runs nothing."""
    return escape(text.translate(CONTROL_PICTURES))


def chip(view: VariantView) -> str:
    """Colour and name of a variant, the same wherever it appears."""
    hollow = " bt-what-if" if view.what_if else ""
    return f'<span class="bt-chip bt-v{view.colour}{hollow}"><i></i>{escape(view.name)}</span>'


def chosen_colours(views: Mapping[str, VariantView]) -> str:
    """The colours of what-ifs where variants are chosen; the others have theirs from style.css, by place."""
    places = [(place, view) for place, view in enumerate(views.values(), 1) if view.what_if]
    rules = "".join(
        f"#bt-variants label:nth-of-type({place}){{--bt-own:var(--bt-{view.colour});--bt-turn:45deg;--bt-round:2px}}"
        for place, view in places
    )
    return f"<style>{rules}</style>"


def head(base: BaseFacts, checkpoints: Mapping[str, CheckpointFacts], views: Mapping[str, VariantView]) -> str:
    """Name, one sentence, the picture, and what is loaded."""
    facts = (
        escape(base.name),
        f"{amount(base.parameters)} parameters",
        f"{base.layers} layers",
        escape(f"{base.device}, {base.dtype}"),
    )
    loaded = "".join(f"<li>{chip(views[name])} {checkpoint(facts)}</li>" for name, facts in checkpoints.items())
    none = "<li>No checkpoint is loaded, so only the base can answer. Start with <code>--checkpoint DIR</code> to add one.</li>"
    return (
        f'<header class="bt-head"><div><h1>Bitune</h1><p class="bt-sentence">{SENTENCE}</p></div>{way_of_a_prompt()}</header>'
        f'<details class="bt-loaded"><summary><span>Loaded</span> {" · ".join(facts)} · {count(len(checkpoints), "checkpoint")}</summary>'
        f"<ul>{loaded or none}</ul></details>"
    )


def checkpoint(facts: CheckpointFacts) -> str:
    """What a checkpoint says about itself, in one line."""
    parts = [facts.method.replace("_", " "), facts.peft_kind, f"{amount(facts.trainable_parameters)} trained parameters"]
    return escape(" · ".join(parts))


def amount(number: int) -> str:
    """A large number as people say it: 134,515,008 is 135M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def count(number: int, thing: str) -> str:
    """`3 checkpoints`, `1 checkpoint`, `no checkpoint`."""
    return f"{number or 'no'} {thing}{'s' if number > 1 else ''}"


def answers(update: Update, views: Mapping[str, VariantView], note: str = "") -> str:
    """One column a variant; differing words are marked once all is written."""
    first, *others = update.completions.values()
    columns = [
        column(first, views[first.variant], faithful(first.text), compared_with_first(first, others) if update.done else "")
    ]
    for completion in others:
        found = difference(first.text, completion.text) if update.done else None
        pieces = found.pieces if found else ((completion.text, False),)
        body = "".join(f"<mark>{faithful(text)}</mark>" if marked else faithful(text) for text, marked in pieces)
        columns.append(
            column(completion, views[completion.variant], body, escape(in_words(found, first.variant)) if found else "")
        )
    return grid(columns, note)


def compared_with_first(first: Completion, others: Iterable[Completion]) -> str:
    """The line below the first answer, where the others have their difference."""
    return f"The others are compared with {escape(first.variant)}." if list(others) else ""


def grid(columns: list[str], note: str = "") -> str:
    """Columns side by side, stacked where the screen is narrow."""
    return f'{note}<div class="bt-answers" style="--columns:{len(columns)}">{"".join(columns)}</div>'


def column(completion: Completion, view: VariantView, body: str, difference_line: str) -> str:
    """One answer: who, what it wrote, how it differs, the figures."""
    running = completion.finish_reason is None
    if not body and not running:
        body = '<span class="bt-silent">No text: the first token already ended the answer.</span>'
    return (
        f'<article class="bt-answer bt-v{view.colour}">{title(view)}'
        f'<div class="bt-text{" bt-running" if running else ""}" dir="auto">{body}</div>'
        f'<p class="bt-difference">{difference_line}</p>{figures(completion)}</article>'
    )


def title(view: VariantView) -> str:
    """Name, picture of the passes and what the variant does."""
    return f'<h3>{chip(view)}{passes_icon(view.passes)}</h3><p class="bt-about">{escape(view.about)}</p>'


def figures(completion: Completion) -> str:
    """The numbers below an answer."""
    first, speed = completion.seconds_to_first_token, completion.tokens_per_second
    rows = (
        ("New tokens", str(completion.tokens)),
        ("First token", "–" if first is None else f"{first:.2f} s"),
        ("Speed", "–" if speed is None else f"{speed:.1f} tokens/s"),
        ("Ended", ENDED[completion.finish_reason]),
    )
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in rows)}</dl>"


def waiting(chosen: Iterable[VariantView], sentence: str) -> str:
    """The columns before the first token."""
    body = f'<div class="bt-text bt-running"><span class="bt-silent">{escape(sentence)}</span></div>'
    return grid([f'<article class="bt-answer bt-v{view.colour}">{title(view)}{body}</article>' for view in chosen])


def problem(sentence: str) -> str:
    """What went wrong, where the answers would be."""
    return f'<p class="bt-problem" role="alert">{escape(sentence)}</p>'


def empty(sentence: str) -> str:
    """Words where answers will be."""
    return f'<p class="bt-empty">{escape(sentence)}</p>'


def recorded_note(base: str, day: date) -> str:
    """Says that what stands below was not computed now."""
    return (
        f'<p class="bt-recorded"><b>Recorded</b> These answers were computed earlier, with {escape(base)}, on {day.day} {day:%B %Y}. '
        "Nothing has run yet: press Run to compute them here.</p>"
    )


def prompts(update: Update, views: Mapping[str, VariantView]) -> str:
    """The very text each variant read; once, where all read the same."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, prompt in update.prompts.items():
        groups.setdefault((prompt, update.prompt_tokens[name]), []).append(name)
    blocks = []
    for (prompt, tokens), names in groups.items():
        who = " ".join(chip(views[name]) for name in names)
        blocks.append(
            f'<p class="bt-who">{who} {count(tokens, "token")}</p><div class="bt-text" dir="auto">{faithful(prompt)}</div>'
        )
    return f'<div class="bt-prompts">{"".join(blocks)}</div>'
