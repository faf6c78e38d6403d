"""What happens when a person or a program asks which layers' mixing an answer depends on. Knows no gradio; errors are raised."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import plotly.graph_objects as go

from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.requests import HtmlRequest
from app.ui.templates import empty
from app.why.layers_view import effects_chart, effects_html
from app.why.run import EndedRun
from app.why.signs import Written, written
from bitune.errors import ConfigError, PromptError
from bitune.schema.layers import MixingEffects

MAX_READ = 200_000  # tokens: a few minutes of the default base on two CPU cores
STOPPED = "Stopped before anything was measured."


@dataclass(frozen=True)
class EffectsScreen:
    """What stands under the button; `effects`: what is measured so far; `prompt`: how its tokens are written."""

    html: str
    running: bool = False
    chart: go.Figure | None = None
    effects: MixingEffects | None = None
    prompt: Sequence[Written] = ()


class EffectsRequest(HtmlRequest[EffectsScreen, OnEngine]):
    """How the probability of a variant's own answer changes when one layer, or one prompt token, is mixed otherwise."""

    screen_type = EffectsScreen

    def work(self, run: EndedRun | None, of: str | None) -> Work:
        run, of = asked(run, of)
        return work_of_effects(self.on, run.request.prompt, of, len(run.answers[of]), run.reading)

    def run(self, run: EndedRun | None, of: str | None) -> Iterator[EffectsScreen]:
        """The changes as they are measured."""
        run, of = asked(run, of)
        tokens, tokenizer = prompt_ids(self.on, run, of), self.on.engine.base.tokenizer
        measuring = self.on.runner.mixing_effects(run.request.prompt, of, run.answers[of], **run.reading)
        with closing(measuring):
            for effects in measuring:
                prompt = written(tokens, effects.prompt, tokenizer.decode, tokenizer.convert_ids_to_tokens)
                yield screen_of(effects, prompt, running=effects.measured[0] < effects.measured[1])

    def finish(self, latest: EffectsScreen) -> EffectsScreen:
        """What was stopped keeps what was measured."""
        return (
            EffectsScreen(empty(STOPPED)) if latest.effects is None else screen_of(latest.effects, latest.prompt, running=False)
        )


def asked(run: EndedRun | None, of: str | None) -> tuple[EndedRun, str]:
    """The run and the one of its variants whose mixing is looked at; ConfigError where there is none."""
    mixing = [] if run is None else mixing_of(run)
    if not mixing:
        raise ConfigError("No answer on the page comes of a variant that mixes two readings; run one above.")
    return run, of if of in mixing else mixing[0]


def mixing_of(run: EndedRun) -> list[str]:
    """The variants of a run that mix, in the order of the columns."""
    return [name for name in run.answers if len(run.views[name].passes) == 2]


def prompt_ids(on: OnEngine, run: EndedRun, of: str) -> Sequence[int]:
    """The tokens of the run's prompt as this variant reads them."""
    return on.engine.request(run.request.prompt, [of], **run.reading).ids[of]


def screen_of(effects: MixingEffects, prompt: Sequence[Written], *, running: bool) -> EffectsScreen:
    """What is measured so far. `prompt`: how its tokens are written."""
    return EffectsScreen(effects_html(effects, prompt), running, effects_chart(effects), effects, prompt)


def work_of_effects(on: OnEngine, prompt: object, variant: str, answer: int, reading: Mapping[str, object]) -> Work:
    """Both passes, and the answer once for every change.

    Args:
        answer: Its tokens.
        reading: The arguments of Engine.request that say how the prompt is read.

    Raises:
        PromptError: That is more than this page measures; and what the engine raises.
    """
    tokens = len(on.engine.request(prompt, [variant], **reading).ids[variant])
    read = 2 * tokens + (2 + 4 * on.engine.base_facts.layers + tokens) * answer
    if read > MAX_READ:
        raise PromptError(
            f"A prompt of {tokens:,} tokens and an answer of {answer:,} are {read:,} tokens to read, an answer for each layer and each "
            f"prompt token; this page reads up to {MAX_READ:,}, so shorten one of them."
        )
    return Work(tokens + answer, math.ceil(read / (tokens + answer)))
