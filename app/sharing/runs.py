"""Saved runs that come back: read within limits, and compared with what is loaded here. Knows no Gradio."""

from collections.abc import Sequence

from app.compare.recorded import Recording, from_json
from app.ui.checks import shown
from bitune.errors import DataError

RUN_BYTES = 2**20
"""Of a saved run, below what the page reads of any request (app/limits.py). One of five variants with 512 tokens each has 0.1 MB."""


def open_run(content: object) -> Recording:
    """The run in the text of a file that somebody dropped on the page; DataError where it is none, or too large."""
    if not isinstance(content, str):
        raise DataError(f"A saved run is a text; got {shown(content)}.")
    if len(content) > RUN_BYTES or len(content.encode("utf-8", "surrogatepass")) > RUN_BYTES:
        raise DataError(f"The file is larger than {RUN_BYTES // 2**20} MB, so it is no saved run of this page; choose another.")
    try:
        return from_json(content)
    except DataError as error:
        raise DataError(f"The file is no saved run of this page: {error}. Choose another, or save the run again.") from error


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
