"""What a person asks of Many prompts. What arrives over HTTP has any type it likes until it is in here or in the engine."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from app.ui.checks import NameList, Names, Text, Whole
from app.ui.prompt_templates import TEMPLATES
from bitune.sets.rows import SetSettings


@dataclass(frozen=True)
class SetRequest:
    """Prompts as text, the variants that answer all of them, how, and the visitor's what-ifs as they pass between tabs."""

    text: Text
    variants: Names
    template: Any = "own"
    max_new_tokens: Whole = 32
    temperature: Any = 0.0
    top_p: Any = 1.0
    seed: Whole = 0
    samples: Whole = 1
    what_ifs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> SetSettings:
        """How every prompt is asked; ConfigError where that makes no sense."""
        return SetSettings(self.template, self.max_new_tokens, self.temperature, self.top_p, self.seed, self.samples)


MAX_SAMPLES = 8  # that the page's slider has
MAX_TEMPERATURE, MIN_TOP_P = 2.0, 0.05  # where its other sliders end
MAX_SEED = 2**53 - 1  # a browser keeps numbers as doubles


class Link(BaseModel):
    """What a link may say of Many prompts: the choices. The prompts are a file of their own."""

    model_config = ConfigDict(extra="forbid")

    variants: NameList | None = None
    template: Literal[tuple(TEMPLATES)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=MIN_TOP_P, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None
