"""What was measured, as JSON in assets/results: each figure with the run that it comes from. Knows no torch."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.measures import Measured
from benchmarks.setting import Setting
from bitune.outputs import write_whole

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "assets" / "results"
LIBRARIES = ("torch", "transformers", "peft", "gradio")


@dataclass(frozen=True)
class Results:
    """A file of results: figures by name, and of each the facts of its run: base, machine, versions, day, commit."""

    figures: Mapping[str, Measured]
    runs: Mapping[str, Mapping[str, object]]

    def with_run(self, figures: Mapping[str, Measured], run: Mapping[str, object]) -> "Results":
        """These results, with figures of another run in the place of those of the same name."""
        return Results({**self.figures, **figures}, {**self.runs, **dict.fromkeys(figures, run)})


def path_of(setting: Setting) -> Path:
    """Where the results of a base are kept."""
    name = setting.base if setting.shape is None else f"{setting.shape}-random"
    return RESULTS / f"{Path(name).name}.json"


def read(path: Path) -> Results:
    """The results in a file, none if there is no file."""
    if not path.is_file():
        return Results({}, {})
    content = json.loads(path.read_text("utf-8"))
    figures = {
        name: Measured(**{key: value for key, value in one.items() if key != "run"}) for name, one in content["figures"].items()
    }
    return Results(figures, {name: content["runs"][one["run"]] for name, one in content["figures"].items()})


def write(results: Results, path: Path) -> None:
    """Numbers with four digits; runs that are alike are written once."""
    runs: list[Mapping[str, object]] = []
    for run in results.runs.values():
        if run not in runs:
            runs.append(run)
    figures = {
        name: {key: _short(value) for key, value in asdict(one).items()} | {"run": runs.index(results.runs[name])}
        for name, one in results.figures.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"runs": runs, "figures": figures}, indent=1) + "\n")


def facts_of(setting: Setting) -> dict[str, object]:
    """What a figure depends on besides the code."""
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "base": setting.base,
        "dtype": setting.dtype,
        "device": device_name(setting),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": setting.threads,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.system(),
    } | {name: version(name) for name in LIBRARIES if find_spec(name)}  # a GPU box may have no gradio


def device_name(setting: Setting) -> str:
    """`cpu`, or what the GPU is called."""
    if not setting.device.startswith("cuda"):
        return setting.device
    import torch  # a process that only writes tables has no use for it

    return torch.cuda.get_device_name(setting.device)


def processor() -> str:
    """The model of the CPU."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """The commit that is measured, with a + behind it where the code has been changed since; "unknown" where there is no git."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return "unknown"
    return _git("rev-parse", "--short", "HEAD") + (
        "+" if _git("status", "--porcelain", "--", "bitune", "app", "benchmarks") else ""
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
