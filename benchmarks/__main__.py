"""The command line: python -m benchmarks [NAME ...] measures, each group of figures in a process of its own. Knows no torch."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import record
from benchmarks.figures import FIGURES, GROUPS, chosen_groups
from benchmarks.measures import Measured
from benchmarks.setting import SHAPE, Setting
from benchmarks.table import row
from bitune.errors import BituneError
from bitune.flags import Flags, number, status_of
from bitune.outputs import check_file, full_path

MOST_SECONDS = 600  # of one group: then it is ended, and the others go on
QUIET = 0.5  # load average: others that compute slow down the two sides of a ratio unlike


class Failed(Exception):
    """A group ended by an error; its text is what the process said last."""


def parser() -> Flags:
    """The flags."""
    names = ", ".join(group.name for group in GROUPS)
    flags = Flags(prog="python -m benchmarks", description=f"Measure speed and memory. Groups of figures: {names}.")
    flags.add_argument("names", nargs="*", metavar="NAME", help="groups or figures; left out: all that the base can be asked")
    flags.add_argument(
        "--base", default=Setting.base, help=f"as bitune takes it, or {SHAPE}gemma-2b, {SHAPE}llama-3-8b: random weights"
    )
    flags.add_argument("--device", default=Setting.device, help="cpu, cuda, mps")
    flags.add_argument("--dtype", default=Setting.dtype, help="float32, bfloat16, float16; int8 on a CPU")
    flags.add_argument("--threads", type=number(int, 1), default=Setting.threads, help="in which torch computes on a CPU")
    flags.add_argument("--rounds", type=number(int, 1), default=Setting.rounds, help="how often each thing is measured")
    flags.add_argument("--quick", action="store_true", help="a few tokens of each, to see that it runs; kept only with --output")
    flags.add_argument("--llama", type=Path, metavar="FOLDER", help="where node-llama-cpp is installed, see benchmarks/llama.py")
    flags.add_argument("--output", type=Path, metavar="FILE", help="figures are put into it; default: assets/results/BASE.json")
    return flags


def run_group(name: str, setting: Setting) -> dict:
    """What `benchmarks.one` has written for a group, in a process of its own; Failed if it ended otherwise."""
    output = setting.folder / f"{name}.json"
    text = json.dumps(asdict(setting), default=str)
    command = [sys.executable, "-m", "benchmarks.one", name, text, str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads), "HF_HUB_DISABLE_TELEMETRY": "1"}
    with open(setting.folder / f"{name}.txt", "w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=record.ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"It took longer than {MOST_SECONDS} s.") from None
        finally:
            end(process)
        said.seek(0)
        if status != 0:
            raise Failed("".join(said.readlines()[-12:]))
    return json.loads(output.read_text("utf-8"))


def end(process: subprocess.Popen) -> None:
    """End the process and all that it has started, if something of it runs still."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def measure(names: Sequence[str], setting: Setting, output: Path | None) -> bool:
    """Measure the groups, say how each went, and keep what was measured at once; returns whether none has failed."""
    groups, failed = chosen_groups(names, shape=setting.shape is not None), []
    if (load := os.getloadavg()[0]) > QUIET:
        print(
            f"This machine is busy (load average {load:.1f}): ratios of a busy machine are not those of a quiet one.", flush=True
        )
    for name in ["prepare", *(group.name for group in groups)]:
        started = time.monotonic()
        try:
            result = run_group(name, setting)
        except Failed as error:
            failed.append(name)
            print(f"{name}: failed\n{error}", flush=True)
            if name == "prepare":
                break
            continue
        print(f"{name}: {result.get('skipped') or f'{time.monotonic() - started:.0f} s'}", flush=True)
        figures = {key: Measured(**value) for key, value in result.get("figures", {}).items()}
        for key, figure in figures.items():
            print("  " + row(FIGURES[key], figure), flush=True)
        if output is not None and figures:
            record.write(record.read(output).with_run(figures, result["run"]), output)
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    return not failed


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return status_of("benchmarks", partial(_measure, options))


def _measure(options: argparse.Namespace) -> int:
    if options.output:
        check_file(full_path(options.output))
    with TemporaryDirectory(prefix="bitune-benchmarks-") as folder:
        setting = Setting(
            folder=Path(folder),
            base=options.base,
            device=options.device,
            dtype=options.dtype,
            threads=options.threads,
            rounds=1 if options.quick else options.rounds,
            quick=options.quick,
            llama=options.llama and options.llama.resolve(),
        )
        output = options.output or (None if options.quick else record.path_of(setting))
        try:
            return 0 if measure(options.names, setting, output and output.resolve()) else 1
        except BituneError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl+C: what was started ends too
    sys.exit(main())
