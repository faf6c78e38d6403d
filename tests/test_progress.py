"""The line that says what is being done: on a terminal one that is rewritten and goes, elsewhere plain lines, and the latest of several."""

import io
import time

from bitune import progress
from bitune.hub import _bar_of
from bitune.progress import Activity, doing, now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_words_size_and_time(monkeypatch):
    activity = Activity("Downloading")
    assert str(activity) == "Downloading ..."
    activity.reached(45_400_000, None)
    assert str(activity) == "Downloading: 45 MB"
    activity.reached(45_400_000, 98_362_432)
    activity.started -= 12
    assert str(activity) == "Downloading: 45 of 98 MB, 12 s"
    activity.reached(10, 20)
    assert str(activity) == "Downloading: 45 of 98 MB, 12 s", "of several counts the largest"


def test_the_latest_that_has_not_ended_is_what_is_done_now():
    assert now() is None
    with doing("Loading"):
        with doing("Checking"):
            assert now() == "Checking ..."
        assert now() == "Loading ..."
    assert now() is None


def test_on_a_terminal_the_line_is_rewritten_and_goes(monkeypatch):
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.001)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with doing("Loading"):
        wait_until(lambda: "Loading" in terminal.getvalue())
        with doing("Checking"):
            wait_until(lambda: "Checking" in terminal.getvalue())
    written = terminal.getvalue()
    assert written.endswith("\r\x1b[2K") and "\n" not in written
    time.sleep(0.01)
    assert terminal.getvalue() == written, "nothing is written after its end"


def test_elsewhere_it_is_printed_when_it_takes_longer_and_again(monkeypatch):
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    with doing("Importing"):
        pass
    assert log.getvalue() == "", "what is done at once is not worth a line"
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(progress, "AGAIN_SECONDS", 0.001)
    with doing("Loading"):
        wait_until(lambda: log.getvalue().count("\n") >= 2)
    assert set(log.getvalue().splitlines()) <= {"Loading ...", "Loading: 1 s"}


def test_other_processes_of_a_launch_say_nothing(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.001)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with doing("Loading"):
        time.sleep(0.01)
        assert now() == "Loading ..."
    assert terminal.getvalue() == ""


def test_bytes_are_those_that_huggingface_hub_counts():
    download = Activity("Downloading")
    files = _bar_of(download)(total=3, unit="it", desc="Fetching 3 files")
    files.update(2)
    assert (download.done, download.total) == (0, None)
    with _bar_of(download)(total=0, unit="B", name="huggingface_hub.http_get") as bar:
        bar.total += 10
        bar.update(4)
        bar.update(3)
    assert (download.done, download.total) == (7, 10)
