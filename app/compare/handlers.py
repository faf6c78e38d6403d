"""What happens on the page, without the page: requests go in, screens come out. Knows no gradio.

Only plain values pass through here, so that on a ZeroGPU Space the model may live in another process.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

from app.compare.recorded import Recording
from app.compare.request import CompareRequest
from app.ui import render
from app.ui.errors import sentence
from app.ui.examples import EXAMPLES
from app.ui.variants import VariantView, in_order, views_of, with_what_ifs
from app.ui.what_ifs import read
from bitune.schema.results import Update

NO_WHAT_IFS: Mapping[str, Mapping] = MappingProxyType({})

NOTHING_YET = (
    "Nothing has run yet. Write a prompt or take an example, then press Run: each chosen variant answers in a column of its own."
)


@dataclass(frozen=True)
class Screen:
    """What Compare shows: two pieces of HTML, whether a run is under way; and, for the other tabs, what was asked and the answers so far.

    `views`: of the variants in `update`; a what-if among them may be gone from the page when they are needed.
    """

    answers: str
    prompts: str = ""
    running: bool = False
    update: Update | None = None
    request: CompareRequest | None = None
    views: Mapping[str, VariantView] = field(default_factory=dict)


class CompareHandlers:
    """The events of Compare on one engine."""

    def __init__(self, engine, recordings: Mapping[str, Recording]):
        self.engine = engine
        self.recordings = recordings
        self.base_name = engine.base_facts.name

    @property
    def views(self) -> dict[str, VariantView]:
        """How each variant of the engine is called and coloured."""
        return views_of(self.engine.variants, self.engine.checkpoints)

    def first_screen(self) -> Screen:
        """What stands there before anything was computed."""
        return self.example(EXAMPLES[0].key)

    def example(self, key: str) -> Screen:
        """The recorded answers to an example, or words where there are none."""
        recording = self.recordings.get(key)
        if recording is None:
            return Screen(render.empty(NOTHING_YET))
        note = render.recorded_note(recording.base, recording.recorded)
        answers = render.answers(recording.update, recording.views, note)
        return Screen(answers, render.prompts(recording.update, recording.views))

    def announce(self, chosen: Sequence[str], what_ifs: Mapping[str, Mapping] = NO_WHAT_IFS) -> Screen:
        """At once after Run: the request may have to wait for others."""
        views = with_what_ifs(self.views, what_ifs)
        known = [views[name] for name in in_order(chosen, views) if name in views]
        return Screen(render.waiting(known, "Waiting for the model: one request runs at a time."), running=True)

    def run(
        self, prompt: object, chosen: Sequence[str], *options: object, what_ifs: Mapping[str, Mapping] = NO_WHAT_IFS
    ) -> Iterator[Screen]:
        """All chosen variants answer together. Ends with a screen that is not running, whatever happens."""
        views = with_what_ifs(self.views, what_ifs)
        try:
            request = CompareRequest(prompt, in_order(chosen, views), *options, what_ifs=what_ifs)
            known = [views[name] for name in request.variants if name in views]
            yield Screen(render.waiting(known, "Reading the prompt."), running=True)
            with closing(self.engine.stream(request.prompt, list(request.variants), **request.options)) as updates:
                for update in updates:
                    yield replace(self.screen(update, views), request=request)
        except Exception as error:
            yield self.refused(error)

    def from_link(self) -> Screen:
        """After a shared link has filled in the fields."""
        return Screen(render.empty("Prompt and settings come from the link. Press Run to see the answers."))

    def from_evidence(self) -> Screen:
        """After a question of the study was put into the prompt."""
        return Screen(render.empty("The question comes from Evidence. Press Run to see the answers."))

    def refused(self, error: Exception) -> Screen:
        """Instead of answers."""
        return Screen(render.problem(sentence(error)))

    def screen(self, update: Update, views: Mapping[str, VariantView]) -> Screen:
        """The answers so far; what was read is shown when all is written, since a disclosure cannot be read while it is redrawn."""
        prompts = render.prompts(update, views) if update.done else ""
        return Screen(render.answers(update, views), prompts, running=not update.done, update=update, views=views)

    def settle(self, latest: Screen) -> Screen:
        """After a run. One that was cancelled keeps the answers as far as they came."""
        if not latest.running:
            return latest
        if latest.update is None:
            return Screen(render.empty("Stopped before the first token."))
        ended = {
            name: completion if completion.finish_reason else replace(completion, finish_reason="cancelled")
            for name, completion in latest.update.completions.items()
        }
        update = replace(latest.update, completions=ended, done=True)
        return replace(self.screen(update, latest.views), request=latest.request)

    def answer(self, prompt: object, variants: object, *options: object, what_ifs: object = None) -> dict[str, object]:
        """For programs: the finished answers as plain JSON; `what_ifs` as in app.ui.what_ifs. Raises."""
        chosen = [*self.engine.variants, *read(what_ifs)] if variants is None else variants
        request = CompareRequest(prompt, chosen, *options, what_ifs=what_ifs)
        *_, last = self.engine.stream(request.prompt, list(request.variants), **request.options)
        return {
            "completions": {name: as_json(asdict(completion)) for name, completion in last.completions.items()},
            "prompts": dict(last.prompts),
            "prompt_tokens": dict(last.prompt_tokens),
            "request": asdict(request),
            "base": self.base_name,
        }


def as_json(completion: dict[str, object]) -> dict[str, object]:
    """A completion without the name it stands under already, and without its token ids, which mean nothing without the tokenizer."""
    return {key: value for key, value in completion.items() if key not in ("variant", "token_ids")}
