"""Who may use a base now: one thread at a time, first come, first served. Knows no model."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LOOKS = 0.05  # at a request's own cancellation, while it waits


class TurnCancelled(Exception):
    """A thread that waited for its turn was cancelled: nothing has run for it."""


class TurnQueue:
    """A lock with a line: whoever releases it and asks again stands behind all who wait.

    A plain lock is given to whoever is quickest, which is most often the thread that has just released it: a long request that
    works in turns would never let a short one in. The owner may take it again, as in `threading.RLock`.
    """

    def __init__(self):
        self._condition = threading.Condition()
        self._line: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Own the base until the end of the block.

        Args:
            cancelled: Set by anybody to leave the line.

        Raises:
            TurnCancelled: `cancelled` was set before the turn came.
        """
        self._acquire(cancelled)
        try:
            yield
        finally:
            self._release()

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread owns the base."""
        return self._owner == threading.get_ident()

    @property
    def waiting(self) -> int:
        """How many threads stand in the line."""
        return len(self._line)

    def _acquire(self, cancelled: threading.Event | None) -> None:
        if self.is_mine:
            self._depth += 1
            return
        ticket = object()
        timeout = None if cancelled is None else _SECONDS_BETWEEN_LOOKS
        with self._condition:
            self._line.append(ticket)
            try:
                while self._owner is not None or self._line[0] is not ticket:
                    if cancelled is not None and cancelled.is_set():
                        raise TurnCancelled
                    self._condition.wait(timeout)
                self._owner, self._depth = threading.get_ident(), 1
            finally:
                self._line.remove(ticket)
                self._condition.notify_all()  # whoever is first now may have become so by our leaving the line

    def _release(self) -> None:
        with self._condition:
            self._depth -= 1
            if self._depth == 0:
                self._owner = None
                self._condition.notify_all()
