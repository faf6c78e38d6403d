"""What happens in the tab Attention, without the page: requests go in, plain values for the browser come out. Knows no gradio.

Errors are raised; app/ui/frame.py turns them into sentences.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.attention import bertviz, maps
from app.attention.request import MAX_TOKENS, AttentionRequest, FrameQuestion, HeadQuestion, LayerQuestion, Link
from app.attention.store import RESULT_BYTES, STORE_BYTES, AttentionResult, AttentionStore
from app.ui.admission import Admission
from app.ui.api_types import AttentionAnswer, Template, WhatIfValue
from app.ui.characters import Spread, spread_characters
from app.ui.checks import shown, whole
from app.ui.latest_run import LatestRun
from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.validation import checked
from app.ui.variants import views_of, with_what_ifs
from app.ui.work import work_of
from bitune.errors import ConfigError, PromptError
from bitune.schema.results import AttentionMaps

MAX_NUMBERS = 2_000_000  # in one answer to a program: about 15 MB of JSON
WAITING = {"words": "Reading."}
QUESTION = "The page's question"
OTHER_TEXT = (
    "{} and {} read different texts around this prompt, so their maps cannot be laid on each other; choose one template for both."
)
NO_SUCH_MAP = "The link opens layer {}, head {}; this base has layers 0 to {} and heads 0 to {}."


@dataclass(frozen=True)
class Screen:
    """What the part of the tab shows that lives in the browser: `value` is plain JSON."""

    value: Mapping[str, object]
    running: bool = False


class AttentionHandlers(OnEngine):
    """The events of Attention on one engine: `frame.ModelHandlers`, and what the browser asks for by itself."""

    def __init__(self, engine, admission: Admission | None = None, max_bytes: int = STORE_BYTES):
        super().__init__(engine, admission)
        self.store = AttentionStore(self.compute, max_bytes)

    @property
    def layers(self) -> int:
        """Layers of the base."""
        return self.engine.base_facts.layers

    def first_mixing(self, names: Iterable[str]) -> str | None:
        """The first of these variants that mixes, if any does: the one to look at first."""
        variants = self.engine.variants if self.loading.ready else {}
        return next((name for name in names if name in variants and variants[name].mixing), None)

    def first_choice(self) -> str | None:
        """The variant to begin with: one that mixes, else the last; None while it is not known what they do."""
        if not self.loading.ready:
            return None
        return self.first_mixing(self.engine.variants) or list(self.engine.variants)[-1]

    def chosen_first(self, run: LatestRun) -> str:
        """The variant of a run in Compare to look at first: one that mixes, else the first column."""
        return self.first_mixing(run.answers) or next(iter(run.answers))

    def answer_beside(self, taken: LatestRun | None, variant: str, prompt: str, answer: str) -> str:
        """The answer to put beside another variant: its own, unless the fields no longer hold what was taken from Compare."""
        if taken is None or prompt != taken.prompt or answer not in taken.answers.values():
            return answer
        return taken.answers.get(variant, "")

    def waiting(self, words: str) -> Screen:
        """While the engine is loading, or others come first."""
        return Screen({"words": words}, running=True)

    def work(self, variant: object, what_ifs: Mapping[str, Mapping] | None = None, beside: str = "", **asked: object) -> Work:
        """What a run or a call of /attention asks of the model; raises what is wrong with it. `asked`: layer and head count nothing."""
        fields = {name: value for name, value in asked.items() if name in ("prompt", "template", "answer")}
        request = self.request(variant, what_ifs, **fields)
        work, other = self.work_of_request(request), self.other(request, beside, what_ifs, fields)
        if other is None:
            return work
        return replace(work, passes=work.passes + self.work_of_request(other).passes)

    def request(self, variant: object, what_ifs: Mapping[str, Mapping] | None, **fields: object) -> AttentionRequest:
        """What was asked; `variant` is None where Read was pressed before it was known which one to begin with."""
        variant = self.first_choice() if variant is None else variant
        return AttentionRequest(variant=variant, **fields, what_ifs=what_ifs)

    def other(
        self, request: AttentionRequest, beside: object, what_ifs: Mapping[str, Mapping] | None, fields: Mapping[str, object]
    ) -> AttentionRequest | None:
        """The same of the variant beside it; None where none is chosen, ConfigError where that one reads another text."""
        if beside in ("", None, request.variant):
            return None
        other = self.request(beside, what_ifs, **fields)
        if self.prompt_ids(request) != self.prompt_ids(other):
            raise ConfigError(OTHER_TEXT.format(shown(request.variant), shown(other.variant)))
        return other

    def prompt_ids(self, request: AttentionRequest) -> tuple[int, ...]:
        """The tokens that are read."""
        return self.engine.prompt_ids(request.prompt, request.source, template=request.template)

    def work_of_request(self, request: AttentionRequest) -> Work:
        """Its passes, and one more over prompt and answer."""
        tokens = self.checked_tokens(request)
        work = work_of(self.engine, request.prompt, [request.variant], request.template, request.what_ifs)
        return Work(tokens, work.passes + 1)

    def work_of_question(self, kind: type[LayerQuestion], question: dict) -> Work | None:
        """What the browser's question about a result asks of the model; None where its layers were computed before."""
        asked = checked(kind, question, QUESTION)
        result = self.store.get(asked.key)
        return self.work_of_request(result.request) if self.missing(result, self.layers_of(asked)) else None

    def layers_of(self, asked: LayerQuestion) -> range:
        """The layers that a question is about; ConfigError where the base has no such layer."""
        last = asked.until if isinstance(asked, HeadQuestion) and asked.until is not None else asked.layer
        return range(self.checked_layer(asked.layer), self.checked_layer(last) + 1)

    def missing(self, result: AttentionResult, layers: Iterable[int]) -> list[int]:
        """Those of these layers that are not kept."""
        return [layer for layer in layers if not self.store.has(result, layer)]

    def announce(self, **fields: object) -> Screen:
        """At once after Read: the request may have to wait for others."""
        return Screen(WAITING, running=True)

    def run(
        self, variant: object, what_ifs: Mapping[str, Mapping] | None = None, beside: str = "", **fields: object
    ) -> Iterator[Screen]:
        """Run the passes once; the overview, with the picture of the head to open first. `what_ifs` as plain values.

        Under `beside` is the same of the variant of that name, with the same head.
        """
        request = self.request(variant, what_ifs, **fields)
        other = self.other(request, beside, what_ifs, fields)
        value = self.read(request, what_ifs or {})
        if other is not None:
            value["beside"] = self.read(other, what_ifs or {}, value["opened"])
        yield Screen(value)

    def read(
        self, request: AttentionRequest, what_ifs: Mapping[str, Mapping], opened: Mapping[str, int] | None = None
    ) -> dict[str, object]:
        """What the browser gets of one variant: all but the picture stays as it is whatever is opened; by default the most telling head."""
        tokens = self.checked_tokens(request)
        all_bytes = 2 * 2 * self.layers * self.engine.base_facts.heads * tokens**2  # two passes of float16
        if all_bytes <= RESULT_BYTES:
            computed = self.compute(request, range(self.layers))
        elif opened:
            computed = self.compute(request, [opened["layer"]])
        else:
            computed = self.runner.opened(request.prompt, request.variant, maps.first_layer, **options_of(request))
        spread = self.spread(request, computed)
        result = self.store.add(request, computed, maps.labels(computed.tokens, spread))
        overview = maps.overview(computed, spread)
        opened = opened or overview["opened"]
        picture = maps.picture(self.store.layer(result, opened["layer"]), opened["layer"], opened["head"])
        return {"key": result.key, "variant": self.view(request.variant, what_ifs), **overview, "picture": picture}

    def spread(self, request: AttentionRequest, computed: AttentionMaps) -> list[Spread]:
        """The characters of prompt and answer that several tokens make."""
        tokenizer = self.engine.base.tokenizer
        ids = [*self.prompt_ids(request), *tokenizer(request.answer, add_special_tokens=False).input_ids]
        return spread_characters(ids, computed.tokens, tokenizer.decode)

    def finish(self, latest: Screen) -> Screen:
        """After passes that were stopped; nothing is kept of them."""
        return Screen({"words": "Stopped."})

    def failed(self, words: str) -> Screen:
        """Instead of maps."""
        return Screen({"problem": words})

    def checked_tokens(self, request: AttentionRequest) -> int:
        """Tokens of prompt and answer; PromptError where they are too many for this tab."""
        tokens = len(self.prompt_ids(request))
        # Not as a prompt: a model may write signs that no prompt may hold.
        tokens += len(self.engine.base.tokenizer(request.answer, add_special_tokens=False).input_ids)
        if tokens > MAX_TOKENS:
            raise PromptError(
                f"Prompt and answer have {tokens:,} tokens; maps are drawn for up to {MAX_TOKENS:,}, so shorten them."
            )
        return tokens

    def compute(self, request: AttentionRequest, layers: Sequence[int]) -> AttentionMaps:
        """Run the model."""
        return self.runner.attention(request.prompt, request.variant, list(layers), **options_of(request))

    def view(self, name: str, what_ifs: Mapping[str, Mapping]) -> dict[str, object]:
        """How the variant is called and coloured."""
        view = with_what_ifs(views_of(self.engine), what_ifs)[name]
        return {"name": name, "about": view.about, "colour": view.colour}

    def kept(self, question: LayerQuestion) -> AttentionMaps:
        """The maps that a question is about; ConfigError where they are gone or have no such layer."""
        result = self.store.get(question.key)
        return self.store.layer(result, self.checked_layer(question.layer))

    def checked_layer(self, layer: object) -> int:
        """`layer` where the base has it, else ConfigError."""
        if type(layer) is not int or not 0 <= layer < self.layers:
            raise ConfigError(f"There is no layer {shown(layer)}; this base has layers 0 to {self.layers - 1}.")
        return layer

    def look(self, link: Link) -> tuple[dict[str, object], list[str]]:
        """What look.js takes of a link, and a sentence for what is not here; what is not known yet look.js looks at when it is."""
        look, words = link.model_dump(exclude={*AttentionRequest.__dataclass_fields__, "beside"}, exclude_none=True), []
        facts = self.engine.base_facts if self.loading.ready else None
        layer, head = max(look.get("layer", 0), look.get("until", 0)), look.get("head", 0)
        if facts and (layer >= facts.layers or head >= facts.heads):
            words.append(NO_SUCH_MAP.format(layer, head, facts.layers - 1, facts.heads - 1))
            look = {name: value for name, value in look.items() if name not in ("layer", "until", "head")}
        return look, words

    def picture(self, question: dict) -> dict[str, object]:
        """Another layer or head of a result, as HeadQuestion; head None for the mean."""
        asked = checked(HeadQuestion, question, QUESTION)
        maps.check_head(asked.head, self.engine.base_facts.heads)
        if asked.until is not None:
            return self.mean_picture(asked)
        return maps.picture(self.kept(asked), asked.layer, asked.head)

    def mean_picture(self, asked: HeadQuestion) -> dict[str, object]:
        """The mean over all heads of several layers; ConfigError where those not kept are too large to be computed at once."""
        result, layers = self.store.get(asked.key), self.layers_of(asked)
        missing, most = self.missing(result, layers), RESULT_BYTES * len(result.maps.layers) // maps.size(result.maps)
        if len(missing) > most:
            raise ConfigError(f"A mean over {len(layers)} layers of so long a prompt is too large; choose up to {max(most, 1)}.")
        computed = self.compute(result.request, missing) if missing else None
        return maps.mean_picture((layer, computed if layer in missing else self.store.layer(result, layer)) for layer in layers)

    def arrays(self, question: dict) -> dict[str, object]:
        """All heads of one layer of a result, as LayerQuestion: a file."""
        asked = checked(LayerQuestion, question, QUESTION)
        content = b64encode(maps.arrays(self.kept(asked), asked.layer)).decode("ascii")
        return {"name": f"attention-layer-{asked.layer}.safetensors", "data": content}

    def frame(self, question: dict) -> dict[str, object]:
        """A BertViz document, as FrameQuestion: {html, words}, or words that say why there is none."""
        asked = checked(FrameQuestion, question, QUESTION)
        kept, labels = self.kept(asked), self.store.get(asked.key).labels
        maps.check_head(asked.head, self.engine.base_facts.heads)
        return bertviz.frame(kept, labels, asked.view, asked.pass_name, bertviz.Look(asked.layer, asked.head, asked.dark))

    def attention(
        self,
        prompt: str,
        variant: str,
        layer: int = 0,
        head: int | None = None,
        answer: str = "",
        template: Template = "own",
        what_ifs: dict[str, WhatIfValue] | None = None,
    ) -> AttentionAnswer:
        """What the tokens of a prompt attend to in one layer, in each reading of the prompt that a variant makes.

        Args:
            prompt: What the model reads.
            variant: Name of the variant that reads it.
            layer: Which layer, counted from 0.
            head: Which head, counted from 0; all heads of the layer if left out.
            answer: A text whose tokens attend too, after the prompt; may be empty.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            what_ifs: More variants of this request alone, as /compare takes them: {name: {"of": ..., "keys": [...], "values": [...]}}.

        Returns:
            tokens; passes: for every reading, [heads][query][key] over all prompt tokens but the last; answer: [heads][query][key] of
            the last prompt token and the answer, on the mixed cache and on the first reading's alone; summaries: per reading and measure
            [layers][heads]; moved_keys and moved_values: how far mixing moved the cache, [layers][tokens].
        """
        request = AttentionRequest(prompt=prompt, variant=variant, template=template, answer=answer, what_ifs=what_ifs)
        layer, head, heads = self.checked_layer(whole(layer)), whole(head), self.engine.base_facts.heads
        tokens = self.checked_tokens(request)
        maps.check_head(head, heads)
        numbers = 4 * (heads if head is None else 1) * tokens**2
        if numbers > MAX_NUMBERS:
            raise ConfigError(f"All heads of {tokens} tokens are about {numbers:,} numbers; ask for one head.")
        computed = self.compute(request, [layer])
        return {
            "variant": variant,
            "template": template,
            "base": self.engine.base_facts.name,
            **maps.plain(computed, layer, head),
        }


def options_of(request: AttentionRequest) -> dict[str, object]:
    """Everything but prompt and variant: the keyword arguments of Engine.attention."""
    return {"template": request.template, "answer": request.answer, "what_ifs": request.what_ifs}
