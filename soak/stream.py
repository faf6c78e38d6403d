"""Server-sent events as they come over HTTP."""

from collections.abc import Iterable, Iterator


class Lines:
    """Lines of a stream, each once it is whole.

    httpx's `iter_lines` ends a line at every line separator of Unicode; the JSON of an event may hold those, and ends at a line feed alone.
    """

    def __init__(self):
        self._rest = ""

    def of(self, text: str) -> list[str]:
        """The lines that end in this piece of the stream."""
        *whole, self._rest = (self._rest + text).split("\n")
        return whole


def lines_of(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a stream that comes in these pieces."""
    lines = Lines()
    for piece in pieces:
        yield from lines.of(piece)
