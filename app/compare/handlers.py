"""What happens in Compare, without the page: requests go in, screens come out. Knows no gradio; errors are raised.

Only plain values pass through here, so that on a ZeroGPU Space the model may live in another process.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from types import MappingProxyType

from pydantic import TypeAdapter

from app.compare import html
from app.compare.link import Conversation
from app.compare.origin import not_looked_into
from app.compare.recorded import Recording, recording_of
from app.compare.request import CompareRequest
from app.compare.screen import Screen, arranged, columns, ended, is_blind
from app.ui.admission import Admission
from app.ui.api_types import CompareAnswer, Earlier, Template, TurnValue, WhatIfValue
from app.ui.checks import not_here
from app.ui.examples import EXAMPLES
from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.templates import empty, problem
from app.ui.variants import VariantView, in_order, views_of, with_what_ifs
from app.ui.what_ifs import read
from app.ui.work import work_of
from app.votes.blind import hidden_views, shuffled
from app.why.look import Wish
from bitune.schema.conversation import RECOMPUTE
from bitune.schema.generation import GenerationSettings

NO_WHAT_IFS: Mapping[str, Mapping] = MappingProxyType({})
REQUEST = TypeAdapter(CompareRequest)
FROM_LINK = "The conversation comes from the link. Press Ask to see the answers to its last question."
NOT_ANSWERED = "Stopped before the first token."
NO_TURNS = "No variant that is loaded here has answered every turn of the link's conversation, so it is left out."
NOTHING_YET = (
    "Nothing has run yet. Write a prompt or take an example, then press Run: each chosen variant answers in a column of its own."
)


class CompareHandlers(OnEngine):
    """The events of Compare on one engine: `frame.ModelHandlers`, and what the other buttons do."""

    def __init__(self, engine, recordings: Mapping[str, Recording], admission: Admission | None = None):
        super().__init__(engine, admission)
        self.recordings = recordings

    @property
    def views(self) -> dict[str, VariantView]:
        """How each variant of the engine is called and coloured."""
        return views_of(self.engine)

    def first_screen(self) -> Screen:
        """What stands there before anything was computed."""
        return self.example(EXAMPLES[0].key)

    def example(self, key: str) -> Screen:
        """The recorded answers to an example, or words where there are none."""
        recording = self.recordings.get(key)
        if recording is None:
            return Screen(empty(NOTHING_YET))
        update, views = recording.update, recording.views
        answers = html.answers(update, views, recording.request, recording=recording)
        return Screen(
            answers, html.prompts(update, views), recording=recording, reference=html.first_with_text(update.completions)
        )

    def opened(self, recording: Recording, words: Sequence[str]) -> Screen:
        """A run that was saved, and `words` on what of it is not here; Attention may take its answers, as those of a run of this page."""
        update, views, request = recording.update, recording.views, recording.request
        answers = html.answers(update, views, request, recording=recording, words=words)
        prompts = html.prompts(update, views)
        made_of = {"recording": recording, "words": words, "reference": html.first_with_text(update.completions)}
        return Screen(answers, prompts, False, update, request, views, **made_of)

    def not_looked_into(self, recording: Recording) -> str:
        """Why nothing can be computed for recorded answers, in a sentence or two; empty where it can."""
        engine = self.engine if self.loading.ready else None
        return not_looked_into(recording, engine, self.admission.limits.new_tokens)

    def linked(self, talk: Conversation, what_ifs: Mapping[str, Mapping], **sampling: object) -> tuple[Screen | None, list[str]]:
        """A conversation that a link has brought, whose last question is not answered yet, and what of it is not here.

        Args:
            talk: What the link says.
            what_ifs: This visitor's, those of the link among them.
            sampling: Length and sampling.

        Returns:
            None where none of its variants is here and has answered every turn; and sentences.
        """
        here = [*self.names, *what_ifs]
        known = [name for name in talk.variants if name in here]
        variants = [name for name in known if all(name in turn.answers for turn in talk.turns)]
        words = not_here(name for name in talk.variants if name not in here)
        if not variants:
            return None, [*words, NO_TURNS]
        request = CompareRequest(
            prompt=talk.question,
            variants=variants,
            template=talk.template,
            what_ifs={name: what_ifs[name] for name in variants if name in what_ifs},
            history=[{"prompt": turn.prompt, "answers": {name: turn.answers[name] for name in variants}} for turn in talk.turns],
            earlier=talk.earlier,
            **sampling,
        )
        views = with_what_ifs(self.views, what_ifs) if self.loading.ready else {}
        return Screen(empty(FROM_LINK), request=request, views=views), words

    def compared_with(self, shown: Screen, place: object) -> Screen:
        """The same answers, the others compared with the one in the column at this place; as it is where there is no such column."""
        kept = shown if shown.recording is None else shown.recording
        names = [] if shown.running or kept.update is None else list(kept.update.completions)
        if type(place) is not int or not 0 <= place < len(names):
            return shown
        views = hidden_views(names) if shown.blind else kept.views
        answers = html.answers(kept.update, views, kept.request, names[place], shown.recording, shown.words)
        return replace(shown, answers=answers, reference=names[place])

    def recording_of(self, screen: Screen) -> Recording | None:
        """What is on the screen, as it is saved, with the time at which it was computed; None where `Screen.not_saved` says why not."""
        if screen.recording is not None or screen.not_saved:
            return screen.recording
        return recording_of(self.engine, screen.request, screen.views, screen.update, screen.finished)

    def waiting(self, words: str) -> Screen:
        """While the engine is loading, or others come first."""
        return Screen(empty(words), running=True)

    def work(
        self,
        variants: Sequence[str] | None,
        what_ifs: Mapping | None = NO_WHAT_IFS,
        blind: bool = False,
        reference: str | None = None,
        wish: Wish | None = None,
        **asked: object,
    ) -> Work:
        """What a run or a call of /compare asks of the model; raises what is wrong with it."""
        request = CompareRequest(
            variants=self.all_variants(what_ifs) if variants is None else variants, what_ifs=what_ifs, **asked
        )
        settings = GenerationSettings(request.max_new_tokens, request.temperature, request.top_p, request.seed)
        read_first = (request.prompt, request.variants, request.template, read(request.what_ifs))
        how = {"history": request.history, "earlier": request.earlier}
        return work_of(self.engine, *read_first, settings.max_new_tokens, **how)

    def all_variants(self, what_ifs: object) -> list[str]:
        """Those of the engine, and the what-ifs of a request."""
        return [*self.engine.variants, *read(what_ifs)]

    def announce(
        self, variants: Sequence[str], what_ifs: Mapping[str, Mapping] = NO_WHAT_IFS, blind: bool = False, **options: object
    ) -> Screen:
        """At once after Run: the request may have to wait for others."""
        views = with_what_ifs(self.views, what_ifs)
        order = [name for name in in_order(variants, views) if name in views]
        return Screen(html.waiting(columns(order, views, is_blind(blind, order)), html.WAITING), running=True)

    def run(
        self,
        prompt: object,
        variants: Sequence[str],
        what_ifs: Mapping[str, Mapping] = NO_WHAT_IFS,
        blind: bool = False,
        reference: str | None = None,
        wish: Wish | None = None,
        **options: object,
    ) -> Iterator[Screen]:
        """All chosen variants answer together; where `blind`, in shuffled columns without names, and compared with the first of these."""
        views = with_what_ifs(self.views, what_ifs)
        request = CompareRequest(prompt=prompt, variants=in_order(variants, views), what_ifs=what_ifs, **options)
        blind = is_blind(blind, request.variants)
        reference = None if blind else reference
        order = shuffled(request.variants) if blind else request.variants
        known = columns([name for name in order if name in views], views, blind)
        yield Screen(html.waiting(known, html.READING), running=True)
        with closing(self.runner.stream(request.prompt, list(request.variants), **request.options)) as updates:
            begun = None
            for update in updates:
                update = arranged(update, order)
                begun = begun or html.begun(update, hidden_views(order) if blind else views, request)
                if not update.done:
                    so_far = {
                        "update": update,
                        "request": request,
                        "views": views,
                        "blind": blind,
                        "reference": reference,
                        "wish": wish,
                    }
                    yield Screen(begun, running=True, **so_far)
        yield ended(request, update, views, blind, reference, wish)

    def finish(self, latest: Screen) -> Screen:
        """After a run that was cancelled: the answers as far as they came."""
        if latest.update is None:
            return Screen(empty(NOT_ANSWERED))
        completions = {
            name: completion if completion.finish_reason else replace(completion, finish_reason="cancelled")
            for name, completion in latest.update.completions.items()
        }
        update = replace(latest.update, completions=completions, done=True)
        return ended(latest.request, update, latest.views, latest.blind, latest.reference, latest.wish)

    def unveiled(self, latest: Screen) -> Screen:
        """The same run with names, in the same order of columns."""
        if not latest.blind or latest.running:
            return replace(latest, unveiled=False)
        shown = ended(latest.request, latest.update, latest.views, reference=latest.reference, wish=latest.wish)
        return replace(shown, run_id=latest.run_id, finished=latest.finished, unveiled=True)

    def failed(self, words: str) -> Screen:
        """Instead of answers."""
        return Screen(problem(words))

    def compare(
        self,
        prompt: str,
        variants: list[str] | None = None,
        template: Template = "own",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        what_ifs: dict[str, WhatIfValue] | None = None,
        history: list[TurnValue] | None = None,
        earlier: Earlier = RECOMPUTE,
    ) -> CompareAnswer:
        """Answer one prompt with several variants of one language model: the base, and the Bitune and LoRA checkpoints on it.

        Args:
            prompt: What the model reads.
            variants: Names of the variants to run; all that are loaded if left out.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            max_new_tokens: Most tokens to write, at least 1 and at most what the page was started with as --new-tokens, 512 by default.
            temperature: 0 takes the likeliest token each time; above 0 tokens are drawn, the same draws for every variant.
            top_p: Share of the probability to draw from, above 0 and up to 1.
            seed: Start of the random draws.
            what_ifs: More variants of this request alone: Bitune checkpoints mixed by other ratios, as
                {name: {"of": checkpoint, "keys": [one ratio a layer], "values": [one ratio a layer]}}; a ratio goes from 0
                (first, causal reading only) to 1 (second, bidirectional reading only). /mixing has the learned ones.
            history: The turns before, where the prompt goes on with a conversation: a list of {"prompt": question, "answers": {variant:
                text}}, with an answer of every variant that runs. Each variant reads its own.
            earlier: How the turns before are read: "recompute" reads all of it again as one prompt, "alternating" reads each question on
                top of the mixed cache of what was before, and answers from left to right. The paper proposes both and tests neither.

        Returns:
            For every variant its text, tokens, seconds_to_first_token, tokens_per_second, finish_reason and from_memory (the prompt had
            been read before and was not read again); and the prompts as read.
        """
        request = CompareRequest(
            prompt=prompt,
            variants=self.all_variants(what_ifs) if variants is None else variants,
            template=template,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            what_ifs=what_ifs,
            history=history,
            earlier=earlier,
        )
        *_, last = self.runner.stream(request.prompt, list(request.variants), **request.options)
        return {
            "completions": {name: as_json(completion) for name, completion in last.completions.items()},
            "prompts": dict(last.prompts),
            "prompt_tokens": dict(last.prompt_tokens),
            "request": REQUEST.dump_python(request, mode="json"),
            "base": self.engine.base_facts.name,
        }


def as_json(completion) -> dict[str, object]:
    """A completion without the name it stands under already, and without its token ids, which mean nothing without the tokenizer."""
    return {key: value for key, value in asdict(completion).items() if key not in ("variant", "token_ids")}
