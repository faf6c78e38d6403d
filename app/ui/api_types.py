"""What the endpoints for programs take and return, as types. Gradio makes of them what clients, OpenAPI and MCP tools are told."""

from typing import Literal, TypedDict

Template = Literal["own", "chat", "none"]
Earlier = Literal["recompute", "alternating"]


class TurnValue(TypedDict):
    """A turn before the prompt: the question, and the answer to it of each variant that runs."""

    prompt: str
    answers: dict[str, str]


class WhatIfValue(TypedDict):
    """A checkpoint mixed by other ratios, one a layer."""

    of: str
    keys: list[float]
    values: list[float]


class CompletionValue(TypedDict):
    """The answer of a variant, as in bitune.schema.results.Completion."""

    text: str
    tokens: int
    seconds_to_first_token: float | None
    tokens_per_second: float | None
    finish_reason: str
    from_memory: bool


class CompareAnswer(TypedDict):
    """What /compare returns; all but `request` and `base` by name of the variant."""

    completions: dict[str, CompletionValue]
    prompts: dict[str, str]
    prompt_tokens: dict[str, int]
    request: dict
    base: str


class AnswerMapsValue(TypedDict):
    """[heads][query][key] of the last prompt token and the answer."""

    mixed: list[list[list[float]]]
    first_pass: list[list[list[float]]]


class AttentionAnswer(TypedDict):
    """What /attention returns; `passes` and `summaries` by name of the reading."""

    variant: str
    template: str
    base: str
    tokens: list[str]
    prompt_tokens: int
    layer: int
    heads: list[int]
    passes: dict[str, list[list[list[float]]]]
    answer: AnswerMapsValue
    summaries: dict[str, dict[str, list[list[float]]]]
    moved_keys: list[list[float | None]]
    moved_values: list[list[float | None]]


class MixingAnswer(TypedDict):
    """What /mixing returns of a checkpoint."""

    method: str
    keys: list[float] | None
    values: list[float] | None
    moved_keys: list[float | None] | None
    moved_values: list[float | None] | None
    training_log: dict[str, list]


class EvidenceAnswer(TypedDict):
    """What /evidence returns of a setting."""

    title: str
    text: str
    base: str
    reference: str
    tasks: list[dict]
    rows: list[dict]


class CandidateValue(TypedDict):
    """A base, a checkpoint or a what-if that was judged."""

    name: str
    kind: Literal["base", "checkpoint", "what-if"]
    fingerprint: str


class RateValue(TypedDict):
    """A share with its interval."""

    mean: float
    low: float
    high: float


class PairValue(TypedDict):
    """Two variants that were judged side by side."""

    base: CandidateValue
    names_hidden: bool
    first: CandidateValue
    second: CandidateValue
    votes: int
    wins: int
    losses: int
    ties: int
    all_bad: int
    third_better: int
    win_rate: RateValue | None


class VotesAnswer(TypedDict):
    """What /votes returns."""

    votes: int
    counting: dict[str, str]
    pairs: list[PairValue]
