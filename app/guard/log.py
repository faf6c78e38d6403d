"""What the app writes to its log, bounded: whoever sends nonsense all day must not fill the disk.

Gradio prints a traceback for each request that it cannot take, uvicorn and this project log others; all of it goes to stderr. So the
bound is there: a text that was written often is counted instead, a long line is cut, and the rest has a number of lines per minute.
"""

import io
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

OFTEN = 3  # times that the same text is written
LONGEST_LINE = 500  # characters
BURST_LINES, LINES_PER_MINUTE = 600, 30  # of one event, such as a start that fails; in the long run
FORGET_SECONDS = 3600.0  # after which a text counts as new, and the count of what was left out is written
MOST_KEYS, LONGEST_KEY = 1000, 2000  # different texts that are remembered; characters of one, from its end

TRACEBACK = "Traceback (most recent call last):"


class BoundedLog(io.TextIOBase):
    """A text stream in front of another one. A whole traceback counts as one text, known by its frames and the kind of its error."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.lock = threading.RLock()
        self.started: dict[int, str] = {}  # the line that a thread has begun
        self.traceback: dict[int, list[str]] = {}  # and its traceback that has not ended
        self.times: Counter[str] = Counter()
        self.left_out = 0
        self.lines = float(BURST_LINES)  # that may be written now
        self.filled = self.told = time.monotonic()

    def write(self, text: str) -> int:
        """Take a text as any stream does. Lines that rewrite themselves on a terminal pass as they are."""
        with self.lock:
            thread = threading.get_ident()
            if text.startswith("\r"):
                self.out(text)
                return len(text)
            *lines, rest = (self.started.pop(thread, "") + text).split("\n")
            if rest:
                self.started[thread] = rest[: 2 * LONGEST_LINE]
            for line in lines:
                self.take(thread, line)
        return len(text)

    def take(self, thread: int, line: str) -> None:
        """One line: of a traceback, whose last one is not indented, or a text of its own."""
        begun = self.traceback.get(thread)
        if begun is None and not line.startswith(TRACEBACK):
            self.put([line], line)
        elif begun is None:
            self.traceback[thread] = [line]
        else:
            begun.append(line)
            if not line[:1].isspace():
                del self.traceback[thread]
                kind, _, _ = line.partition(":")  # what the error says may be different each time
                self.put(begun, "\n".join([*begun[:-1], kind]))

    def put(self, lines: list[str], key: str) -> None:
        """Write these lines, or count them."""
        self.refill()
        key = key[-LONGEST_KEY:]
        if self.times[key] >= OFTEN or self.lines < len(lines):
            self.left_out += 1
            return
        if len(self.times) < MOST_KEYS:
            self.times[key] += 1
        self.lines -= len(lines)
        for line in lines:
            self.out((line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}...") + "\n")

    def refill(self) -> None:
        """More lines with time; and once in a while, how many texts were left out."""
        now = time.monotonic()
        self.lines = min(BURST_LINES, self.lines + (now - self.filled) * LINES_PER_MINUTE / 60)
        self.filled = now
        if now - self.told > FORGET_SECONDS:
            self.tell()
            self.told = now
            self.times.clear()

    def tell(self) -> None:
        """How many texts were left out since it was told last."""
        if self.left_out:
            self.out(f"({self.left_out:,} texts like earlier ones, or too many at once, are left out of this log.)\n")
        self.left_out = 0

    def out(self, text: str) -> None:
        """To the stream behind. A log on a full disk, or that nobody reads any more, ends no request and no start."""
        with suppress(OSError):
            self.stream.write(text)

    def flush(self) -> None:
        """Of the stream behind."""
        with suppress(OSError):
            self.stream.flush()

    def isatty(self) -> bool:
        """Whether the stream behind is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Of the stream behind: what is written to it by others is not bounded."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:
        """Of the stream behind."""
        return self.stream.encoding


@contextmanager
def bounded_log() -> Iterator[None]:
    """stderr through a BoundedLog, for logging, warnings and tracebacks alike."""
    before, log = sys.stderr, BoundedLog(sys.stderr)
    sys.stderr = log
    try:
        yield
    finally:
        sys.stderr = before
        log.tell()
        for begun in log.traceback.values():
            before.write("\n".join(begun) + "\n")
