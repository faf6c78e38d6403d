"""What is being done just now, and how far it is: one line on stderr for whatever takes longer than a person waits in silence.

On a terminal the line is rewritten, and goes when the work is done; elsewhere it is printed after a second and again from time to time.
Whoever shows it in another place asks for `now`.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import TextIO

from bitune import distributed

TERMINAL_SECONDS = 0.25
"""Between two looks at a line that is rewritten."""
FIRST_SECONDS, AGAIN_SECONDS = 1.0, 10.0
"""Before a line in a log, and between two of them."""


class Activity:
    """Something that is being done. `done` and `total` in bytes; `total` None where nobody knows it."""

    def __init__(self, words: str):
        self.words = words
        self.started = time.monotonic()
        self.done = 0
        self.total: int | None = None

    def reached(self, done: int, total: int | None) -> None:
        """So many bytes are done; of several counts, by any thread, the largest counts."""
        self.done = max(self.done, int(done))
        self.total = max(self.total or 0, int(total)) if total else self.total

    def __str__(self) -> str:
        """Such as `Downloading the base from the Hub: 45 of 98 MB, 12 s`."""
        size = f"{self.done / 1e6:.0f}{f' of {self.total / 1e6:.0f}' if self.total else ''} MB" if self.done else ""
        seconds = int(time.monotonic() - self.started)
        facts = [fact for fact in (size, f"{seconds} s" if seconds else "") if fact]
        return f"{self.words}: {', '.join(facts)}" if facts else f"{self.words} ..."


_lock = Lock()
_activities: list[Activity] = []  # begun and not ended; the latest is what is shown
_shown: "_Line | None" = None


def now() -> str | None:
    """What is being done at this moment, as one line; None where nothing is."""
    latest = _activities[-1:]
    return str(latest[0]) if latest else None


@contextmanager
def doing(words: str) -> Iterator[Activity]:
    """Show these words while something is done.

    Args:
        words: what is done, with a capital letter and no stop.

    Returns:
        The activity, for whoever knows how many bytes are done.
    """
    global _shown
    activity = Activity(words)
    with _lock:
        _activities.append(activity)
        if _shown is None and distributed.is_main():
            _shown = _Line(sys.stderr)
    try:
        yield activity
    finally:
        with _lock:
            _activities.remove(activity)
            ended, _shown = (None, _shown) if _activities else (_shown, None)
        if ended is not None:
            ended.end()


class _Line:
    """A thread that keeps the line as it should be until there is nothing more to show."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.over = Event()
        self.thread = Thread(target=self._rewrite if stream.isatty() else self._print, name="progress", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Take the line away; whatever is printed next begins on a clean one."""
        self.over.set()
        self.thread.join()

    def _rewrite(self) -> None:
        while not self.over.wait(TERMINAL_SECONDS):
            self._write(f"\r\x1b[2K{(now() or '')[: shutil.get_terminal_size().columns - 1]}")
        self._write("\r\x1b[2K")

    def _print(self) -> None:
        seconds = FIRST_SECONDS
        while not self.over.wait(seconds):
            if (words := now()) is not None:  # it may have ended just now
                self._write(f"{words}\n")
            seconds = AGAIN_SECONDS

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
