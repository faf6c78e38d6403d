"""Results of runs -> one evidence file a setting (what the app draws) and the tables of the README. Knows no model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitune.errors import ConfigError
from bitune.evaluation.intervals import Interval
from bitune.evaluation.report import ACC, ANSWER, write_json
from study.intervals import DIGITS, resampled
from study.plan import ALL_QUESTIONS, FULL, RANKED, RESULTS, SETTINGS, Run, Setting

EVIDENCE = Path(__file__).parent.parent / "assets" / "evidence"
REFERENCE = "LoRA r16"  # as many parameters as Bitune of rank 8
_METHODS = {
    "base": "Base",
    "bitune": "Bitune",
    "lora": "LoRA",
    "naive_bidirectional": "Naive bidirectional",
    "no_mixing": "No mixing",
    "only_causal": "Only causal",
    "shared_weights": "Shared weights",
    "anticausal": "Anti-causal",
}
_KINDS = {"dora": "DoRA", "ia3": "IA3", FULL: "Full fine-tuning"}


@dataclass(frozen=True)
class Row:
    """The runs of one method, one a seed, by seed."""

    name: str
    results: tuple[dict, ...]

    @property
    def run(self) -> Run:
        """The first of its runs."""
        return Run(**self.results[0]["run"])

    @property
    def seeds(self) -> list[int]:
        """Of every run; none for the base, which is not trained."""
        return [result["run"]["seed"] for result in self.results] if self.run.method != "base" else []

    def hits(self, task: str, measure: str) -> np.ndarray:
        """Right or not, [seeds, items]."""
        return np.array([result["measured"][task]["measures"][measure]["hits"] for result in self.results], np.float64)

    def predictions(self, task: str, measure: str) -> list[list]:
        """What was predicted, [seed][item]."""
        return [result["measured"][task]["measures"][measure]["predictions"] for result in self.results]


def measure_of(task: dict) -> str:
    """Which of a measurement's measures counts: `acc` for choices, `answer` for open answers."""
    return ACC if ACC in task["measures"] else ANSWER


def name_of(run: Run) -> str:
    """What a row is called; the rank is in it where a method comes with several."""
    if run.method == "lora":
        return _KINDS.get(run.peft, f"LoRA r{run.rank}")
    return _METHODS[run.method] + (f" ({_KINDS[run.peft]})" if run.peft in _KINDS else "")


def rows_of(setting: Setting, results: Sequence[dict]) -> list[Row]:
    """The finished runs of a setting, seeds of one method together, in the order of the table.

    ConfigError where results do not belong together: other items, other lengths of training, or a seed twice in one row.
    """
    by_name: dict[str, list[dict]] = {}
    for result in results:
        run = Run(**result["run"])
        if run.setting == setting.name and not run.tuning:
            by_name.setdefault(name_of(run), []).append(result)
    _check(by_name)
    kinds = [name for kind in _KINDS.values() for name in (kind, f"{_METHODS['bitune']} ({kind})")]
    first = ["Base", "LoRA r8", REFERENCE, "Bitune", *_METHODS.values(), *kinds]
    order = sorted(by_name, key=lambda name: (first.index(name) if name in first else len(first), name))
    return [Row(name, tuple(sorted(by_name[name], key=lambda r: r["run"]["seed"]))) for name in order]


def _check(by_name: dict[str, list[dict]]) -> None:
    for name, results in by_name.items():
        seeds = [result["run"]["seed"] for result in results]
        alike = [{k: v for k, v in result["run"].items() if k != "seed"} for result in results]
        if len(set(seeds)) < len(seeds) or any(run != alike[0] for run in alike):
            raise ConfigError(
                f"The results for {name!r} come from different settings or repeat a seed; remove those of an older plan."
            )
    _check_same(by_name, _length, "trained on more or less than the others; remove those of an older plan")
    _check_same(by_name, _items, "measured on other items than the others; remove it and run it again")


def _check_same(by_name: dict[str, list[dict]], fact: Callable[[dict], object], problem: str) -> None:
    """ConfigError where results differ in a fact; one that has none agrees with all."""
    first = None
    for name, results in by_name.items():
        for value in map(fact, results):
            if first is not None and value not in (None, first):
                raise ConfigError(f"A result for {name!r} was {problem}.")
            first = value if first is None else first


def _length(result: dict) -> tuple | None:
    """How much a run was trained on; None for the base."""
    if "settings" not in result:
        return None
    return result["settings"]["max_steps"], result["settings"]["per_device_train_batch_size"], result["examples"]


def _items(result: dict) -> dict[str, tuple]:
    return {task: (measured["ids"], measured["right"]) for task, measured in result["measured"].items()}


def evidence(setting: Setting, rows: Sequence[Row]) -> dict:
    """The evidence file of a setting as plain JSON values; shares are 0 to 1."""
    tasks = {name: rows[0].results[0]["measured"][name] for name in setting.limits}
    measures = {name: measure_of(task) for name, task in tasks.items()}
    return {
        "setting": setting.name,
        "title": setting.title,
        "text": setting.text,
        "base": "smollm2-135m-instruct",
        "reference": REFERENCE,
        "tasks": [
            {
                "name": name,
                "title": _title(name),
                "measure": measures[name],
                "chance": 0.25 if measures[name] == ACC else None,
                "items": [{"id": key, "right": right} for key, right in zip(task["ids"], task["right"], strict=True)],
            }
            for name, task in tasks.items()
        ],
        "rows": [row_values(setting, row, _held_against(row, rows), measures) for row in rows],
    }


def _held_against(row: Row, rows: Sequence[Row]) -> Row | None:
    """What a row's difference is to: for Bitune of another kind the plain adapter of that kind, for all others REFERENCE."""
    name = _KINDS[row.run.peft] if row.run.peft in _KINDS and row.run.method != "lora" else REFERENCE
    return next((other for other in rows if other.name == name and other is not row), None)


def row_values(setting: Setting, row: Row, against: Row | None, measures: dict[str, str]) -> dict:
    """A row of an evidence file as plain JSON values; `against`: what its difference is to, `measures`: that which counts, by task."""
    run, result = row.run, row.results[0]

    def minus(tasks: Sequence[str]) -> Interval:
        return difference(row, against, lambda side: [side.hits(task, measures[task]) for task in tasks])

    trained = run.method != "base"
    return {
        "name": row.name,
        "method": run.method,
        "peft": run.peft,
        "rank": run.rank if trained and run.peft in RANKED else None,
        "parameters": result.get("trainable_parameters", 0),
        "seeds": row.seeds,
        "learning_rate": run.learning_rate if trained else None,
        "steps": result["settings"]["max_steps"] if trained else None,
        "minutes": _minutes(row) if trained else None,
        "accuracy": {key: _accuracy(row, tasks, measures) for key, tasks in _columns(setting).items()},
        "against": None if against is None else against.name,
        "minus": None if against is None else {key: vars(minus(tasks)) for key, tasks in _columns(setting).items()},
        "predictions": {task: row.predictions(task, measure) for task, measure in measures.items()},
    }


def _minutes(row: Row) -> float | None:
    """Mean time of the trainings that ran in one go."""
    known = [result["training_seconds"] for result in row.results if result["training_seconds"] is not None]
    return round(float(np.mean(known)) / 60, 1) if known else None


def _columns(setting: Setting) -> dict[str, tuple[str, ...]]:
    """Columns of the table: each task, and the average of the setting."""
    return {name: (name,) for name in setting.limits} | {"average": setting.averaged}


def _accuracy(row: Row, tasks: Sequence[str], measures: dict[str, str]) -> dict:
    """Mean over seeds with the interval over seeds and items, and the standard deviation over seeds."""
    hits = [row.hits(task, measures[task]) for task in tasks]
    by_seed = np.mean([h.mean(1) for h in hits], axis=0)
    spread = round(float(by_seed.std(ddof=1)), DIGITS) if len(by_seed) > 1 else None
    return vars(resampled(hits)) | {"spread": spread}


def difference(row: Row, against: Row, hits: Callable[[Row], list[np.ndarray]]) -> Interval:
    """Row minus another on `hits(row)` ([seeds, items], one a task), paired by item and by seed: a seed fixes the order of the data for both.

    Where the other has all seeds of the row it is read at these alone; the base has none, so it is held against all.
    """
    seeds, others = row.seeds, against.seeds
    shared = [others.index(seed) for seed in seeds] if seeds and set(seeds) <= set(others) else None
    minus = [by_seed[slice(None) if shared is None else shared] for by_seed in hits(against)]
    return resampled(hits(row), minus, same_seeds=shared is not None)


def _title(task: str) -> str:
    return {"arc_challenge": "ARC-Challenge", "arc_easy": "ARC-Easy", "openbookqa": "OpenBookQA", "t0": "T0 held out"}.get(
        task, task.upper()
    )


def markdown(content: dict) -> str:
    """The table of one setting, of its evidence file, for the README."""
    titles = {task["name"]: task["title"] for task in content["tasks"]}
    if len(titles) > 1:
        titles["average"] = "average"
    lines = [
        f"| {content['title']} | parameters | seeds | {' | '.join(titles.values())} | minus {content['reference']} |",
        "|---" * (len(titles) + 4) + "|",
    ]
    for row in content["rows"]:
        cells = [_cell(row["accuracy"][key]) for key in titles]
        other = "" if row["against"] == content["reference"] else f", minus {row['against']}"
        minus = "" if row["minus"] is None else shown(row["minus"]["average"], other)
        lines.append(f"| {row['name']} | {row['parameters']:,} | {len(row['seeds']) or ''} | {' | '.join(cells)} | {minus} |")
    return "\n".join(lines)


def _cell(accuracy: dict) -> str:
    spread = "" if accuracy["spread"] is None else f" ± {100 * accuracy['spread']:.1f}"
    return f"{100 * accuracy['mean']:.1f}{spread}"


def shown(values: dict, note: str = "") -> str:
    """A difference in points with its interval, and a note behind it."""
    mean, low, high = (100 * values[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}{note})"


def tuning_markdown(setting: Setting, results: Sequence[dict]) -> str:
    """What the tries of one setting came to, best first within each method."""
    tries = [
        (Run(**r["run"]), r["validation_loss"]) for r in results if r["run"]["setting"] == setting.name and r["run"]["tuning"]
    ]
    lines = [f"| {setting.title}: tries | learning rate | theta's | alpha starts | validation loss |", "|---|---|---|---|---|"]
    for run, loss in sorted(tries, key=lambda pair: (name_of(pair[0]), pair[1])):
        theta = "same" if run.mixing_learning_rate is None else f"{run.mixing_learning_rate:g}"
        mixed = (theta, f"{run.initial_mixing_alpha:g}") if run.method != "lora" else ("", "")
        lines.append(f"| {name_of(run)} | {run.learning_rate:g} | {' | '.join(mixed)} | {loss:.4f} |")
    return "\n".join(lines)


def read_results(folder: Path = RESULTS) -> list[dict]:
    """Every result there is, in the order of the file names. ConfigError for a damaged file."""
    return [_read(file) for file in sorted(folder.glob("*.json"))]


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not a result of the study: {error}; remove it and run it again.") from error


def write_evidence() -> str:
    """Write the evidence files of all settings that have results; returns the tables as Markdown."""
    results, tables = read_results(), []
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    for setting in (*SETTINGS.values(), *ALL_QUESTIONS.values()):
        if any(r["run"]["setting"] == setting.name and r["run"]["tuning"] for r in results):
            tables.append(tuning_markdown(setting, results))
        rows = rows_of(setting, results)
        if rows:
            content = evidence(setting, rows)
            write_json(EVIDENCE / f"{setting.name}.json", content)
            tables.append(markdown(content))
    return "\n\n".join(tables)
