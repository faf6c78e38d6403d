"""What a person or a program asks of Attention. What arrives over HTTP has any type it likes until it is in here or in the engine."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic.dataclasses import dataclass

from app.attention.maps import MEASURES
from app.ui.checks import MAX_ANSWER, MAX_NAME, AnswerText, Name, Text, Whole
from app.ui.checks import MAX_CHARACTERS as MAX_PROMPT
from app.ui.prompt_templates import TEMPLATES
from app.ui.what_ifs import read

MAX_TOKENS = 1024  # a map of more has over a million weights


@dataclass(frozen=True)
class AttentionRequest:
    """The passes to record: the arguments of Engine.attention, layers left out. `what_ifs` come as plain values."""

    prompt: Any
    variant: Text
    template: Any = "own"
    answer: AnswerText = ""
    what_ifs: Annotated[Mapping[str, Any], BeforeValidator(read)] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The variant of the engine whose template stands around the prompt."""
        return self.what_ifs[self.variant].of if self.variant in self.what_ifs else self.variant


class LayerQuestion(BaseModel):
    """What the browser asks about a result that is kept: one layer of it."""

    model_config = ConfigDict(extra="forbid")

    key: str
    layer: Whole


class HeadQuestion(LayerQuestion):
    """One head of one layer, or the mean over heads; with `until` that mean over the layers from `layer` to this one, both among them."""

    head: Whole
    until: Whole = None

    @model_validator(mode="after")
    def layers_stand_in_order(self) -> Self:
        """Only means are taken over layers, from the lower one to the higher one."""
        if self.until is not None and (self.head is not None or self.until < self.layer):
            raise ValueError("a mean over layers is one over all their heads, from the lower layer to the higher one")
        return self


class FrameQuestion(LayerQuestion):
    """One pass in a view of BertViz; `dark`: on a dark page."""

    head: Whole
    view: str
    pass_name: str
    dark: StrictBool = False


Place = Annotated[int, Field(ge=0, le=10_000)]  # of a layer or a head, more than any base has


class Link(BaseModel):
    """What a link may say of Attention: the fields, and what of a result is looked at. What is left out stays as it is.

    `layer` and `head`: the map that is open; without a head the mean over all. `measure`, `which`: of the overview, and of which reading.
    `beside`: the variant beside the first one, "" for none; `pair`: which readings stand beside each other. `until`: the last layer of a mean.
    `bertviz_view`, `bertviz_reading`: what is chosen for BertViz.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(max_length=MAX_PROMPT)] | None = None
    variant: Name | None = None
    template: Literal[tuple(TEMPLATES)] | None = None
    answer: Annotated[str, Field(max_length=MAX_ANSWER)] | None = None
    beside: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    pair: Literal["readings", "0", "1"] | None = None
    layer: Place | None = None
    until: Place | None = None
    head: Place | None = None
    measure: Literal[MEASURES] | None = None
    which: Literal["0", "1", "difference", "beside"] | None = None
    without_first: StrictBool | None = None
    bertviz_view: Literal["head", "model"] | None = None
    bertviz_reading: Annotated[str, Field(max_length=MAX_NAME)] | None = None
