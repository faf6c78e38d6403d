"""The page as a process of its own, as a host starts it."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.browser.served import METHODS, tiny_folders

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class App:
    """A page that has been opened; what is loaded may still be on its way."""

    address: str
    process: subprocess.Popen


def tiny_flags(folder: Path) -> list[str]:
    """A tiny base with its checkpoints, written to `folder`, as flags; on any free port."""
    tiny_folders(folder)
    return ["--base", f"{folder}/base", *(f"--checkpoint={folder}/{method}" for method in METHODS), "--port=0"]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def started(
    flags: Sequence[str], environment: Mapping[str, str], command: Sequence[str] = (sys.executable,), folder: Path = ROOT
) -> Iterator[App]:
    """`python app.py` until the end of the block. `command`: what starts Python; `folder`: the checkout."""
    with tempfile.TemporaryFile("w+") as errors:
        variables = os.environ | {"PYTHONUNBUFFERED": "1"} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": errors, "text": True}
        process = subprocess.Popen([*command, "app.py", *flags], cwd=folder, env=variables, **pipes)
        try:
            lines = []
            for line in iter(process.stdout.readline, ""):
                lines.append(line)
                if "Running on local URL" in line:
                    yield App(line.split()[-1].rstrip("/"), process)
                    return
            errors.seek(0)
            raise AssertionError(f"no page was opened:\n{''.join(lines)}\n{errors.read()[-3000:]}")
        finally:
            process.terminate()
            process.communicate(timeout=60)
