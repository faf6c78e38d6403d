"""Decoding of several variants in step: settings, shared random draws, a streamer of rows, and what each row has said so far.

Knows tokenizers and transformers' generate; knows no adapter and no variant.
"""

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from bitune.errors import ConfigError
from bitune.schema.results import Completion, FinishReason

MAX_SEED = 2**63 - 1
_UNFINISHED = "\ufffd"  # what a tokenizer puts for bytes that are not yet a character


@dataclass(frozen=True)
class GenerationSettings:
    """How to answer. `temperature` 0 is greedy (then `top_p` and `seed` do nothing); `stop`: strings that end an answer."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        _check_number("max_new_tokens", self.max_new_tokens, 1, math.inf, whole=True)
        _check_number("temperature", self.temperature, 0, 100)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("seed", self.seed, 0, MAX_SEED, whole=True)
        if self.top_p == 0:
            raise ConfigError("top_p is 0; it must be above 0, as it is the share of probability that is kept.")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError(f"stop is {self.stop!r}; it must be a list of strings that are not empty.")


def _check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        words = "a whole number" if whole else "a number"
        limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ConfigError(f"{name} is {value!r}; it must be {words} {limits}.")


class SharedGumbelNoise(LogitsProcessor):
    """Adds the same Gumbel noise to every row, new at each step: greedy choice after it is a draw from softmax(scores).

    Rows of one request thus share their luck (the Gumbel-max trick), and a difference in text is a difference in the models.
    The noise is drawn on the CPU in float32, so that a seed means the same on every device.
    """

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.rand(scores.shape[-1], generator=self._generator)
        noise = -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float32).tiny)))
        return scores + noise.to(scores.device, scores.dtype)


def sampling(settings: GenerationSettings) -> LogitsProcessorList:
    """The processors that turn greedy choice into sampling with shared draws; none at temperature 0."""
    if settings.temperature == 0:
        return LogitsProcessorList()
    warpers = [TemperatureLogitsWarper(float(settings.temperature))]
    if settings.top_p < 1:
        warpers.append(TopPLogitsWarper(float(settings.top_p)))
    return LogitsProcessorList([*warpers, SharedGumbelNoise(settings.seed)])


class Cancelled(StoppingCriteria):
    """Ends all rows at the next step once `event` is set."""

    def __init__(self, event: threading.Event):
        self._event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), dtype=torch.bool, device=input_ids.device)


class Stopped(Exception):
    """A prompt pass ended early because its request was cancelled."""


@contextmanager
def interruptible(model: PreTrainedModel, event: threading.Event) -> Iterator[None]:
    """Raise Stopped at the next layer once `event` is set: reading a long prompt is one forward, and may take a minute."""

    def check(module, args):
        if event.is_set():
            raise Stopped

    # Every attention module knows its place in the cache.
    layers = [module for module in model.modules() if "layer_idx" in vars(module)]
    hooks = [layer.register_forward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class RowStreamer(BaseStreamer):
    """Hands each step's tokens to `receive(rows, tokens)`; `rows` names the rows of this batch among all."""

    def __init__(self, rows: Sequence[int], receive: Callable[[Sequence[int], list[int]], None]):
        self._rows, self._receive, self._is_prompt = rows, receive, True

    def put(self, value: Tensor) -> None:
        if self._is_prompt:  # generate() streams the prompt first
            self._is_prompt = False
            return
        self._receive(self._rows, value.tolist())

    def end(self) -> None:
        """Nothing is held back."""


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    """Tokens that end an answer: the model's own, then the tokenizer's, which training puts behind every answer."""
    own = model.generation_config.eos_token_id
    ends = [] if own is None else [own] if isinstance(own, int) else list(own)
    trained = None if tokenizer is None else tokenizer.eos_token_id
    return tuple(dict.fromkeys([*ends, *([] if trained is None else [trained])]))


def eval_generation_config(ends: Sequence[int], **settings: object) -> GenerationConfig:
    """Settings of transformers' generate for measuring: greedy unless told otherwise, with no penalty that the base comes with."""
    plain = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    pad = ends[0] if ends else 0
    return GenerationConfig(**{**plain, **settings}, eos_token_id=list(ends) or None, pad_token_id=pad)


def before_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens of an answer up to and without the first that ends it: what follows is padding."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]


class Answer:
    """What one row has said so far, from its token ids and when they came."""

    def __init__(self, variant: str, tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings, ends: frozenset[int]):
        self._variant, self._tokenizer, self._settings, self._ends = variant, tokenizer, settings, ends
        self._ids: list[int] = []
        self._first = self._last = 0.0
        self.finish_reason: FinishReason | None = None

    def add(self, token: int, seconds: float) -> None:
        """Take the next token, `seconds` after the request began; what comes after the end is padding and is dropped."""
        if self.finish_reason is not None:
            return
        self._first, self._last = self._first if self._ids else seconds, seconds
        self._ids.append(token)
        if token in self._ends:
            self.finish_reason = "eos"
        elif self._settings.stop and self._stop_place(self._decoded()) is not None:
            self.finish_reason = "stop"

    def close(self, limit: int, cancelled: bool) -> None:
        """No more tokens come: `limit` of them were allowed."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled" if cancelled and len(self._ids) < limit else "length"

    def snapshot(self) -> Completion:
        """The answer so far as plain values."""
        text, count = self._decoded(), len(self._ids)
        place = self._stop_place(text)
        if place is not None:
            text = text[:place]
        elif self.finish_reason is None:
            text = text.rstrip(_UNFINISHED)
        speed = (count - 1) / (self._last - self._first) if count > 1 and self._last > self._first else None
        first = self._first if count else None
        return Completion(self._variant, text, count, first, speed, self.finish_reason, tuple(self._ids))

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)

    def _stop_place(self, text: str) -> int | None:
        return min((text.index(stop) for stop in self._settings.stop if stop in text), default=None)


class Worker:
    """Runs `work(receive, cancel)` in a thread and hands out what it receives; always ended by `close`.

    `receive(value)` queues a value for `next_value`; `cancel` is an event that the work looks at.
    """

    def __init__(self, work: Callable[[Callable[[object], None], threading.Event], None]):
        self._queue: queue.Queue = queue.Queue()
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work) -> None:
        try:
            work(self._queue.put, self._cancel)
        except Stopped:
            pass
        except BaseException as error:  # handed to the reader, who raises it
            self._queue.put(error)
        self._queue.put(None)

    def next_value(self, timeout: float | None = None) -> object | None:
        """The next value, or None at the end; queue.Empty after `timeout` seconds. Raises what the work raised."""
        value = self._queue.get(timeout=timeout)
        if isinstance(value, BaseException):
            raise value
        return value

    def close(self) -> None:
        """Cancel what still runs and wait for it: the model is free afterwards."""
        self._cancel.set()
        self._thread.join()
