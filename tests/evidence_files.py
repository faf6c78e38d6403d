"""Files as `python -m study table` writes them, made up: predictions drawn at random, intervals of the usual approximation."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from bitune.data.examples import Example, example_of
from bitune.data.rows import normalized
from bitune.evaluation.report import item_id

# Name, method, kind, rank, parameters, seeds, share of right answers.
VARIANTS = (
    ("Base", "base", None, None, 0, [], 0.27),
    ("LoRA r8", "lora", "lora", 8, 2_442_240, [0, 1, 2], 0.41),
    ("LoRA r16", "lora", "lora", 16, 4_884_480, [0, 1, 2], 0.42),
    ("Bitune", "bitune", "lora", 8, 4_884_540, [0, 1, 2], 0.48),
    ("Only causal", "only_causal", "lora", 8, 4_884_540, [0], 0.41),
    ("IA3", "lora", "ia3", None, 38_880, [0], 0.31),
    ("Bitune (IA3)", "bitune", "ia3", None, 77_820, [0], 0.33),
)


def records(count: int, task: str = "quiz", choices: int = 4) -> list[dict]:
    """Questions of our own, as in a JSON Lines file."""
    return [
        {
            "task": task,
            "question": f"Which number is {number} in {task}?",
            "choices": [f"the number {number + k}" for k in range(choices)],
            "label": number % choices,
        }
        for number in range(count)
    ]


def sums(count: int) -> list[dict]:
    """Open questions."""
    return [{"task": "sums", "question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(count)]


def write_records(path: Path, records: Sequence[Mapping]) -> None:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def examples(records: Sequence[Mapping]) -> list[Example]:
    """The records as the evaluation reads them."""
    return [example_of(normalized(record, "")) for record in records]


def evidence(setting: str, tasks: Mapping[str, Sequence[Mapping]], variants: Sequence[tuple] = VARIANTS, seed: int = 0) -> dict:
    """The value of a file: `tasks` by title with their records; `variants` as VARIANTS."""
    draw = random.Random(seed)
    found = {title: examples(rows) for title, rows in tasks.items()}
    described = [task(title, read) for title, read in found.items()]
    rows = [row(variant, described, found, draw) for variant in variants]
    reference = next((r for r in rows if r["name"] == "LoRA r16"), None)
    for one in rows:
        against = kin(one, rows) or reference
        one["against"] = None if against in (None, one) else against["name"]
        one["minus"] = None if against in (None, one) else minus(one, against, described)
    return {
        "setting": setting,
        "title": f"The setting {setting}",
        "text": "Made up, to be looked at in tests.",
        "base": "tiny-llama",
        "reference": "LoRA r16",
        "tasks": described,
        "rows": rows,
    }


def kin(one: dict, rows: Sequence[dict]) -> dict | None:
    """The plain row of the kind that a Bitune of another kind than LoRA has."""
    alike = [row for row in rows if row["peft"] == one["peft"] != "lora" and row["method"] == "lora"]
    return alike[0] if alike and one["method"] == "bitune" else None


def task(title: str, read: Sequence[Example]) -> dict:
    """A task with its items."""
    choices = read[0].choices is not None
    items = [{"id": item_id(e.prompt), "right": e.label if choices else 1} for e in read]
    name = title.lower().replace("-", "_")
    return {
        "name": name,
        "title": title,
        "measure": "acc" if choices else "answer",
        "chance": 0.25 if choices else None,
        "items": items,
    }


def row(variant: tuple, tasks: Sequence[dict], found: Mapping[str, Sequence[Example]], draw: random.Random) -> dict:
    """A variant that is right as often as it says."""
    name, method, peft, rank, parameters, seeds, share = variant
    predictions = {t["name"]: [[guess(e, share, draw) for e in found[t["title"]]] for _ in (seeds or [0])] for t in tasks}
    trained = method != "base"
    accuracy = {t["name"]: interval([mean(one) for one in zip(*hits(t, predictions), strict=True)]) for t in tasks}
    for t in tasks:
        by_seed = [mean(one) for one in hits(t, predictions)]
        accuracy[t["name"]]["spread"] = stdev(by_seed) if len(by_seed) > 1 else None
    means = [accuracy[t["name"]] for t in tasks]
    spread = means[0]["spread"]
    accuracy["average"] = {key: mean(m[key] for m in means) for key in ("mean", "low", "high")} | {"spread": spread}
    return {
        "name": name,
        "method": method,
        "peft": peft,
        "rank": rank,
        "parameters": parameters,
        "seeds": seeds,
        "learning_rate": 0.001 if trained else None,
        "steps": 300 if trained else None,
        "minutes": 9.1 if trained else None,
        "accuracy": accuracy,
        "predictions": predictions,
    }


def guess(example: Example, share: float, draw: random.Random) -> int:
    """A prediction that is right with this probability."""
    if example.choices is None:
        return int(draw.random() < share)
    wrong = [place for place in range(len(example.choices)) if place != example.label]
    return example.label if draw.random() < share else draw.choice(wrong)


def hits(task: dict, predictions: Mapping[str, list]) -> list[list[float]]:
    """1 or 0, [seed][item]."""
    rights = [item["right"] for item in task["items"]]
    return [[float(p == r) for p, r in zip(seed, rights, strict=True)] for seed in predictions[task["name"]]]


def interval(values: Sequence[float]) -> dict:
    """Mean and interval."""
    middle, half = mean(values), 1.96 * stdev(values) / len(values) ** 0.5
    return {"mean": middle, "low": middle - half, "high": middle + half}


def minus(one: dict, other: dict, tasks: Sequence[dict]) -> dict:
    """The paired difference of two rows."""
    found = {}
    for t in tasks:
        pairs = zip(*hits(t, one["predictions"]), strict=True), zip(*hits(t, other["predictions"]), strict=True)
        found[t["name"]] = interval([mean(a) - mean(b) for a, b in zip(*pairs, strict=True)])
    found["average"] = {key: mean(share[key] for share in found.values()) for key in ("mean", "low", "high")}
    return found


def write_evidence(folder: Path, *found: dict) -> Path:
    """The folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        (folder / f"{one['setting']}.json").write_text(json.dumps(one), encoding="utf-8")
    return folder
