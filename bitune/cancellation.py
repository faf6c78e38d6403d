"""A request that nobody wants any more: whoever knows it says so, and whatever runs for it ends before its next step.

Who runs a request puts a block around all of it, `cancellable(event)`; nothing in between has to hand the event on. Inside of the block a
turn on the base is waited for only until the event is set (adapters/turns.py), and what runs in a turn looks before every layer.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Cancelled(Exception):
    """The request was stopped: on its way through the model, or while it waited for its turn and nothing had run for it."""


_CURRENT: ContextVar[threading.Event | None] = ContextVar("bitune_cancelled", default=None)


@contextmanager
def cancellable(cancelled: threading.Event) -> Iterator[None]:
    """Whatever the calling thread asks of a base until the end of the block raises Cancelled soon after `cancelled` is set."""
    token = _CURRENT.set(cancelled)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> threading.Event | None:
    """The event of the block that the calling thread is in; None where it is in none."""
    return _CURRENT.get()


def check(cancelled: threading.Event | None) -> None:
    """Raise Cancelled once it is set."""
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


class PartOf(threading.Event):
    """The event of a part of a request, which may also be stopped alone: set when itself or the event of the whole is.

    A part has its own thread, which is in no block; `whole` is the event of the block in which the part was begun.
    """

    def __init__(self, whole: threading.Event | None):
        super().__init__()
        self._whole = whole

    def is_set(self) -> bool:
        return super().is_set() or (self._whole is not None and self._whole.is_set())
