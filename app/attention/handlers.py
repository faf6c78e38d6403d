"""What happens in the tab Attention, without the page: requests go in, plain values for the browser come out. Knows no gradio.

A reading is computed once and kept here under a key that only its page knows; opening another layer or head then asks for one
small picture. The model runs again only for layers of a prompt that was too long to keep them all.
"""

import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from app.attention import bertviz as frames
from app.attention import maps
from app.compare.handlers import Screen
from app.ui.checks import shown, whole
from app.ui.errors import sentence
from app.ui.variants import views_of, with_what_ifs
from app.ui.what_ifs import read as what_ifs_of
from bitune.errors import ConfigError, PromptError
from bitune.schema.results import AttentionMaps
from bitune.schema.variants import WhatIf

MAX_TOKENS = 1024  # a map of more has over a million weights
MAX_CHARACTERS = 24  # of one token, generously: counting the tokens of a megabyte takes seconds
MAX_NUMBERS = 2_000_000  # in one answer to a program: about 15 MB of JSON
KEPT_BYTES = 100 * 2**20  # of one reading with all its layers; a longer prompt keeps only what was opened
STORE_BYTES = 4 * KEPT_BYTES
FORGOTTEN = "This reading is no longer kept here; press Read to compute it again."


@dataclass(frozen=True)
class Asked:
    """What is to be read: the arguments of Engine.attention, layers left out."""

    prompt: str
    variant: str
    template: str = "own"
    answer: str = ""
    what_ifs: Mapping[str, WhatIf] = field(default_factory=dict)

    def __post_init__(self):
        for name, value in (("variant", self.variant), ("answer", self.answer)):
            if not isinstance(value, str):
                raise ConfigError(f"{name} must be text; got {shown(value)}.")
        if len(self.answer) > MAX_TOKENS * MAX_CHARACTERS:
            raise PromptError(f"The answer has {len(self.answer):,} characters; shorten it.")
        if any(0xD800 <= ord(sign) <= 0xDFFF for sign in self.answer):
            raise PromptError("The answer holds half of a surrogate pair, which is not text; remove it.")


@dataclass(frozen=True)
class Offer:
    """What Compare's latest run puts into the fields: the variant to look at first, and everyone's answer."""

    prompt: str
    template: str
    variant: str
    answers: Mapping[str, str]

    @property
    def answer(self) -> str:
        return self.answers[self.variant]


@dataclass
class Reading:
    """What was asked and what came of it: maps by layer, and the summaries with whatever layer was read first."""

    asked: Asked
    maps: AttentionMaps
    more: dict[int, AttentionMaps] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return maps.size(self.maps) + sum(map(maps.size, self.more.values()))


class Readings:
    """The readings of all visitors, the oldest forgotten when they take too much memory."""

    def __init__(self, most_bytes: int = STORE_BYTES):
        self.most_bytes = most_bytes
        self.kept: OrderedDict[str, Reading] = OrderedDict()
        self.lock = Lock()

    def add(self, reading: Reading) -> str:
        """Keep a reading; returns its key, which nobody can guess."""
        key = secrets.token_urlsafe(16)
        with self.lock:
            self.kept[key] = reading
        self.tidy()
        return key

    def get(self, key: object) -> Reading:
        """ConfigError where it is no longer kept."""
        with self.lock:
            reading = self.kept.get(key) if isinstance(key, str) else None
            if reading is None:
                raise ConfigError(FORGOTTEN)
            self.kept.move_to_end(key)
            return reading

    def tidy(self) -> None:
        """Forget the oldest until the rest fits; the last one stays."""
        with self.lock:
            while len(self.kept) > 1 and sum(reading.bytes for reading in self.kept.values()) > self.most_bytes:
                self.kept.popitem(last=False)


def told(method: Callable) -> Callable:
    """The method with its errors as {"problem": a sentence}: what the browser asks for by itself is answered in any case."""

    def answered(self, *arguments, **options) -> dict[str, object]:
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            return {"problem": sentence(error)}

    answered.__name__ = method.__name__
    answered.__doc__ = method.__doc__
    return answered


class AttentionHandlers:
    """The events of Attention on one engine."""

    def __init__(self, engine, readings: Readings | None = None):
        self.engine = engine
        self.readings = readings or Readings()

    @property
    def layers(self) -> int:
        """Layers of the base."""
        return self.engine.base_facts.layers

    def first_choice(self) -> str:
        """The variant to begin with: one that mixes, else the last."""
        variants = self.engine.variants
        return next((name for name, variant in variants.items() if variant.mixing), list(variants)[-1])

    def offer(self, latest: Screen) -> Offer | None:
        """What Compare's latest run brings along, or None where nothing has run."""
        if latest.update is None or latest.request is None:
            return None
        answers = {name: completion.text for name, completion in latest.update.completions.items()}
        mixes = {name for name, variant in self.engine.variants.items() if variant.mixing}
        variant = next((name for name in answers if name in mixes), next(iter(answers)))
        return Offer(latest.request.prompt, latest.request.template, variant, answers)

    def answer_of(self, offer: Offer | None, variant: str, prompt: str, answer: str) -> str:
        """The answer to put beside another variant: its own, unless the fields no longer hold what was offered."""
        if offer is None or prompt != offer.prompt or answer not in offer.answers.values():
            return answer
        return offer.answers.get(variant, "")

    def waiting(self) -> dict[str, object]:
        """At once after Read: the request may have to wait for others."""
        return {"words": "Reading. One request runs at a time, so it may have to wait for others."}

    @told
    def read(self, prompt: object, variant: object, template: object, answer: object, what_ifs=None) -> dict[str, object]:
        """Run the passes once; the overview, with the picture of the head to open first. `what_ifs` as plain values."""
        asked = Asked(prompt, variant, template, answer or "", what_ifs_of(what_ifs))
        reading = self.first_reading(asked)
        seen = maps.overview(reading.maps)
        opened = seen["opened"]
        picture = maps.picture(self.layer_of(reading, opened["layer"]), opened["layer"], opened["head"])
        return {
            "key": self.readings.add(reading),
            "variant": self.view(asked.variant, what_ifs or {}),
            **seen,
            "picture": picture,
        }

    def first_reading(self, asked: Asked) -> Reading:
        """Every layer where they fit into what may be kept, else the summaries alone."""
        tokens = self.checked_tokens(asked)
        everything = 2 * 2 * self.layers * self.engine.base_facts.heads * tokens**2  # two passes of float16
        layers = range(self.layers) if everything <= KEPT_BYTES else []
        return Reading(asked, self.compute(asked, layers))

    def checked_tokens(self, asked: Asked) -> int:
        """Tokens of prompt and answer; PromptError where they are too many for this tab."""
        source = asked.what_ifs[asked.variant].of if asked.variant in asked.what_ifs else asked.variant
        tokens = len(self.engine.prompt_ids(asked.prompt, source, template=asked.template))
        # Not as a prompt: a model may write signs that no prompt may hold.
        tokens += len(self.engine.base.tokenizer(asked.answer, add_special_tokens=False).input_ids)
        if tokens > MAX_TOKENS:
            raise PromptError(
                f"Prompt and answer have {tokens:,} tokens; maps are drawn for up to {MAX_TOKENS:,}, so shorten them."
            )
        return tokens

    def compute(self, asked: Asked, layers) -> AttentionMaps:
        """Run the model."""
        return self.engine.attention(
            asked.prompt, asked.variant, list(layers), template=asked.template, answer=asked.answer, what_ifs=asked.what_ifs
        )

    def view(self, name: str, what_ifs: Mapping[str, Mapping]) -> dict[str, object]:
        """How the variant is called and coloured."""
        view = with_what_ifs(views_of(self.engine.variants, self.engine.checkpoints), what_ifs)[name]
        return {"name": name, "about": view.about, "colour": view.colour}

    def layer_of(self, reading: Reading, layer: object) -> AttentionMaps:
        """The maps that hold this layer, read now where they were not kept."""
        layer = whole(layer)
        if type(layer) is not int or not 0 <= layer < self.layers:
            raise ConfigError(f"There is no layer {shown(layer)}; this base has layers 0 to {self.layers - 1}.")
        if layer in reading.maps.layers:
            return reading.maps
        if layer not in reading.more:
            reading.more[layer] = self.compute(reading.asked, [layer])
            self.readings.tidy()
        return reading.more[layer]

    @told
    def picture(self, question: Mapping) -> dict[str, object]:
        """Another layer or head of a reading: {key, layer, head}, head None for the mean."""
        found = self.layer_of(self.readings.get(question["key"]), question["layer"])
        head = whole(question["head"])
        maps.check_head(head, next(iter(found.passes.values())).shape[1])
        return maps.picture(found, whole(question["layer"]), head)

    @told
    def arrays(self, question: Mapping) -> dict[str, object]:
        """All heads of one layer of a reading, {key, layer}, as a file."""
        found = self.layer_of(self.readings.get(question["key"]), question["layer"])
        layer = whole(question["layer"])
        return {"name": f"attention-layer-{layer}.safetensors", "data": b64encode(maps.arrays(found, layer)).decode("ascii")}

    @told
    def frame(self, question: Mapping) -> dict[str, object]:
        """A BertViz document for {key, view, reading, layer, head}: {html, words}, or words that say why there is none."""
        reading = self.readings.get(question["key"])
        found = self.layer_of(reading, question["layer"])
        layer, head = whole(question["layer"]), whole(question["head"])
        maps.check_head(head, self.engine.base_facts.heads)
        return frames.frame(found, question["view"], question["reading"], layer, head)

    def answer(self, prompt, variant, layer, head, answer, template, what_ifs=None) -> dict[str, object]:
        """For programs: one layer, one head or all, as plain JSON; `what_ifs` as in app.ui.what_ifs. Raises."""
        asked = Asked(prompt, variant, template, answer, what_ifs_of(what_ifs))
        layer, head = whole(layer), whole(head)
        tokens, heads = self.checked_tokens(asked), self.engine.base_facts.heads
        maps.check_head(head, heads)
        numbers = 4 * (heads if head is None else 1) * tokens**2
        if numbers > MAX_NUMBERS:
            raise ConfigError(f"All heads of {tokens} tokens are about {numbers:,} numbers; ask for one head.")
        found = self.layer_of(Reading(asked, self.compute(asked, [])), layer)
        return {"variant": variant, "template": template, "base": self.engine.base_facts.name, **maps.plain(found, layer, head)}
