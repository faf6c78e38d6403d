"""Characters that are spread over several tokens: which tokens those are, and what they write together. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

UNFINISHED = "\ufffd"  # what a tokenizer puts for bytes that are not yet a character
MOST_BYTES = 4  # of a character, and so most tokens that one can be spread over


@dataclass(frozen=True)
class Spread:
    """Tokens `start` to `end`, the end not among them, which write `text` together; none of them can be read alone."""

    start: int
    end: int
    text: str


def spread_characters(ids: Sequence[int], texts: Sequence[str], decode: Callable[[Sequence[int]], str]) -> list[Spread]:
    """The characters of a text that take several tokens each, in their order.

    Args:
        ids: The tokens.
        texts: What each of them is alone.
        decode: What several tokens are together.
    """
    found, at = [], 0
    while at < len(ids):
        ends = range(at + 2, min(at + MOST_BYTES, len(ids)) + 1) if UNFINISHED in texts[at] else ()
        end = next((end for end in ends if UNFINISHED not in decode(ids[at:end])), at + 1)
        if end > at + 1:
            found.append(Spread(at, end, decode(ids[at:end])))
        at = end
    return found
