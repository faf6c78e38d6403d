"""What happens when a person or a program asks what variants would say after each layer. Knows no gradio; errors are raised."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import plotly.graph_objects as go

from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.requests import HtmlRequest
from app.ui.templates import empty
from app.why.lens_view import lens_chart, lens_html
from app.why.run import EndedRun
from app.why.signs import labelled
from bitune.errors import ConfigError

STOPPED = "Stopped."


@dataclass(frozen=True)
class LensScreen:
    """What stands under the button."""

    html: str
    running: bool = False
    chart: go.Figure | None = None


class LensRequest(HtmlRequest[LensScreen, OnEngine]):
    """What every variant of a run would say after each layer, at one place of one answer."""

    screen_type = LensScreen

    def work(self, run: EndedRun | None, of: str | None, place: int | None) -> Work:
        run, of, place = chosen(run, of, place)
        request = self.on.engine.request(run.request.prompt, variants_of(run), **run.reading)
        return work_of_lens(request.ids, request.variants, place)

    def run(self, run: EndedRun | None, of: str | None, place: int | None) -> Iterator[LensScreen]:
        """All at once."""
        run, of, place = chosen(run, of, place)
        read = self.on.runner.lens(run.request.prompt, variants_of(run), run.answers[of], place, **run.reading)
        followed = label_of(self.on, run.answers[of][place])
        write = partial(labelled, name_of=self.on.engine.base.tokenizer.convert_ids_to_tokens)
        yield LensScreen(lens_html(read, run.views, followed, write), chart=lens_chart(read, run.views))

    def finish(self, latest: LensScreen) -> LensScreen:
        return LensScreen(empty(STOPPED))


def chosen(run: EndedRun | None, of: str | None, place: int | None) -> tuple[EndedRun, str, int]:
    """The run, the variant whose answer is followed, and the place in it; ConfigError where there is no run any more."""
    if run is None:
        raise ConfigError("There is no answer on the page to follow; run a prompt above.")
    of = of if of in run.answers else next(iter(run.answers))
    return run, of, place if place in range(len(run.answers[of])) else 0


def variants_of(run: EndedRun) -> list[str]:
    """All that were asked: the lens shows each of them."""
    return list(run.request.variants)


def work_of_lens(ids, variants, place: int) -> Work:
    """The passes of all variants, and a few tokens on every cache. `ids`, `variants`: of an engine's Request."""
    passes = {one for variant in variants.values() for one in variant.passes}
    return Work(max(map(len, ids.values())) + place + 1, len(passes) + 1)


def tokens_of(on: OnEngine, run: EndedRun, of: str) -> list[tuple[str, int]]:
    """The tokens of an answer as choices: its number and how it is written, and its place."""
    return [(f"{place + 1}: {label_of(on, token)}", place) for place, token in enumerate(run.answers[of])]


def label_of(on: OnEngine, token: int) -> str:
    """How one token of the base is written."""
    tokenizer = on.engine.base.tokenizer
    return labelled(token, tokenizer.decode([token]), tokenizer.convert_ids_to_tokens)


def parting_place(run: EndedRun, of: str) -> int:
    """The first place of an answer at which another one of its run has another token or has ended; 0 where none has."""
    tokens = run.answers[of]
    others = [answer for name, answer in run.answers.items() if name != of]
    return next((at for at in range(len(tokens)) if any(other[at : at + 1] != tokens[at : at + 1] for other in others)), 0)
