"""Measures the shipped checkpoints and their base on the questions that were written for this project, choice by choice.

What the texts of others cannot give, this can: the page shows these questions with the log-probability of every choice. Their number is
small and their author one, so they are there to be read; how good a checkpoint is stands in the settings of plan.py.
"""

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bitune.base.loading import Base
from bitune.checkpoints.folder import read
from bitune.data.examples import example_of
from bitune.data.records import load_records
from bitune.errors import ConfigError
from bitune.evaluation.report import ACC, item_id, write_json
from bitune.evaluation.scores import question, score
from bitune.inference.engine import Engine
from bitune.model.identity import describe
from study.plan import RESULTS, Run, Setting
from study.ship import SHIPPED
from study.table import EVIDENCE, Row, read_results, row_values

QUESTIONS = Path(__file__).parent.parent / "assets" / "questions" / "own.jsonl"
ORDERS = {"choices_last": "Choices after the question", "choices_first": "Choices before the question"}
REFERENCE = "lora-choices"
_TEXT = (
    "Questions that were written for this project, to be read here with every variant's choice. They are no benchmark: they are few and "
    "easy, one author chose them, nobody else has checked them, and each checkpoint is one training (seed 0). The choices stand "
    "after the question in one half of them and before it in the other."
)
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers")
_CHUNK, _BATCH = 24, 8  # questions between two writings of the state, and in a batch
_DIGITS = 4  # of a log-probability; later ones differ by machine


def measure_own(
    base: Base,
    state: Path,
    *,
    questions: Path = QUESTIONS,
    shipped: Path = SHIPPED,
    results: Path = RESULTS,
    output: Path = EVIDENCE / "own.json",
) -> dict:
    """Score every choice of every question with the base and the shipped checkpoints, and write the evidence file.

    Args:
        base: what the checkpoints were trained on.
        state: file that keeps what is done, so that a measurement that was cut short goes on.
        questions: JSON Lines with `task` (the topic), `question`, `choices`, `label` and perhaps `choices_first`.
        shipped: folder of checkpoints that know their run.
        results: folder of the runs' results, for what is said of their training.
        output: the file to write.

    Returns:
        The content of that file.
    """
    engine, runs, trained = _loaded(base, shipped, results)
    made, records = _made(engine, questions), load_records(questions)
    scores = _scored(engine, records, state, {key: made[key] for key in ("questions", "base", "checkpoints", "dtype")})
    content = {"base": base.id, "made": made, **_content(records, scores, runs, trained)}
    write_json(output, content)
    return content


def _content(records: Sequence[dict], scores: dict[str, list], runs: dict[str, Run], trained: dict[str, dict]) -> dict:
    """What the evidence file says of these questions and of the variants that were asked."""
    rows = {name: _row(run, trained.get(name, {}), name, records, scores[name]) for name, run in runs.items()}
    setting, measures = _setting(records), dict.fromkeys(ORDERS, ACC)
    return {
        "setting": setting.name,
        "title": setting.title,
        "text": setting.text,
        "reference": REFERENCE,
        "tasks": [_task(order, _of(records, order)) for order in ORDERS],
        "rows": [
            row_values(setting, row, _against(name, rows), measures) | {"logprobs": _by_order(records, scores[name])}
            for name, row in rows.items()
        ],
    }


def _loaded(base: Base, shipped: Path, results: Path) -> tuple[Engine, dict[str, Run], dict[str, dict]]:
    """The shipped checkpoints on their base; by variant its run, and by checkpoint what is known of its training."""
    engine, runs, trained = Engine(base), {"base": Run("own", "base")}, {}
    by_name = {Run(**result["run"]).name: result for result in read_results(results)}
    for folder in sorted(shipped.iterdir()):
        name = read(folder).config.training.get("run")
        if name not in by_name:
            raise ConfigError(f"{folder} is of the run {name!r}, which has no result in {results}; ship it again.")
        engine.add_checkpoint(folder, name=folder.name)
        runs[folder.name], trained[folder.name] = Run(**by_name[name]["run"]), by_name[name]
    return engine, runs, trained


def _made(engine: Engine, questions: Path) -> dict:
    """With what the answers were computed."""
    return {
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
        "questions": hashlib.sha256(questions.read_bytes()).hexdigest(),
        "base": describe(engine.base).sha256,
        "checkpoints": {name: facts.fingerprint for name, facts in engine.checkpoints.items()},
        "device": engine.base_facts.device,
        "dtype": engine.base_facts.dtype,
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def _scored(engine: Engine, records: Sequence[dict], state: Path, of: dict) -> dict[str, list[list[float]]]:
    """The log-probability of each choice, {variant: [question][choice]}; what `state` holds of the same is not computed again."""
    asked = [question(example_of(record), engine.base.tokenizer) for record in records]
    scores: dict[str, list[list[float]]] = {name: [] for name in engine.variants}
    if state.is_file() and (kept := json.loads(state.read_text(encoding="utf-8")))["of"] == of:
        scores = kept["scores"]
    state.parent.mkdir(parents=True, exist_ok=True)
    while (done := len(scores["base"])) < len(asked):
        print(f"{time.strftime('%H:%M:%S')} {done} of {len(asked)} questions", flush=True)
        new = score(engine.manager, engine.variants, asked[done : done + _CHUNK], batch_size=_BATCH)
        for name, by_question in new.items():
            scores[name] += [[round(one.sum, _DIGITS) for one in choices] for choices in by_question]
        write_json(state, {"of": of, "scores": scores})
    return scores


def _order(record: dict) -> str:
    return "choices_first" if record.get("choices_first") else "choices_last"


def _of(values: Sequence, order: str, records: Sequence[dict] | None = None) -> list:
    """Those of the questions in one order; `values` are the records, or something of each of `records`."""
    return [value for value, record in zip(values, records or values, strict=True) if _order(record) == order]


def _by_order(records: Sequence[dict], scores: Sequence[Sequence[float]]) -> dict[str, list]:
    """[seed][item][choice] of each order, as predictions are [seed][item]."""
    return {order: [_of(scores, order, records)] for order in ORDERS}


def _setting(records: Sequence[dict]) -> Setting:
    limits = {order: len(_of(records, order)) for order in ORDERS}
    return Setting("own", "Questions of our own", _TEXT, (), limits, tuple(ORDERS), "", steps=0, seeds=(0,))


def _task(order: str, records: Sequence[dict]) -> dict:
    """A task of the evidence file; `chance` is the mean over questions of one in as many as they have choices."""
    items = [{"id": item_id(example_of(r).prompt), "right": r["label"], "topic": r["task"]} for r in records]
    chance = sum(1 / len(record["choices"]) for record in records) / len(records)
    return {"name": order, "title": ORDERS[order], "measure": ACC, "chance": round(chance, _DIGITS), "items": items}


def _row(run: Run, result: dict, name: str, records: Sequence[dict], scores: Sequence[Sequence[float]]) -> Row:
    """A row of the table as those of the study: the choice with the highest log-probability counts, of equals the first."""
    measured = {}
    for order in ORDERS:
        rights = [record["label"] for record in _of(records, order)]
        chosen = [values.index(max(values)) for values in _of(scores, order, records)]
        hits = [int(right == choice) for right, choice in zip(rights, chosen, strict=True)]
        measured[order] = {"right": rights, "measures": {ACC: {"predictions": chosen, "hits": hits}}}
    return Row(name, ({**result, "run": asdict(run), "measured": measured},))


def _against(name: str, rows: dict[str, Row]) -> Row | None:
    """The LoRA that was trained on the same data, for a Bitune; for the others the reference."""
    other = name.replace("bitune-", "lora-") if name.startswith("bitune-") else REFERENCE
    return rows.get(other) if other != name else None
