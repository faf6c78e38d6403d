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


class TokenValue(TypedDict):
    """A token: its id, and its text inside of a text."""

    id: int
    text: str


class AnswerTokens(TypedDict):
    """The very tokens of an answer; the end token is among them where it ended by itself."""

    tokens: list[TokenValue]
    ended: bool


class TokenScoresValue(TypedDict):
    """What one variant gives to one answer: log-probabilities (natural logarithm) of the whole, of a token on average and of each token;
    how many tokens were likelier at each step; and the likeliest at each, as [id, log-probability]."""

    log_probability: float
    per_token: float
    tokens: list[float]
    ranks: list[int]
    top: list[list[list[float]]]


class PlaceValue(TypedDict):
    """Where the answers of two variants part: at the first token, counted from 0, that is another one; null where none is."""

    one: str
    other: str
    place: int | None


class PartingAnswer(TypedDict):
    """What /parting returns; `scores` by name of whose answer it is, then of the variant that scores it; `texts` by token id."""

    prompt: str
    base: str
    answers: dict[str, AnswerTokens]
    parting: list[PlaceValue]
    scores: dict[str, dict[str, TokenScoresValue]]
    texts: dict[str, str]
    counted: str


class GoOnAnswer(TypedDict):
    """What /go_on returns: the whole text with its beginning, the tokens behind the beginning, and why it ended."""

    variant: str
    text: str
    begun: str
    tokens: int
    token_ids: list[int]
    finish_reason: str


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
    made: dict | None


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
