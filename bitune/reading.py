"""How far a request is with reading its prompt: told by what runs the passes, looked at from other threads by whoever waits.

Who runs a request puts a block around all of it, `followed(reading)`; nothing in between has to hand the reading on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Reading:
    """Counts tokens, each as often as a pass reads it in a layer."""

    def __init__(self):
        self._expected = self._done = 0

    def expect(self, tokens: int) -> None:
        """So many more will be read: tokens times passes times layers."""
        self._expected += tokens

    def add(self, tokens: int) -> None:
        """So many are being read, of all passes of a forward in one layer."""
        self._done += tokens

    @property
    def share(self) -> float | None:
        """From 0 to below 1; None where nothing is left to read, as far as is known."""
        return self._done / self._expected if self._done < self._expected else None


_CURRENT: ContextVar[Reading | None] = ContextVar("bitune_reading", default=None)


@contextmanager
def followed(reading: Reading) -> Iterator[None]:
    """What the calling thread reads until the end of the block is counted in `reading`."""
    token = _CURRENT.set(reading)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> Reading | None:
    """The reading of the block that the calling thread is in; None where it is in none."""
    return _CURRENT.get()
