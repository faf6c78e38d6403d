"""What one variant has answered so far: tokens as they come, text as it can be shown. Knows tokenizers; knows no model."""

import threading
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from bitune.inference.detokenizer import UNFINISHED, Detokenizer
from bitune.inference.sampling import GenerationSettings
from bitune.schema.generation import FinishReason
from bitune.schema.results import Completion


class Answer:
    """The answer of one variant, written by the thread of its request and read by others.

    `limit`: most tokens behind those of `begun`, with which it begins; these belong to its text, and are not counted.
    """

    def __init__(
        self,
        variant: str,
        tokenizer: PreTrainedTokenizerBase,
        settings: GenerationSettings,
        limit: int,
        ends: Collection[int],
        begun: Sequence[int] = (),
    ):
        self._variant, self._tokenizer, self._stop, self._limit, self._ends = variant, tokenizer, settings.stop, limit, ends
        self._lock = threading.Lock()
        self._ids: list[int] = []
        self._detokenizer = Detokenizer(tokenizer)
        self._begun = len(begun)
        self._first = self._last = 0.0
        self._finish_reason: FinishReason | None = None
        self._snapshot: Completion | None = None  # of the answer as it is
        self.from_memory = False  # set before the first token: whether the prompt had been read before
        for token in begun:
            self.add(token, 0.0)
        if limit < 1 and not self.is_finished:
            self._finish_reason = "length"

    @property
    def tokens(self) -> int:
        """How many have come."""
        return max(len(self._ids) - self._begun, 0)

    @property
    def is_finished(self) -> bool:
        """Whether no more tokens are taken."""
        return self._finish_reason is not None

    def add(self, token: int, seconds: float) -> None:
        """Take the next token, `seconds` after the request began; after the end it is padding and is dropped."""
        if self.is_finished:
            return
        with self._lock:
            self._first, self._last = self._first if self.tokens else seconds, seconds
            self._ids.append(token)
            self._detokenizer.add(token)
            self._snapshot = None
            if token in self._ends:
                self._finish_reason = "eos"
            elif self._stop and self._has_new_stop():
                self._finish_reason = "stop"
            elif self.tokens and self.tokens >= self._limit:
                self._finish_reason = "length"

    def cancel(self) -> None:
        """No more tokens come, because somebody stopped the request."""
        with self._lock:
            if self._finish_reason is None:
                self._finish_reason, self._snapshot = "cancelled", None

    def snapshot(self) -> Completion:
        """The answer so far as plain values. While it goes on, its text only grows; the last text is that of all tokens at once."""
        with self._lock:
            if self._snapshot is None:
                count = self.tokens
                text = self._text_so_far() if self._finish_reason is None else self._whole_text()
                speed = (count - 1) / (self._last - self._first) if count > 1 and self._last > self._first else None
                first = self._first if count else None
                reason, ids = self._finish_reason, tuple(self._ids)
                self._snapshot = Completion(self._variant, text, count, first, speed, reason, ids, self.from_memory)
            return self._snapshot

    def _has_new_stop(self) -> bool:
        """Whether a stop string ends in what the last token changed; before it there was none."""
        start = max(0, self._detokenizer.settled - max(map(len, self._stop)))
        text = self._detokenizer.text()
        return any(text.find(stop, start) >= 0 for stop in self._stop)

    def _text_so_far(self) -> str:
        """Without an end that the next tokens may change, or that a stop string may begin with."""
        text = self._detokenizer.lasting()
        begun = (size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(begun, default=0)]

    def _whole_text(self) -> str:
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        position = min((text.index(stop) for stop in self._stop if stop in text), default=None)
        if position is not None:
            return text[:position]
        return text.rstrip(UNFINISHED) if self._finish_reason == "cancelled" else text
