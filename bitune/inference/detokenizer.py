"""Token ids -> text as the ids come: only the last ones are decoded. Knows tokenizers; knows no answer and no model."""

import re

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"  # what a tokenizer puts for bytes that are not yet a character
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte of a character that the vocabulary lacks; a run of them is decoded as one
_CHARACTER = 4  # most bytes of a character, and so most tokens that one can be spread over
_NEW_TOKENS = 16  # after so many, a later place to decode from is looked for
# Where `clean_up_tokenization_spaces` changes nothing across: its patterns begin with a space and hold no other before a letter.
_BETWEEN_WORDS = re.compile(r"(?<=\w)(?= \w)")


class Detokenizer:
    """The text of token ids that come one by one.

    The text up to some token is settled; the tokens after it are decoded together with a few before it, the context, whose own text is
    cut off again. A context decodes by itself to whole characters, so it ends between two characters, and takes upon itself what a
    tokenizer does to the first token of a text, such as dropping its space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._settled = ""
        self._ids: list[int] = []  # the context, then the tokens whose text is not settled
        self._context = 0  # tokens of the context
        self._skipped = 0  # characters of the context
        self._next_look = _NEW_TOKENS

    @property
    def settled(self) -> int:
        """Characters at the start of the text that are not decoded again."""
        return len(self._settled)

    def add(self, token: int) -> None:
        """The next token. A special one, or an id without a token, is no part of the text."""
        is_special = not self._decoded([token]) and self._tokenizer.decode([token])
        if not is_special and self._tokenizer.convert_ids_to_tokens(token) is not None:
            self._ids.append(token)

    def text(self) -> str:
        """What `tokenizer.decode(ids, skip_special_tokens=True)` makes of all ids so far."""
        rest = self._rest(self._ids)
        text = self._settled + rest
        if len(self._ids) >= self._next_look:
            self._settle(rest)
            self._next_look = len(self._ids) + _NEW_TOKENS
        return text

    def lasting(self) -> str:
        """The start of `text` that stays whatever comes: without an unfinished character, or what is cleaned up with the next word."""
        whole = len(self._ids)
        while whole > self._context and self._is_byte(self._ids[whole - 1]):
            whole -= 1
        text = self.text() if whole == len(self._ids) else self._settled + self._rest(self._ids[:whole])
        if self._tokenizer.clean_up_tokenization_spaces:
            text = text[: max((match.start() for match in _BETWEEN_WORDS.finditer(text)), default=0)]
        return text.rstrip(UNFINISHED)

    def _settle(self, rest: str) -> None:
        """Take the latest context there is among the new tokens, if any; `rest` is the text that is not settled."""
        for end in range(len(self._ids) - 1, max(self._context, len(self._ids) - 2 * _NEW_TOKENS), -1):
            start = self._context_before(end)
            if start is None:
                continue
            skipped = len(self._decoded(self._ids[start:end]))
            before = self._rest(self._ids[:end])
            if before + self._decoded(self._ids[start:])[skipped:] == rest and self._can_part(rest, len(before)):
                self._settled += before
                self._ids, self._context, self._skipped = self._ids[start:], end - start, skipped
                return

    def _context_before(self, end: int) -> int | None:
        """Where the shortest context begins that ends there; None where there is none."""
        if self._is_byte(self._ids[end - 1]):
            return None
        for start in range(end - 1, max(-1, end - 1 - _CHARACTER), -1):
            text = self._decoded(self._ids[start:end])
            if text and UNFINISHED not in text:
                return start
        return None

    def _can_part(self, text: str, place: int) -> bool:
        return not self._tokenizer.clean_up_tokenization_spaces or _BETWEEN_WORDS.match(text, place) is not None

    def _is_byte(self, token: int) -> bool:
        return _BYTE.fullmatch(self._tokenizer.convert_ids_to_tokens(token)) is not None

    def _rest(self, ids: list[int]) -> str:
        return self._decoded(ids)[self._skipped :]

    def _decoded(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
