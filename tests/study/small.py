"""A setting that runs in seconds, its runs, and results made by hand."""

import json
from dataclasses import replace

from study.plan import BITUNE, LORA, Run, Setting
from study.run import Study

SMALL = Setting(
    "choices", "Small", "A text.", ("a",), {"a": 6, "t": 4}, ("a",), "Ours.", steps=4, tuning_steps=2, batch_size=2, validation=3
)
METHODS = [replace(run, setting="choices", rank=rank) for run, rank in ((LORA, 4), (BITUNE, 2))]
BASELINE = Run("choices", "base")


def result(study: Study, run: Run) -> dict:
    return json.loads(study.file(run).read_text())


def one(method: str, seed: int, hits: list[int]) -> dict:
    """A result on a few items."""
    run = vars(replace(LORA if method == "lora" else BITUNE, setting="choices", seed=seed))
    measured = {
        "ids": list(map(str, range(len(hits)))),
        "right": [0] * len(hits),
        "measures": {"acc": {"predictions": hits, "hits": hits}},
    }
    settings = {"max_steps": 1, "per_device_train_batch_size": 2}
    return {"run": run, "measured": {"a": measured}, "settings": settings, "examples": 9, "training_seconds": 60}
