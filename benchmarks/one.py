"""One group of figures, in the process that `python -m benchmarks` starts for it: python -m benchmarks.one GROUP SETTING OUTPUT

SETTING is a JSON object; OUTPUT becomes {"figures": ..., "run": ...}, or {"skipped": sentence}. `prepare` is a group too.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.bases import prepare
from benchmarks.figures import chosen_groups
from benchmarks.measures import Measured
from benchmarks.record import facts_of
from benchmarks.setting import Setting, Skipped

PREPARE = "prepare"


def setting_of(text: str) -> Setting:
    """A setting as `__main__` sends it."""
    values = json.loads(text)
    return Setting(**values | {name: Path(values[name]) for name in ("folder", "llama") if values[name] is not None})


def measure(name: str, setting: Setting) -> dict[str, Measured]:
    """The figures of a group; none of `prepare`."""
    torch.set_num_threads(setting.threads)
    if name == PREPARE:
        prepare(setting)
        return {}
    (group,) = chosen_groups([name], shape=setting.shape is not None)
    return group.measure(setting)


def main() -> None:
    name, setting, output = sys.argv[1], setting_of(sys.argv[2]), Path(sys.argv[3])
    try:
        figures = measure(name, setting)
        result: dict[str, object] = {"figures": {name: asdict(one) for name, one in figures.items()}, "run": facts_of(setting)}
    except Skipped as reason:
        result = {"skipped": str(reason)}
    output.write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main()
