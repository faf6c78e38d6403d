"""The app under test, as a process of its own: started as a person starts it, watched, and ended."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from bitune.errors import BituneError
from soak.stream import lines_of

ROOT = Path(__file__).parent.parent
START_SECONDS = 300


class NotServedError(BituneError):
    """The app has ended, or does not answer."""


class App:
    """A running app.

    Attributes:
        url: Of its page.
        log: The file that has what it prints.
    """

    def __init__(self, process: subprocess.Popen, port: int, log: Path):
        self.process, self.url, self.log = process, f"http://127.0.0.1:{port}", log

    def megabytes(self) -> float:
        """Resident memory of its process and of those that it has started."""
        parent = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (parent, *parent.children(recursive=True))) / 2**20

    def threads(self) -> int:
        """How many threads its process has."""
        return psutil.Process(self.process.pid).num_threads()

    @contextmanager
    def room(self, megabytes: int) -> Iterator[None]:
        """Until the end of the block it may take only so much more memory: the device is nearly full."""
        process = psutil.Process(self.process.pid)
        before = process.rlimit(psutil.RLIMIT_AS)
        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + megabytes * 2**20, before[1]))
        try:
            yield
        finally:
            process.rlimit(psutil.RLIMIT_AS, before)

    def end(self, signal_number: int = signal.SIGTERM, most_seconds: float = 30) -> float:
        """Send a signal and wait; returns the seconds until the process was gone, infinity where it had to be killed."""
        started = time.monotonic()
        self.process.send_signal(signal_number)
        try:
            self.process.wait(most_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return float("inf")
        return time.monotonic() - started


@contextmanager
def started(log: Path, flags: Sequence[object] = (), environment: dict[str, str] | None = None) -> Iterator[App]:
    """Start `python app.py` with these flags on a free port, and wait until its model is loaded; at the end it is killed.

    Raises:
        NotServedError: It ended, or its model is not there within START_SECONDS; the sentence ends with what it printed last.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), *map(str, flags)]
    with open(log, "w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | (environment or {}), stdout=said, stderr=subprocess.STDOUT, preexec_fn=_no_core
        )
    app = App(process, port, log)
    try:
        _wait_until_loaded(app)
        yield app
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _wait_until_loaded(app: App) -> None:
    """/mixing answers when the model is there, and runs nothing."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if app.process.poll() is not None:
            raise NotServedError(f"The app ended with status {app.process.returncode}: {app.log.read_text()[-500:]}")
        try:
            posted = httpx.post(f"{app.url}/gradio_api/call/v2/mixing", json={}, timeout=10).json()
            with httpx.stream("GET", f"{app.url}/gradio_api/call/mixing/{posted['event_id']}", timeout=START_SECONDS) as answer:
                if any(line == "event: complete" for line in lines_of(answer.iter_text())):
                    return
        except httpx.TransportError:
            time.sleep(0.5)
    raise NotServedError(f"The app has not loaded its model within {START_SECONDS} s: {app.log.read_text()[-500:]}")
