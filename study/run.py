"""Carries out runs of the plan: train, measure, write one JSON file. A run that has its file is done; one cut short goes on."""

import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import peft
import torch
import transformers
from filelock import FileLock, Timeout

from bitune.base import Base, load_base
from bitune.data import Example, TokenPair, load_examples, split_validation, tokenize_all
from bitune.model import BituneModel
from bitune.peft_kinds import new_peft_config
from bitune.report import evaluate
from bitune.training import TrainingSettings, train
from bitune.variants import BASE, Variant
from study.plan import SETTINGS, Run, Setting

RESULTS = Path(__file__).parent / "results"
BASE_ID = "smollm2-135m-instruct"
_SPLIT_SEED = 0  # the validation part is the same for every run


def carry_out(runs: Sequence[Run], data: Path, state: Path) -> None:
    """Every run that has no result yet and that no other process is at. `state`: folder for what training keeps on the way."""
    base = load_base(BASE_ID, dtype="bfloat16")
    state.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if (RESULTS / f"{run.name}.json").is_file():
            continue
        try:
            with FileLock(state / f"{run.name}.lock", timeout=0):
                if not (RESULTS / f"{run.name}.json").is_file():
                    _carry_out(run, base, data, state / run.name)
        except Timeout:
            continue


def _carry_out(run: Run, base: Base, data: Path, state: Path) -> None:
    setting, started = SETTINGS[run.setting], time.monotonic()
    print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
    if run.method == "base":
        result = {"measured": measure(run, setting, base, BASE.with_mixing(None), data)}
    else:
        torch.manual_seed(run.seed)
        config = new_peft_config(base.model, run.peft, run.rank)
        model = BituneModel.create(base, run.method, config, alpha_start=run.alpha_start)
        try:
            pairs, held_out = pairs_of(setting, base, data)
            settings = TrainingSettings(
                max_steps=setting.tuning_steps if run.tuning else setting.steps,
                batch_size=setting.batch_size,
                learning_rate=run.learning_rate,
                mixing_learning_rate=run.mixing_learning_rate,
                bf16=True,
                seed=run.seed,
                save_every=50,
            )
            figures = train(model, pairs, settings, state, held_out, resume=True)
            trained = time.monotonic() - started
            result = {
                "settings": asdict(settings),
                "trainable_parameters": model.trainable_parameters(),
                "examples": len(pairs),
                "train_loss": figures["train_loss"],
                "validation_loss": figures["eval_loss"],
                "training_seconds": round(trained, 1),
                "log": [json.loads(line) for line in model.log.splitlines()],
            }
            if not run.tuning:
                result["measured"] = measure(run, setting, base, model.variant, data)
                model.save_pretrained(state.with_name(f"{run.name}.checkpoint"), dtype=torch.bfloat16)
        finally:
            model.release()
    write(run, result | {"seconds": round(time.monotonic() - started, 1)})
    shutil.rmtree(state, ignore_errors=True)


def pairs_of(setting: Setting, base: Base, data: Path) -> tuple[list[TokenPair], list[TokenPair]]:
    """Token pairs to train on and to validate with: records within the setting's limits, in the same order for every run."""
    examples = [e for name in setting.train for e in load_examples(data / f"{name}.train.jsonl")]
    fitting = [e for e in examples if _fits(e, setting, base)]
    parts = split_validation(fitting, setting.validation, _SPLIT_SEED)
    train_pairs, held_out = (
        tokenize_all(part, base.tokenizer, setting.max_prompt_tokens, setting.max_answer_tokens).pairs for part in parts
    )
    random.Random(_SPLIT_SEED).shuffle(train_pairs)
    return train_pairs, held_out


def _fits(example: Example, setting: Setting, base: Base) -> bool:
    return len(base.tokenizer(example.prompt).input_ids) <= setting.max_prompt_tokens


def measure(run: Run, setting: Setting, base: Base, variant: Variant, data: Path) -> dict[str, dict]:
    """Predictions of one variant on the first records of each test file: {task: Report.to_dict()}."""
    from bitune.adapters import AdapterHost

    measured = {}
    for task, limit in setting.limits.items():
        examples = [e for e in load_examples(data / f"{task}.test.jsonl") if _fits(e, setting, base)][:limit]
        report = evaluate(
            AdapterHost.of(base.model), {run.method: variant}, examples, base.tokenizer, batch_size=16, max_new_tokens=24
        )
        measured[task] = report.to_dict()
    return measured


def write(run: Run, result: dict) -> None:
    """One JSON file, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    about = {"run": asdict(run), "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)}}
    file = RESULTS / f"{run.name}.json"
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(about | result, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(file)
