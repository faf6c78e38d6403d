"""Where two answers part, word by word. Pure text."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from os.path import commonprefix

# Words, or runs of signs (so that an emoji of several code points stays whole); Chinese and Japanese are compared sign by sign.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]+")
# Beyond, a model repeats itself or somebody made the texts up, and looking for the best match of all words takes seconds.
MOST_PAIRS = 20_000  # of equal words
MOST_WORDS = 4_096  # of both texts


@dataclass(frozen=True)
class Difference:
    """`pieces` joined are the text; each is marked where it differs. `shared_start`: equal words before the first difference."""

    pieces: tuple[tuple[str, bool], ...]
    same: bool
    shared_start: int
    changed: int
    words: int


def difference(reference: str, text: str) -> Difference:
    """`text` with the words marked that `reference` does not have at that place."""
    spans = [match.span() for match in WORD.finditer(text)]
    words = [text[start:end] for start, end in spans]
    reference_words = WORD.findall(reference)
    pieces: list[tuple[str, bool]] = []
    position = changed = 0
    shared_start = None
    for first, last in differing(reference_words, words):
        shared_start = first if shared_start is None else shared_start
        if first == last:
            continue
        start, end = spans[first][0], spans[last - 1][1]
        pieces += [(text[position:start], False), (text[start:end], True)]
        position, changed = end, changed + last - first
    pieces.append((text[position:], False))
    kept = tuple(piece for piece in pieces if piece[0])
    return Difference(kept, words == reference_words, len(words) if shared_start is None else shared_start, changed, len(words))


def differing(reference: Sequence[str], words: Sequence[str]) -> list[tuple[int, int]]:
    """Where `words` differ, as first and one after the last; both the same where only `reference` has something.

    Texts in which almost everything is equal to almost everything are compared from their two ends alone.
    """
    count, count_here = Counter(reference), Counter(words)
    if sum(count[word] * count_here[word] for word in count) > MOST_PAIRS or len(words) + len(reference) > MOST_WORDS:
        start = len(commonprefix([reference, words]))
        end = len(commonprefix([reference[start:][::-1], words[start:][::-1]]))
        return [(start, len(words) - end)] if start + end < max(len(words), len(reference)) else []
    matcher = SequenceMatcher(None, reference, words, autojunk=False)
    return [(first, last) for kind, _, _, first, last in matcher.get_opcodes() if kind != "equal"]


def in_words(parts: Difference, reference: str) -> str:
    """The difference in one short sentence; `reference` is the name of the other variant."""
    if parts.same:
        return f"The same words as {reference}."
    if parts.changed == 0:
        return f"Only words that {reference} has too, but fewer."
    start = f"The same as {reference} for {counted(parts.shared_start)}; " if parts.shared_start else ""
    differ = "differs" if parts.changed == 1 else "differ"
    return f"{start}{parts.changed} of {counted(parts.words)} {differ}{'' if start else f' from {reference}'}."


def counted(words: int) -> str:
    """`1 word`, `2 words`."""
    return f"{words} word{'' if words == 1 else 's'}"
