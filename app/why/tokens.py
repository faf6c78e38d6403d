"""Token probabilities, and what each variant gives to each answer: requests go in, screens come out. Knows no gradio; errors are raised."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.requests import WAITING, HtmlRequest
from app.ui.templates import empty
from app.ui.validation import checked
from app.ui.work import work_of
from app.why import tokens_html
from app.why.run import Asked, EndedRun
from bitune.errors import ConfigError, UnknownNameError
from bitune.schema.parting import Parting
from bitune.schema.results import Completion, Update

NO_RUN = "There is no run to look into; press Run first."
STOPPED = "Stopped."


@dataclass(frozen=True)
class Screen:
    """What tokens.js draws: `value` is plain JSON, made of what was `found`."""

    value: Mapping[str, object]
    running: bool = False
    found: Parting | None = None


class TokenScores:
    """What every variant gives to every token of the run's answers: `frame.ModelHandlers` on an EndedRun, or None."""

    def __init__(self, on: OnEngine):
        self.on, self.loading, self.admission = on, on.loading, on.admission

    def announce(self, run: EndedRun | None) -> Screen:
        """At once after the button."""
        return self.waiting(WAITING)

    def waiting(self, words: str) -> Screen:
        """While others come first."""
        return Screen({"words": words}, running=True)

    def work(self, run: EndedRun | None) -> Work:
        """The prompts, and every answer once for each variant."""
        return reading_work(self.on, there(run).request, run.answers)

    def run(self, run: EndedRun | None) -> Iterator[Screen]:
        """One look at all answers."""
        request = there(run).request
        found = self.on.runner.part(request.prompt, list(request.variants), run.answers, **run.reading)
        yield self.screen(run, found)

    def screen(self, run: EndedRun, found: Parting) -> Screen:
        """What was found, the answers compared with the run's reference."""
        return Screen(tokens_html.value(found, run, self.on.engine), found=found)

    def finish(self, latest: Screen) -> Screen:
        """After a look that was stopped: nothing is kept of it."""
        return Screen({"words": STOPPED})

    def failed(self, words: str) -> Screen:
        """Instead of the tokens, a sentence."""
        return Screen({"problem": words})


class Alternative(BaseModel):
    """A token that `variant` might say in place of the one at `place`, counted from 0, in the answer of the variant `answer`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    variant: str
    answer: str
    place: int = Field(ge=0)
    token: int = Field(ge=0)


@dataclass(frozen=True)
class GoneOn:
    """What stands below the tokens of an answer that goes on otherwise; `update` and the rest once there is something of it."""

    html: str
    running: bool = False
    words: tokens_html.Beginning | None = None
    completion: Completion | None = None


class GoOn(HtmlRequest[GoneOn, OnEngine]):
    """One variant goes on from a beginning and a token that was clicked: `frame.ModelHandlers` on an EndedRun and an Alternative."""

    screen_type = GoneOn

    def work(self, run: EndedRun | None, chosen: object) -> Work:
        """One variant that reads its prompt and writes."""
        alternative = self.chosen(run, chosen)
        return writing_work(self.on, run.request, alternative.variant, alternative.place + 1)

    def chosen(self, run: EndedRun | None, chosen: object) -> Alternative:
        """The token that was clicked; ConfigError where there is no such place, UnknownNameError where no such variant ran."""
        alternative, run = checked(Alternative, chosen, "The chosen token"), there(run)
        for name, known in ((alternative.answer, run.answers), (alternative.variant, run.request.variants)):
            if name not in known:
                raise UnknownNameError("variant of this run", name, known)
        if alternative.place >= len(run.answers[alternative.answer]):
            raise ConfigError(
                f"The answer of {alternative.answer!r} has no token at place {alternative.place}; choose one of its own."
            )
        return alternative

    def run(self, run: EndedRun | None, chosen: object) -> Iterator[GoneOn]:
        """The answer as it comes."""
        alternative = self.chosen(run, chosen)
        before = run.answers[alternative.answer][: alternative.place]
        begun, request = (*before, alternative.token), run.request
        words = tokens_html.beginning(self.on.engine.base.tokenizer, alternative, before, run.views)
        updates = self.on.runner.go_on(request.prompt, alternative.variant, begun, **request.options)
        with closing(updates):
            for update in updates:
                yield self.screen(words, update[alternative.variant], running=not update.done)

    def screen(self, words: tokens_html.Beginning, completion: Completion, *, running: bool) -> GoneOn:
        """What came of it so far."""
        return GoneOn(tokens_html.gone_on(words, completion, running=running), running, words, completion)

    def finish(self, latest: GoneOn) -> GoneOn:
        """After one that was stopped: what came of it stays."""
        if latest.words is None:
            return GoneOn(empty(STOPPED))
        return self.screen(latest.words, tokens_html.stopped(latest.completion), running=False)


def there(run: EndedRun | None) -> EndedRun:
    """The run; ConfigError where there is none."""
    if run is None:
        raise ConfigError(NO_RUN)
    return run


def reading_work(on: OnEngine, request: Asked, answers: Mapping[str, Sequence[int]]) -> Work:
    """What a look at answers asks of the model, counted in readings of the prompt: all of them once for each variant."""
    options = request.options
    read_first = (request.prompt, list(request.variants), options["template"], options["what_ifs"])
    work = work_of(on.engine, *read_first, history=options["history"])
    behind = sum(map(len, answers.values())) * work.variants
    return Work(work.prompt_tokens, work.passes + -(-behind // work.prompt_tokens), 0, work.variants)


def writing_work(on: OnEngine, request: Asked, variant: str, begun: int) -> Work:
    """What one variant of a request asks of the model that goes on from so many tokens."""
    options = request.options
    read_first = (request.prompt, [variant], options["template"], options["what_ifs"])
    return work_of(on.engine, *read_first, options["max_new_tokens"], begun, options["history"])


def last_of(updates: Iterator[Update]) -> Update:
    """The end of an answer."""
    *_, last = updates
    return last
