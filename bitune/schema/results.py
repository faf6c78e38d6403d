"""Plain values that leave the model: text, numbers, numpy. They know no tensor, no model and no page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bitune.schema.generation import FinishReason

Phase = Literal["waiting", "reading", "writing", "done"]


@dataclass(frozen=True)
class Completion:
    """The answer of one variant so far.

    `tokens`: new tokens so far. `seconds_to_first_token` counts from the start of the request, prompt passes included.
    `tokens_per_second`: decoding only, from the first new token on; None before the second token.
    `token_ids`: the very tokens, the end token included, which text alone does not always give back.
    `finish_reason`: None while it goes on; `eos` end token, `length` token limit, `stop` a stop string, `cancelled` by a person.
    `from_memory`: the prompt had been read before by the same passes, and was not read again.
    """

    variant: str
    text: str
    tokens: int
    seconds_to_first_token: float | None
    tokens_per_second: float | None
    finish_reason: FinishReason | None
    token_ids: tuple[int, ...] = ()
    from_memory: bool = False


@dataclass(frozen=True)
class Update:
    """All answers of one request at one moment. `prompts` is the very text each variant read, template included.

    `update["name"]` is `update.completions["name"]`. `done` on the last update only. `phase`: `waiting` for other requests to let go of the
    base, `reading` the prompt, `writing`, `done`. `read`: while it is read, the share of that work that is done, from 0 to below 1; None where
    that is not known.
    """

    completions: Mapping[str, Completion]
    prompts: Mapping[str, str]
    prompt_tokens: Mapping[str, int]
    done: bool
    phase: Phase = "done"
    read: float | None = None

    def __getitem__(self, variant: str) -> Completion:
        return self.completions[variant]


@dataclass(frozen=True)
class BaseFacts:
    """What is loaded, for a page to show. `parameters` counts the base alone; `context` in tokens; `heads` query heads a layer."""

    name: str
    parameters: int
    layers: int
    device: str
    dtype: str
    context: int
    has_chat_template: bool
    heads: int


@dataclass(frozen=True)
class CheckpointFacts:
    """What a loaded checkpoint says about itself. `method` is a name of variants.METHODS, or `custom`.

    `fingerprint`: of its passes and weights, see bitune.checkpoints.fingerprint. `card`: the text of its README.md, None where it has none.
    """

    name: str
    source: str
    method: str
    peft_kind: str
    trainable_parameters: int
    template: str | None
    training: Mapping[str, object]
    fingerprint: str = ""
    card: str | None = None


@dataclass(frozen=True)
class HeadSummary:
    """What the heads of one pass look at, mean over queries: float32 [layers, heads] each.

    `look_ahead`: attention on later tokens, 0 in a causal pass. `entropy` in nats. `distance`: mean |query - key| in tokens.
    `first_token`: attention on the first token.
    """

    look_ahead: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    first_token: np.ndarray

    @classmethod
    def empty(cls, layers: int, heads: int) -> "HeadSummary":
        """Zeros, to be filled layer by layer."""
        return cls(*(np.zeros((layers, heads), np.float32) for _ in range(4)))


@dataclass(frozen=True)
class AnswerMaps:
    """What the last prompt token and the answer attend to: float16 [layers, heads, rows, P - 1 + rows].

    `mixed`: on the variant's own cache; `first_pass`: on the cache that its first pass alone would have left.
    """

    mixed: np.ndarray
    first_pass: np.ndarray


@dataclass(frozen=True)
class AttentionMaps:
    """Attention of one variant on one prompt of P tokens.

    `passes`: pass name -> float16 [layers, heads, P - 1, P - 1] for `layers`, query by key, rows summing to 1; the last prompt
    token is no part of a pass, it belongs to the answer. `summaries`: pass name -> HeadSummary of all layers.
    `moved_keys`, `moved_values`: ||mixed - first|| / ||first|| of the cache, float32 [all layers, P - 1]; 0 where nothing is
    mixed, nan for tokens that a sliding layer no longer holds. `tokens`: text of every prompt token, then of the answer's.
    """

    layers: tuple[int, ...]
    passes: Mapping[str, np.ndarray]
    summaries: Mapping[str, HeadSummary]
    answer: AnswerMaps
    moved_keys: np.ndarray
    moved_values: np.ndarray
    tokens: tuple[str, ...] = ()
    prompt_tokens: int = 0


@dataclass(frozen=True)
class SweepPoint:
    """One step of a sweep from the first pass alone (factor 0) over the learned ratios (1) to the second pass alone (2).

    `completion`: what the variant says there. `log_probability`: of the answer that it gives with the learned ratios, natural
    logarithm, summed over that answer's tokens; None while that answer is still being written.
    """

    factor: float
    completion: Completion
    log_probability: float | None
