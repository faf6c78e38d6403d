"""Whether recorded answers were given by what is loaded here, and if not, what differs. Knows no Gradio."""

from collections.abc import Sequence

from app.compare.recorded import Recording
from app.ui.checks import shown
from bitune.errors import BituneError

PRESS_RUN = "So these recorded answers cannot be looked into; press Run for new ones."
LATER = "Whether these recorded answers can be looked into is known when the model is loaded."


def not_looked_into(recording: Recording, engine, new_tokens: int) -> str:
    """Why nothing can be computed for recorded answers, in a sentence or two; empty where it can.

    It can where the base and the checkpoints here have the weights that gave the answers, and read the very text that was read then.

    Args:
        recording: The answers.
        engine: A bitune.Engine; None while none is there.
        new_tokens: Of the longest answer that this page writes.
    """
    if engine is None:
        return LATER
    for words in not_as_here(recording, engine):
        return f"{words} {PRESS_RUN}"
    longest = max(len(one.token_ids) for one in recording.update.completions.values())
    if longest > new_tokens:
        return f"One of them has {longest:,} tokens, and this page writes at most {new_tokens:,}. {PRESS_RUN}"
    asked = recording.request
    how = {name: asked.options[name] for name in ("template", "what_ifs", "history", "earlier")}
    try:
        read = engine.request(asked.prompt, list(asked.variants), **how).texts
    except BituneError as error:
        return f"{error} {PRESS_RUN}"
    if any(read.get(name) != text for name, text in recording.update.prompts.items()):
        return f"What stands around the prompt is another template here. {PRESS_RUN}"
    return ""


def not_as_here(recording: Recording, engine) -> list[str]:
    """What of a run is not what is loaded here, a sentence each.

    Args:
        recording: The run.
        engine: A bitune.Engine; None while none is there.
    """
    if engine is None:
        return ["No model is loaded here, so its checkpoints could not be compared with any."]
    loaded = engine.checkpoints
    missing = [name for name in recording.checkpoints if name not in loaded]
    others = [
        name
        for name, made_of in recording.checkpoints.items()
        if name in loaded and loaded[name].fingerprint != made_of.fingerprint
    ]
    return [
        *base_differs(recording, engine),
        *([f"Not loaded here: {listed(missing)}."] if missing else []),
        *([f"Of the same name, but with other weights here: {listed(others)}."] if others else []),
    ]


def base_differs(recording: Recording, engine) -> list[str]:
    """A sentence where the base of a run is another than the one here, by hash where both have one, else by some of its weights."""
    from bitune.base.fingerprint import same_weights  # both import torch, and the page opens before that
    from bitune.model.identity import describe

    then, now = recording.base, describe(engine.base)
    hashed = then.sha256 is not None and now.sha256 is not None
    if then.sha256 == now.sha256 if hashed else same_weights(then.fingerprint, now.fingerprint):
        return []
    if then.id != now.id:
        return [f"The base here is another: {shown(now.id)}."]
    return ["The base here has the same name, but other weights."]


def listed(names: Sequence[str]) -> str:
    """Names of somebody else's in a sentence."""
    return ", ".join(map(shown, names))
