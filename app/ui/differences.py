"""Where two answers part, word by word, marked in both. Pure text; that answers are equal token by token is counted here too."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from os.path import commonprefix
from typing import Literal, NamedTuple
from unicodedata import category

# Words, or runs of signs (so that an emoji of several code points stays whole); Chinese and Japanese are compared sign by sign.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]+")
# Beyond, a model repeats itself or somebody made the texts up, and looking for the best match of all words takes seconds.
MOST_PAIRS = 20_000  # of equal words
MOST_WORDS = 4_096  # of both texts
# Two answers of the same length that say different things share a third of their words by chance: "the", "is", a full stop.
LITTLE_IN_COMMON = 0.35
SIGNS_IN_WORDS = frozenset("'’-‐‑.,:/@&")  # one of these between letters or digits parts no word: don't, well-known, 57.9
QUOTED_WORDS, QUOTED_SIGNS = 3, 32

Mark = Literal["", "some", "all"]
"""Of a word: every answer it is compared with says it there too, only some do, or none does."""


@dataclass(frozen=True)
class Words:
    """A text and where its words are in it."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, text: str) -> "Words":
        """The words of a text."""
        return cls(text, tuple(match.span() for match in WORD.finditer(text)))

    @property
    def words(self) -> list[str]:
        """The words alone."""
        return [self.text[start:end] for start, end in self.spans]

    def quoted(self, first: int, last: int) -> str:
        """The words from `first` to before `last` as a quotation, cut where it is long."""
        cut = min(last, first + QUOTED_WORDS)
        text = " ".join(self.text[self.spans[first][0] : self.spans[cut - 1][1]].split())
        whole = cut == last and len(text) <= QUOTED_SIGNS
        # Between isolates, so that a right-to-left word does not turn the sentence around it.
        return f"“\u2068{text[:QUOTED_SIGNS]}\u2069{'' if whole else ' …'}”"


class Piece(NamedTuple):
    """A part of an answer: all of one mark. `parts`: right before it, another answer begins to differ."""

    text: str
    mark: Mark = ""
    parts: bool = False


@dataclass(frozen=True)
class Difference:
    """What two answers do not share, as ranges of words: `runs` of (first and last in the reference, first and last in the text), each last
    one excluded, either range perhaps empty."""

    reference: Words
    text: Words
    runs: tuple[tuple[int, int, int, int], ...]

    @property
    def same(self) -> bool:
        """Whether the words are the same; what lies between them may not be."""
        return not self.runs

    @property
    def shared_start(self) -> int:
        """Equal words before the first difference."""
        return self.runs[0][2] if self.runs else len(self.text.spans)

    @property
    def changed(self) -> int:
        """Words of the text that the reference does not have at that place."""
        return sum(last - first for _, _, first, last in self.runs)

    @property
    def missing(self) -> int:
        """Words of the reference that the text does not have at that place."""
        return sum(last - first for first, last, _, _ in self.runs)

    @property
    def another(self) -> bool:
        """Whether so little is common that marks would be everywhere, from the very first word on."""
        both = len(self.reference.spans) + len(self.text.spans)
        return not self.shared_start and both - self.changed - self.missing < LITTLE_IN_COMMON * both

    @property
    def marks(self) -> list[Mark]:
        """Of each word of the text; none is marked in another answer altogether."""
        return self._marks(self.text, [run[2:] for run in self.runs])

    @property
    def reference_marks(self) -> list[Mark]:
        """Likewise of each word of the reference."""
        return self._marks(self.reference, [run[:2] for run in self.runs])

    def _marks(self, words: Words, ranges: Sequence[tuple[int, int]]) -> list[Mark]:
        marks: list[Mark] = [""] * len(words.spans)
        for first, last in () if self.another else ranges:
            marks[first:last] = ["all"] * (last - first)
        return marks

    @property
    def point(self) -> int | None:
        """The word of both before which they part; None where they do not, or share nothing to begin with."""
        return None if self.same or self.another or not self.shared_start else self.shared_start

    @property
    def pieces(self) -> list[Piece]:
        """The text, marked."""
        return pieces(self.text, self.marks, () if self.point is None else (self.point,))


def difference(reference: str, text: str) -> Difference:
    """How `text` differs from `reference`, word by word."""
    one, other = Words.of(reference), Words.of(text)
    return Difference(one, other, tuple(differing(one.words, other.words)))


def differing(reference: Sequence[str], words: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """The runs of a Difference.

    Texts in which almost everything is equal to almost everything are compared from their two ends alone.
    """
    count, count_here = Counter(reference), Counter(words)
    if sum(count[word] * count_here[word] for word in count) > MOST_PAIRS or len(words) + len(reference) > MOST_WORDS:
        start = len(commonprefix([reference, words]))
        end = len(commonprefix([reference[start:][::-1], words[start:][::-1]]))
        apart = start + end < max(len(words), len(reference))
        return [(start, len(reference) - end, start, len(words) - end)] if apart else []
    matcher = SequenceMatcher(None, reference, words, autojunk=False)
    return [tuple(run) for kind, *run in matcher.get_opcodes() if kind != "equal"]


def in_all(differences: Sequence[Difference]) -> list[Mark]:
    """Marks of one reference held against several texts, at least one: whether none, some or all of them have each word."""
    marks: list[Mark] = []
    for found in zip(*(one.reference_marks for one in differences), strict=True):
        marks.append("all" if all(found) else "some" if any(found) else "")
    return marks


def pieces(words: Words, marks: Sequence[Mark], points: Collection[int]) -> list[Piece]:
    """A text in pieces, which joined are the text.

    Args:
        words: The text.
        marks: One for each word. What lies between two words of the same mark is marked with them.
        points: Words before which an answer parts; the number of words is the end.
    """
    text, spans, found = words.text, words.spans, []
    position = first = 0
    for last in range(1, len(spans) + 1):
        if last < len(spans) and marks[last] == marks[first] and last not in points:
            continue
        start, end = spans[first][0], spans[last - 1][1]
        if marks[first] or first in points:
            found += [Piece(text[position:start]), Piece(text[start:end], marks[first], first in points)]
            position = end
        first = last
    if len(spans) in points:
        end = spans[-1][1] if spans else position
        found.append(Piece(text[position:end]))
        found.append(Piece(text[end:], "", True))
    else:
        found.append(Piece(text[position:]))
    return [piece for piece in found if piece.text or piece.parts]


def in_words(parts: Difference, reference: str, tokens: int = 0) -> str:
    """The difference in a sentence or two.

    Args:
        parts: The difference.
        reference: The name of the other variant.
        tokens: How many tokens the two answers begin with alike.
    """
    here, there = words_in(parts.text), words_in(parts.reference)
    if not parts.text.spans:
        return f"No text, where {reference} has {counted(len(there))}." if parts.reference.spans else f"No text, as {reference}."
    if not parts.reference.spans:
        return f"An answer of {counted(len(here))}, where {reference} has no text."
    if parts.same:
        return f"The same words as {reference}."
    if parts.another:
        return f"A different answer: {counted(len(here))}, where {reference} has {counted(len(there))}."
    shared = min(sum(last <= parts.shared_start for _, last in words) for words in (here, there))
    begun = f"The same as {reference} up to word {shared}" if shared else "From the first word"
    begun += f" ({counted(tokens, 'token')})" if shared and tokens else ""
    if parts.shared_start == len(parts.text.spans) and 0 < shared < len(there):
        return f"{begun}, then it ends; {reference} goes on for {counted(len(there) - shared)}."
    if parts.shared_start == len(parts.reference.spans) and 0 < shared < len(here):
        return f"{begun}, then it goes on for {counted(len(here) - shared)}."
    begun = f"{begun}, {'then ' if shared else ''}{first_apart(parts, reference)}."
    changed, missing = touched(here, [run[2:] for run in parts.runs]), touched(there, [run[:2] for run in parts.runs])
    if not changed + missing:
        return f"{begun} All words are the same; only punctuation differs."
    verb = "is" if changed + missing == 1 else "are"
    return f"{begun} {changed} of its {counted(len(here))} and {missing} of {reference}'s {len(there)} {verb} marked."


def first_apart(parts: Difference, reference: str) -> str:
    """What each of the two says where they part."""
    there, there_end, here, here_end = parts.runs[0]
    if here == here_end:
        return f"it leaves out {parts.reference.quoted(there, there_end)}"
    if there == there_end:
        return f"it adds {parts.text.quoted(here, here_end)}"
    return f"{parts.text.quoted(here, here_end)} where {reference} has {parts.reference.quoted(there, there_end)}"


def words_in(words: Words) -> list[tuple[int, int]]:
    """The words of a text as people count them, each as a range of `words.spans`: a punctuation mark is none, "don't" is one."""
    found, text, spans = [], words.text, words.spans
    last = None  # the span that the latest word ends with
    for index, (start, end) in enumerate(spans):
        if not any(map(str.isalnum, text[start:end])):
            continue
        if last is not None and in_one_word(text[spans[last][1] : start]):
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
        last = index
    return found


def in_one_word(between: str) -> bool:
    """Whether letters before and after these characters are of one word: a single apostrophe and the like, or accents and vowel signs."""
    return between in SIGNS_IN_WORDS or (between != "" and all(category(sign)[0] == "M" for sign in between))


def touched(words: Sequence[tuple[int, int]], ranges: Sequence[Sequence[int]]) -> int:
    """How many words have a part in one of the ranges of spans; both in their order in the text."""
    return sum(any(first < end and start < last for start, end in ranges) for first, last in words)


def shared_tokens(reference: Sequence[int], answer: Sequence[int]) -> int:
    """With how many equal tokens two answers begin."""
    return len(commonprefix([list(reference), list(answer)]))


def counted(number: int, thing: str = "word") -> str:
    """`1 word`, `2 words`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
