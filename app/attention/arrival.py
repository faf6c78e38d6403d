"""Whether Attention reads by itself what comes along from Compare, and if not, why. Knows no gradio."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.attention.handlers import AttentionHandlers
from app.ui.checks import MAX_ANSWER
from app.ui.latest_run import LatestRun
from bitune.errors import BituneError

MAX_TOKENS = 256  # of prompt and answer: a second or two on two cores with the default base, and more is not asked of anybody who only looks
LONG = "This prompt and its answer are long, so nothing was read by itself. Press Read to see what every word of them looks at."


@dataclass(frozen=True)
class Arrival:
    """What coming to the tab does with a run: `reads` it by itself, else says `words`; neither for a run that has not ended."""

    reads: bool
    words: str = ""


def arrival(handlers: AttentionHandlers, run: LatestRun, variant: str, what_ifs: Mapping[str, Mapping]) -> Arrival:
    """What to do with a run that was not here before.

    Args:
        run: In Compare; runs with hidden names never get here.
        variant: Which answer comes along.
        what_ifs: This visitor's.
    """
    if run.id is None:
        return Arrival(False)
    answer = run.answers[variant]
    if len(run.prompt) + len(answer) > MAX_ANSWER:
        return Arrival(False, LONG)
    request = {"prompt": run.prompt, "template": run.template, "answer": answer}
    try:
        tokens = handlers.checked_tokens(handlers.request(variant, what_ifs, **request))
    except BituneError as error:
        return Arrival(False, str(error))
    return Arrival(True) if tokens <= MAX_TOKENS else Arrival(False, LONG)
