"""Starts a command of bitune over several processes, as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# `accelerate launch --cpu` starts one process whatever the number; over several it launches as for GPUs, and accelerate,
# told to use the CPU, talks over gloo. Port 0 is any that is free: others may run tests on this machine.
_LAUNCH = "accelerate.commands.launch --multi_gpu --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no --num_processes"


def launched(folder: Path, arguments: list[object], processes: int = 1) -> subprocess.CompletedProcess:
    """What `python -m bitune arguments` did in `folder`, over `processes` processes; AssertionError if it failed."""
    launcher = [] if processes == 1 else [*_LAUNCH.split(), str(processes), "-m"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "bitune", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
