"""A command as a person starts it, which must be answered before the large packages are imported."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Runs a file or a module as a person does, and says at the end what of the large packages was imported.
RUN = """
import runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
try:
    (runpy.run_path if name.endswith(".py") else runpy.run_module)(name, run_name="__main__")
finally:
    print(sorted({"gradio", "numpy", "peft", "torch", "transformers"} & sys.modules.keys()))
"""


def run(*arguments: str, brings: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess:
    """Run it; of the large packages it imports no others than `brings`."""
    command = [sys.executable, "-c", RUN, *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ended.stdout.endswith(f"{list(brings)}\n"), ended
    assert "Traceback" not in ended.stderr
    return ended
