"""Carries out runs of the plan: train, measure, write one JSON file. A run that has its file is done; one cut short goes on."""

import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import peft
import torch
import transformers
from filelock import FileLock, Timeout

from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.base.loading import Base
from bitune.checkpoints.older import check_target
from bitune.data.batches import TokenPair
from bitune.data.examples import (
    Example,
    content_of,
    load_examples,
    split_validation,
)
from bitune.data.tokens import fitting, to_measure, tokenize_all
from bitune.errors import BituneError
from bitune.evaluation.report import Report, write_json
from bitune.evaluation.run import evaluate
from bitune.model.bitune_model import BituneModel
from bitune.outputs import check_folder, full_path
from bitune.schema.variants import BASE, Variant
from bitune.training.settings import TrainingSettings
from bitune.training.state import last_checkpoint
from bitune.training.trainer import train
from study.full import WeightSets
from study.plan import FULL, RESULTS, SETTINGS, Run, Setting

BASE_ID = "smollm2-135m-instruct"
SAVE_STEPS = 50
_SPLIT_SEED = 0  # the validation part is the same for every run


@dataclass(frozen=True)
class Study:
    """Where everything lies. `data`: folder of NAME.train.jsonl and NAME.test.jsonl; `state`: what training keeps on the way, and
    the finished checkpoints; `results`: one file a run."""

    base: Base
    data: Path
    state: Path
    results: Path = RESULTS
    settings: Mapping[str, Setting] = field(default_factory=lambda: SETTINGS)

    def file(self, run: Run) -> Path:
        """The result of a run."""
        return result_of(run, self.results)

    def checkpoint(self, run: Run) -> Path:
        """The checkpoint a run left."""
        return checkpoint_of(run, self.state)


def result_of(run: Run, results: Path) -> Path:
    """Where a run's result is written."""
    return results / f"{run.name}.json"


def checkpoint_of(run: Run, state: Path) -> Path:
    """Where a run leaves its checkpoint."""
    return state / f"{run.name}.checkpoint"


def carry_out(study: Study, runs: Sequence[Run]) -> list[str]:
    """Every run that has no result yet and that no other process is at. Returns what failed, a line each; the others go on."""
    failed = []
    for folder in (study.state, study.results):  # now, not after hours
        check_folder(full_path(folder))
    study.state.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if study.file(run).is_file():
            continue
        try:
            with FileLock(study.state / f"{run.name}.lock", timeout=0):
                if not study.file(run).is_file():
                    _carry_out(study, run)
        except Timeout:
            print(f"{run.name}: another process is at it", flush=True)
        except (RuntimeError, BituneError) as error:  # of torch: out of memory, say
            failed.append(f"{run.name}: {error}")
    return failed


def _carry_out(study: Study, run: Run) -> None:
    setting, started = study.settings[run.setting], time.monotonic()
    check_target(full_path(study.checkpoint(run)))
    print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
    if run.method == "base":
        result = {"measured": measure(study, setting, BASE.with_mixing(None), AdapterManager.of(study.base.model))}
    else:
        model = _fresh(study, run)
        try:
            result = _train(study, run, model)
            if run.peft == FULL and not run.tuning:
                with torch.autocast(model.device.type, torch.bfloat16):  # its weights are kept in float32, the base's in bfloat16
                    result["measured"] = measure(study, setting, model.variant, model.manager)
            elif not run.tuning:
                model.save_pretrained(study.checkpoint(run), dtype=torch.bfloat16)
        finally:
            model.release()
        if not run.tuning and run.peft != FULL:
            result["measured"] = _measure_saved(study, run)
    _write(study, run, result | {"seconds": round(time.monotonic() - started, 1)})
    shutil.rmtree(study.state / run.name, ignore_errors=True)


def _measure_saved(study: Study, run: Run) -> dict[str, dict]:
    """What is measured is what can be shipped: the checkpoint as it was saved, adapters in bfloat16."""
    model = BituneModel.from_pretrained(study.checkpoint(run), study.base, trainable=False)
    try:
        return measure(study, study.settings[run.setting], model.variant, model.manager)
    finally:
        model.release()


def _fresh(study: Study, run: Run) -> BituneModel:
    torch.manual_seed(run.seed)
    if run.peft == FULL:
        return BituneModel.create(WeightSets.on_copy(study.base), run.method, initial_mixing_alpha=run.initial_mixing_alpha)
    config = new_peft_config(study.base.model, run.peft, run.rank)
    return BituneModel.create(study.base, run.method, config, initial_mixing_alpha=run.initial_mixing_alpha)


def _train(study: Study, run: Run, model: BituneModel) -> dict:
    setting, started = study.settings[run.setting], time.monotonic()
    pairs, held_out = pairs_of(study, setting)
    resumed = last_checkpoint(study.state / run.name) is not None
    settings = TrainingSettings(
        max_steps=setting.tuning_steps if run.tuning else setting.steps,
        per_device_train_batch_size=setting.batch_size,
        learning_rate=run.learning_rate,
        mixing_learning_rate=run.mixing_learning_rate,
        bf16=True,
        seed=run.seed,
        save_steps=setting.steps if run.peft == FULL else SAVE_STEPS,  # gigabytes each
    )
    figures = train(model, pairs, settings, study.state / run.name, held_out if run.tuning else (), resume=True)
    return {
        "settings": asdict(settings),
        "trainable_parameters": model.trainable_parameters(),
        "examples": len(pairs),
        "validation": len(held_out),
        "train_loss": figures["train_loss"],
        "validation_loss": figures.get("eval_loss"),  # what tries are chosen by; measured runs do without
        "training_seconds": None if resumed else round(time.monotonic() - started, 1),  # of one start
        "log": [json.loads(line) for line in model.log.splitlines()],
    }


def pairs_of(study: Study, setting: Setting) -> tuple[list[TokenPair], list[TokenPair]]:
    """Token pairs to train on and to validate with: records within the setting's limits, in the same order for every run."""
    fits = fitting(_training_examples(study, setting), study.base.tokenizer, setting.max_prompt_tokens)
    parts = split_validation(fits, setting.validation, _SPLIT_SEED)
    train_pairs, held_out = (
        tokenize_all(part, study.base.tokenizer, setting.max_prompt_tokens, setting.max_answer_tokens).pairs for part in parts
    )
    random.Random(_SPLIT_SEED).shuffle(train_pairs)
    return train_pairs, held_out


def _training_examples(study: Study, setting: Setting) -> list[Example]:
    return [example for name in setting.train for example in load_examples(study.data / f"{name}.train.jsonl")]


def measure(study: Study, setting: Setting, variant: Variant, manager: AdapterManager) -> dict[str, dict]:
    """Predictions of one variant on the first records of each test file whose prompts fit, those left out whose answers do not or
    whose prompts stand in the training files too.

    {task: {"ids": [item], "right": [item], "measures": {measure: {"predictions": [item], "hits": [item]}}}}
    """
    measured = {}
    trained_on = {content_of(example.prompt) for example in _training_examples(study, setting)}
    for task, limit in setting.limits.items():
        examples = load_examples(study.data / f"{task}.test.jsonl")
        limits = (setting.max_prompt_tokens, setting.max_answer_tokens, limit)
        examples = to_measure(examples, study.base.tokenizer, *limits, trained_on)
        report = evaluate(
            manager, {"": variant}, examples, study.base.tokenizer, batch_size=16, max_new_tokens=setting.max_answer_tokens
        )
        measured[task] = as_measured(report, "")
    return measured


def as_measured(report: Report, variant: str) -> dict:
    """What is kept of one variant in a report; of an open answer, which is somebody's text, whether it was correct."""
    return {
        "ids": [item.id for item in report.items],
        "right": [item.label if isinstance(item.label, int) else 1 for item in report.items],
        "measures": {
            measure: {
                "predictions": _plain(predictions[variant], hits := [int(hit) for hit in report.hits[measure][variant]]),
                "hits": hits,
            }
            for measure, predictions in report.predictions.items()
        },
    }


def _plain(predictions: Sequence[int | str], hits: list[int]) -> list[int]:
    return [hit if isinstance(prediction, str) else prediction for prediction, hit in zip(predictions, hits, strict=True)]


def _write(study: Study, run: Run, result: dict) -> None:
    study.results.mkdir(parents=True, exist_ok=True)
    about = {"run": asdict(run), "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)}}
    write_json(study.file(run), about | result)
