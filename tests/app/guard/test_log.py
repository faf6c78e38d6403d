"""The log says what happened, and stays small whatever is sent."""

import io
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from threading import Thread

import pytest

from app.guard import log
from app.guard.log import BURST_LINES, LONGEST_LINE, OFTEN, BoundedLog, bounded_log


@pytest.fixture
def behind():
    """What stands behind stderr."""
    return io.StringIO()


@contextmanager
def bounded(behind: io.StringIO) -> Iterator[None]:
    with redirect_stderr(behind), bounded_log():
        yield


def fail(words: str) -> None:
    try:
        raise ValueError(words)
    except ValueError:
        traceback.print_exc()


def test_the_same_traceback_is_written_a_few_times_whatever_its_error_says(behind):
    with bounded(behind):
        for number in range(1000):
            fail(f"number {number} " + "x" * 100_000)
    text = behind.getvalue()
    assert text.count("Traceback") == text.count("ValueError: number") == OFTEN
    assert max(map(len, text.splitlines())) <= LONGEST_LINE + 3
    assert "(997 texts like earlier ones, or too many at once, are left out of this log.)" in text


def test_another_traceback_is_written_after_a_thousand_of_one_kind(behind):
    with bounded(behind):
        for _ in range(1000):
            fail("x")
        try:
            int("x")
        except ValueError:
            traceback.print_exc()
    assert "ValueError: invalid literal" in behind.getvalue()


def test_texts_that_are_all_different_have_a_number_of_lines(behind):
    with bounded(behind):
        for number in range(10 * BURST_LINES):
            print(f"nonsense {number}", file=sys.stderr)
    assert BURST_LINES <= behind.getvalue().count("\n") < 2 * BURST_LINES


def test_lines_come_back_with_time_and_texts_are_new_after_an_hour(behind, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: clock[0])
    stream = BoundedLog(behind)
    for number in range(2 * BURST_LINES):
        stream.write(f"{number}\n")
    clock[0] = 120.0
    stream.write("after two minutes\n")
    assert "after two minutes" in behind.getvalue()
    for _ in range(2 * OFTEN):
        stream.write("again\n")
    clock[0] = 4000.0
    stream.write("again\n")
    assert behind.getvalue().count("again") == OFTEN + 1
    assert f"({BURST_LINES + OFTEN:,} texts" in behind.getvalue()


def test_a_record_of_logging_and_a_line_that_rewrites_itself_arrive_as_they_are(behind):
    with bounded(behind):
        handler = logging.StreamHandler()
        logger = logging.Logger("test")
        logger.addHandler(handler)
        try:
            int("x")
        except ValueError:
            logger.exception("a request failed")
        sys.stderr.write("\r\x1b[2Khalf")
        assert behind.getvalue().endswith("\r\x1b[2Khalf")
    lines = behind.getvalue().splitlines()
    assert lines[:2] == ["a request failed", "Traceback (most recent call last):"]
    assert any(line.startswith("ValueError: invalid literal") for line in lines)


def test_tracebacks_of_several_threads_are_kept_apart(behind):
    with bounded(behind):
        threads = [Thread(target=fail, args=("x",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = behind.getvalue().splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines.count("ValueError: x") == OFTEN
    assert lines[: len(lines) // OFTEN] * OFTEN == lines[:-1], "each of one piece"


def test_memory_is_bounded_too(behind):
    stream = BoundedLog(behind)
    for number in range(5 * log.MOST_KEYS):
        stream.write(f"{number} {'x' * 10_000}\n")
    stream.write("x" * 10_000_000)
    assert len(stream.times) <= log.MOST_KEYS and max(map(len, stream.times)) <= log.LONGEST_KEY
    assert all(len(begun) < 10_000 for begun in stream.started.values())


def test_a_log_that_cannot_be_written_stops_nothing():
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115 (closing it writes again what cannot be written)
    with redirect_stderr(full), bounded_log():
        fail("x")
        print("a line", file=sys.stderr, flush=True)
        sys.stderr.write("\rhalf\n")
        sys.stderr.flush()
    with suppress(OSError):
        full.close()
