"""The endpoints /layers and /lens, for programs. Signatures, types and docstrings are what clients and MCP tools read."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypedDict

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from app.ui.api_types import Template, WhatIfValue
from app.ui.checks import AnswerText, Names, Text, Whole
from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.what_ifs import read
from app.why.layers_run import work_of_effects
from app.why.lens_run import work_of_lens
from bitune.schema.layers import LayerReading, MixingEffects


@dataclass(frozen=True, kw_only=True)
class Call:
    """What both endpoints take. It may have any type until it is in here or in the engine; `what_ifs` come as plain values."""

    prompt: Any
    answer: AnswerText
    template: Any
    what_ifs: Annotated[Mapping[str, Any], BeforeValidator(read)]

    @property
    def reading(self) -> dict[str, object]:
        """How the prompt is read."""
        return {"template": self.template, "what_ifs": self.what_ifs}

    def ids(self, on: OnEngine) -> tuple[int, ...]:
        """The tokens of the answer."""
        return tuple(on.engine.base.tokenizer(self.answer, add_special_tokens=False).input_ids)


@dataclass(frozen=True, kw_only=True)
class LayersCall(Call):
    """What a program asks of /layers."""

    variant: Text


@dataclass(frozen=True, kw_only=True)
class LensCall(Call):
    """What a program asks of /lens."""

    variants: Names
    position: Whole


class LayersAnswer(TypedDict):
    """What /layers returns."""

    variant: str
    template: str
    base: str
    log_probability: float
    undone: float
    completed: float
    undone_keys: list[float]
    undone_values: list[float]
    completed_keys: list[float]
    completed_values: list[float]
    tokens: list[float]
    prompt: list[str]
    answer: list[str]


class GuessValue(TypedDict):
    """A token that may come next."""

    text: str
    probability: float


class LayerReadingValue(TypedDict):
    """What one cache would say after each layer."""

    variant: str
    cache: str
    token: str
    probabilities: list[float]
    guesses: list[list[GuessValue]]


class LensAnswer(TypedDict):
    """What /lens returns."""

    template: str
    base: str
    position: int
    readings: list[LayerReadingValue]


def layers_function(on: OnEngine) -> Callable:
    """The function behind /layers."""

    def layers(
        prompt: str, variant: str, answer: str, template: Template = "own", what_ifs: dict[str, WhatIfValue] | None = None
    ) -> LayersAnswer:
        """Which layers' mixing, and which prompt tokens' second reading, an answer of a Bitune checkpoint depends on.

        Every number but log_probability is a change of it: of the answer's log-probability (natural logarithm, summed over its tokens) when
        one thing is mixed otherwise. Undone: the first, causal reading alone; completed: the second, bidirectional reading alone.

        Args:
            prompt: What the model reads.
            variant: A checkpoint that mixes, or a what-if.
            answer: The text whose probability is looked at, most often what the variant has answered.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            what_ifs: More variants of this request alone, as /compare takes them: {name: {"of": ..., "keys": [...], "values": [...]}}.

        Returns:
            log_probability of the answer as mixed; undone and completed: the change with all layers mixed so; undone_keys, undone_values,
            completed_keys, completed_values: with one layer mixed so, one number a layer; tokens: with the mixing of one prompt token undone in
            all layers, one number for each but the last, which is not read twice; prompt, answer: the text of every token.
        """
        call = LayersCall(prompt=prompt, variant=variant, answer=answer, template=template, what_ifs=what_ifs)
        *_, effects = on.runner.mixing_effects(prompt, variant, call.ids(on), **call.reading)
        return {"variant": variant, "template": template, "base": on.engine.base_facts.name, **plain_effects(effects)}

    return layers


def work_of_layers(on: OnEngine) -> Callable[..., Work]:
    """What a call of /layers asks of the model."""

    def work(**fields: object) -> Work:
        call = LayersCall(**fields)
        return work_of_effects(on, call.prompt, call.variant, len(call.ids(on)), call.reading)

    return work


def lens_function(on: OnEngine) -> Callable:
    """The function behind /lens."""

    def lens(
        prompt: str,
        variants: list[str],
        answer: str = "",
        position: int = 0,
        template: Template = "own",
        what_ifs: dict[str, WhatIfValue] | None = None,
    ) -> LensAnswer:
        """What variants would say at a place of an answer after each layer (logit lens): the state there through the base's own last steps.

        Args:
            prompt: What the model reads.
            variants: Names of the variants that read it.
            answer: Its first `position` tokens are read after the prompt, by all variants; the next one is followed through the layers. Where
                there is none, each variant's own likeliest token is.
            position: A place in the answer, counted from 0.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            what_ifs: More variants of this request alone, as /compare takes them: {name: {"of": ..., "keys": [...], "values": [...]}}.

        Returns:
            readings: for every variant one on its own cache ("own"), and for one that mixes another on the cache that its first reading alone
            leaves ("first_pass"): the token that is followed, its probability after each layer, and the likeliest tokens after each layer.
        """
        call = LensCall(prompt=prompt, variants=variants, answer=answer, position=position, template=template, what_ifs=what_ifs)
        read_after = on.runner.lens(prompt, call.variants, call.ids(on), call.position, **call.reading)
        readings = [plain_reading(one) for one in read_after]
        return {"template": template, "base": on.engine.base_facts.name, "position": call.position, "readings": readings}

    return lens


def work_of_lens_call(on: OnEngine) -> Callable[..., Work]:
    """What a call of /lens asks of the model."""

    def work(**fields: object) -> Work:
        call = LensCall(**fields)
        request = on.engine.request(call.prompt, call.variants, **call.reading)
        return work_of_lens(request.ids, request.variants, len(call.ids(on)))

    return work


def plain_effects(effects: MixingEffects) -> dict[str, object]:
    """As plain JSON."""
    by_layer = {name: list(values) for name, values in vars(effects.layers).items()}
    return {
        "log_probability": effects.log_probability,
        "undone": effects.undone,
        "completed": effects.completed,
        **by_layer,
        "tokens": list(effects.tokens),
        "prompt": list(effects.prompt),
        "answer": list(effects.answer),
    }


def plain_reading(reading: LayerReading) -> dict[str, object]:
    """As plain JSON."""
    guesses = [[{"text": guess.text, "probability": guess.probability} for guess in row] for row in reading.guesses]
    return {**vars(reading), "probabilities": list(reading.probabilities), "guesses": guesses}
