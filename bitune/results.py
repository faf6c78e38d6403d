"""Plain values that leave the model: text, numbers, numpy. They know no tensor, no model and no page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["eos", "length", "stop", "cancelled"]


@dataclass(frozen=True)
class Completion:
    """The answer of one variant so far.

    `tokens`: new tokens so far. `seconds_to_first_token` counts from the start of the request, prompt passes included.
    `tokens_per_second`: decoding only, from the first new token on; None before the second token.
    `finish_reason`: None while it goes on; `eos` end token, `length` token limit, `stop` a stop string, `cancelled` by a person.
    """

    variant: str
    text: str
    tokens: int
    seconds_to_first_token: float | None
    tokens_per_second: float | None
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Update:
    """All answers of one request at one moment. `prompts` is the very text each variant read, template included.

    `update["name"]` is `update.completions["name"]`. `done` on the last update only.
    """

    completions: Mapping[str, Completion]
    prompts: Mapping[str, str]
    prompt_tokens: Mapping[str, int]
    done: bool

    def __getitem__(self, variant: str) -> Completion:
        return self.completions[variant]


@dataclass(frozen=True)
class BaseFacts:
    """What is loaded, for a page to show. `parameters` counts the base alone; `context` in tokens."""

    name: str
    parameters: int
    layers: int
    device: str
    dtype: str
    context: int
    has_chat_template: bool


@dataclass(frozen=True)
class CheckpointFacts:
    """What a loaded checkpoint says about itself. `method` is a name of variants.METHODS, or `custom`."""

    name: str
    source: str
    method: str
    peft_kind: str
    trainable_parameters: int
    template: str | None
    training: Mapping[str, object]
