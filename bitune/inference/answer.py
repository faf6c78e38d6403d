"""What one variant has answered so far: tokens as they come, text as it can be shown. Knows tokenizers; knows no model."""

import threading
from collections.abc import Collection

from transformers import PreTrainedTokenizerBase

from bitune.inference.sampling import GenerationSettings
from bitune.schema.results import Completion, FinishReason

_UNFINISHED = "\ufffd"  # what a tokenizer puts for bytes that are not yet a character


class Answer:
    """The answer of one variant, written by the thread of its request and read by others."""

    def __init__(
        self, variant: str, tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings, limit: int, ends: Collection[int]
    ):
        self._variant, self._tokenizer, self._stop, self._limit, self._ends = variant, tokenizer, settings.stop, limit, ends
        self._lock = threading.Lock()
        self._ids: list[int] = []
        self._first = self._last = 0.0
        self._finish_reason: FinishReason | None = None

    @property
    def tokens(self) -> int:
        """How many have come."""
        return len(self._ids)

    @property
    def is_finished(self) -> bool:
        """Whether no more tokens are taken."""
        return self._finish_reason is not None

    def add(self, token: int, seconds: float) -> None:
        """Take the next token, `seconds` after the request began; after the end it is padding and is dropped."""
        if self.is_finished:
            return
        with self._lock:
            self._first, self._last = self._first if self._ids else seconds, seconds
            self._ids.append(token)
            if token in self._ends:
                self._finish_reason = "eos"
            elif self._stop and self._stop_position(self._decoded()) is not None:
                self._finish_reason = "stop"
            elif len(self._ids) >= self._limit:
                self._finish_reason = "length"

    def cancel(self) -> None:
        """No more tokens come, because somebody stopped the request."""
        with self._lock:
            self._finish_reason = self._finish_reason or "cancelled"

    def snapshot(self) -> Completion:
        """The answer so far as plain values."""
        with self._lock:
            text, count = self._decoded(), len(self._ids)
            position = self._stop_position(text)
            if position is not None:
                text = text[:position]
            elif self._finish_reason in (None, "cancelled"):
                text = text.rstrip(_UNFINISHED)
            speed = (count - 1) / (self._last - self._first) if count > 1 and self._last > self._first else None
            first = self._first if count else None
            return Completion(self._variant, text, count, first, speed, self._finish_reason, tuple(self._ids))

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)

    def _stop_position(self, text: str) -> int | None:
        return min((text.index(stop) for stop in self._stop if stop in text), default=None)
