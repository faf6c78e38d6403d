"""How long one waits for the page, and for a command that has nothing to load."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.measures import Measured, amount, in_turn, ratio, seconds
from benchmarks.setting import Setting
from bitune.base.default import EMBEDDED

ROOT = Path(__file__).parent.parent
MOST_SECONDS = 300


def python(*arguments: object) -> list[str]:
    """A command of this very Python."""
    return [sys.executable, *map(str, arguments)]


def taken(setting: Setting, succeeds: bool, *arguments: object) -> float:
    """Seconds that a command of Python takes from start to end; RuntimeError if it ends otherwise than it should."""
    ended: list[subprocess.CompletedProcess] = []

    def run() -> None:
        ended.append(subprocess.run(python(*arguments), cwd=ROOT, env=environment(setting), capture_output=True, text=True))

    time_taken = seconds(run)
    if (ended[0].returncode == 0) != succeeds:
        raise RuntimeError(f"{arguments} ended with status {ended[0].returncode}: {ended[0].stderr[-500:]}")
    return time_taken


def environment(setting: Setting) -> dict[str, str]:
    """As many threads as are measured with; nothing is asked of the Hub."""
    return os.environ | {"OMP_NUM_THREADS": str(setting.threads), "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


def first_answer(setting: Setting, flags: list[object]) -> float:
    """Seconds from `python app.py` to its first answer over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.perf_counter()
    command = python("app.py", "--port", port, *flags)
    app = subprocess.Popen(
        command, cwd=ROOT, env=environment(setting), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while not answers(port):
            if app.poll() is not None:
                raise RuntimeError(f"app.py ended with status {app.returncode}: {app.stderr.read()[-500:]}")
            if time.perf_counter() - started > MOST_SECONDS:
                raise RuntimeError(f"app.py has not answered within {MOST_SECONDS} s.")
            time.sleep(0.02)
        return time.perf_counter() - started
    finally:
        app.kill()
        app.communicate()


def answers(port: int) -> bool:
    """Whether the page is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=MOST_SECONDS) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def page(setting: Setting) -> dict[str, Measured]:
    """The page with the checkpoints that come with it; with others where it is another base."""
    flags: list[object] = []
    if setting.base != EMBEDDED.name:
        flags = ["--base", setting.base, "--checkpoint", setting.folder / "checkpoints" / "bitune"]
    works = {
        "import": lambda: taken(setting, True, "-c", "import gradio"),
        "page": lambda: first_answer(setting, flags),
    }
    times = in_turn(works, setting.few, warm_up=not setting.quick)
    return {"start": ratio(times["page"], times["import"])}


def command_line(setting: Setting) -> dict[str, Measured]:
    """What needs no model: help, a typo, a checkpoint that is not there; and Python alone, to hold them against."""
    missing = setting.folder / "checkpoints" / "missing"
    works = {
        "pass": lambda: taken(setting, True, "-c", "pass"),
        "help": lambda: taken(setting, True, "-m", "bitune", "--help"),
        "typo": lambda: taken(setting, False, "-m", "bitune", "generat", "hello"),
        "path": lambda: taken(setting, False, "-m", "bitune", "generate", "--checkpoint", missing, "hello"),
    }
    times = in_turn(works, setting.few, warm_up=not setting.quick)
    return {f"command-{name}": amount(values, "s") for name, values in times.items()}
