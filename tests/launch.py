"""Starts a command of bitune over several processes, as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# `accelerate launch --cpu` starts one process whatever the number; over several it launches as for GPUs, and accelerate,
# told to use the CPU, talks over gloo. Port 0 is any that is free: others may run tests on this machine.
_LAUNCH = (
    "accelerate.commands.launch --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no --num_processes"
)
_SHARDED = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]


def launched(folder: Path, arguments: list[object], processes: int = 1, *, sharded: bool = False) -> subprocess.CompletedProcess:
    """What `python -m bitune arguments` did in `folder`, over `processes` processes, `sharded` by FSDP; AssertionError if it failed."""
    launcher = [] if processes == 1 else [*_LAUNCH.split(), str(processes), *(_SHARDED if sharded else ["--multi_gpu"]), "-m"]
    module = "tests.training.sharded_command" if sharded else "bitune"
    done = subprocess.run(
        [sys.executable, "-m", *launcher, module, *map(str, arguments), "--dtype", "float32"],  # on any CPU
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
