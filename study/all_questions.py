"""Measures the shipped checkpoints and their base on all test questions. What is done is kept, so that one cut short goes on."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import peft
import torch
import transformers
from filelock import FileLock, Timeout
from transformers import PreTrainedTokenizerBase

from bitune.base.loading import Base
from bitune.checkpoints.folder import read
from bitune.data.encoding import prompt_ids
from bitune.data.examples import Example, content_of, load_examples
from bitune.data.tokens import continuation_ids, to_measure
from bitune.errors import ConfigError
from bitune.evaluation.report import item_id, write_json
from bitune.evaluation.run import evaluate
from bitune.inference.engine import Engine
from bitune.model.likelihoods import tokens_to_read
from bitune.model.limits import batches_by_length
from study.plan import ALL_QUESTIONS, RESULTS, Run, Setting
from study.run import as_measured, result_of
from study.ship import SHIPPED
from study.table import read_results

_TRAINING = ("settings", "trainable_parameters", "examples", "train_loss", "training_seconds")  # facts that stay a run's own
_BATCH = 16
PART = 128  # questions: what a start that is cut short can lose, some minutes on two CPU cores


def measure_all(
    base: Base,
    data: Path,
    state: Path,
    *,
    settings: Mapping[str, Setting] = ALL_QUESTIONS,
    shipped: Path = SHIPPED,
    results: Path = RESULTS,
) -> list[Path]:
    """Measure what has no result yet; several processes share the questions.

    Args:
        base: what the checkpoints were trained on.
        data: folder of NAME.train.jsonl and NAME.test.jsonl.
        state: folder for what is done, a file for each `PART` questions.
        settings: each measures the shipped checkpoints of another setting, see `Setting.of`.
        shipped: folder of checkpoints that know their run.
        results: folder of the runs' results; those of `settings` are written there.

    Returns:
        The results that were written; none of a setting of which another process is at a part.
    """
    state.mkdir(parents=True, exist_ok=True)
    by_name = {Run(**result["run"]).name: result for result in read_results(results)}
    folders = {str(read(folder).config.training.get("run")): folder for folder in sorted(shipped.iterdir())}
    engine, written = Engine(base), []
    for setting in settings.values():
        runs = [Run(setting.of, "base"), *(Run(**by_name[name]["run"]) for name in folders if name in by_name)]
        runs = [run for run in runs if run.setting == setting.of]
        for run in runs[1:]:
            engine.add_checkpoint(folders[run.name], name=run.name)
        measured = {task: _measure(engine, data, state, setting, task, [run.name for run in runs[1:]]) for task in setting.limits}
        for run in runs[1:]:
            engine.remove_checkpoint(run.name)
        if None in measured.values():
            continue
        for run in runs:
            again = replace(run, setting=setting.name)
            facts = {key: by_name[run.name][key] for key in _TRAINING if key in by_name.get(run.name, {})}
            own = {task: by_run["base" if run.method == "base" else run.name] for task, by_run in measured.items()}
            versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
            write_json(result_of(again, results), {"run": asdict(again), "versions": versions, **facts, "measured": own})
            written.append(result_of(again, results))
    return written


def _measure(engine: Engine, data: Path, state: Path, setting: Setting, task: str, names: list[str]) -> dict[str, dict] | None:
    """{"base" or a run: as in `run.measure`} of one task; None where another process is at a part of it."""
    examples = _examples(engine, data, setting, task)
    order = batches_by_length(engine.manager.layout, *lengths(examples, engine.base.tokenizer), PART)
    parts = []
    for number, batch in enumerate(order):
        file = state / f"{setting.name}.{task}.{number:02d}.json"
        parts.append(_measure_part(engine, file, setting, [examples[at] for at in batch], names))
    if None in parts:
        return None
    return {name: joined([part[name] for part in parts], order) for name in ("base", *names)}


def _measure_part(
    engine: Engine, file: Path, setting: Setting, examples: list[Example], names: list[str]
) -> dict[str, dict] | None:
    """As `_measure`, of some questions; they are in `file` from then on."""
    try:
        with FileLock(file.with_suffix(".lock"), timeout=0):
            if not file.is_file():
                print(f"{time.strftime('%H:%M:%S')} {file.stem}", flush=True)
                write_json(file, _evaluated(engine, setting, examples, names))
            kept = json.loads(file.read_text(encoding="utf-8"))
    except Timeout:
        print(f"{file.stem}: another process is at it", flush=True)
        return None
    if set(kept) != {"base", *names}:
        raise ConfigError(f"{file} is of other checkpoints than are shipped now; remove it to have its questions measured again.")
    if kept["base"]["ids"] != [item_id(example.prompt) for example in examples]:
        raise ConfigError(f"{file} is of other questions than are measured now; remove it to have these measured.")
    return kept


def _examples(engine: Engine, data: Path, setting: Setting, task: str) -> list[Example]:
    trained_on = {content_of(one.prompt) for name in setting.train for one in load_examples(data / f"{name}.train.jsonl")}
    limits = (setting.max_prompt_tokens, setting.max_answer_tokens, setting.limits[task])
    return to_measure(load_examples(data / f"{task}.test.jsonl"), engine.base.tokenizer, *limits, trained_on)


def _evaluated(engine: Engine, setting: Setting, examples: list[Example], names: list[str]) -> dict[str, dict]:
    variants = {name: engine.variants[name] for name in ("base", *names)}
    new = setting.max_answer_tokens
    report = evaluate(engine.manager, variants, examples, engine.base.tokenizer, batch_size=_BATCH, max_new_tokens=new)
    return {name: as_measured(report, name) for name in variants}


def lengths(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Tokens of each prompt, and what is read of its choices: parts of examples alike in both need the least padding."""
    read = [continuation_ids(one.prompt, one.choices or (one.answer,), tokenizer) for one in examples]
    return list(map(len, prompt_ids([one.prompt for one in examples], tokenizer))), list(map(tokens_to_read, read))


def joined(parts: Sequence[dict], order: Sequence[Sequence[int]]) -> dict:
    """One measurement of several parts, whose items are those at `order` of the task, and come back as they stand there."""
    places = [at for batch in order for at in batch]

    def in_place(values: list):
        if isinstance(values[0], list):
            items = [item for value in values for item in value]
            return [item for _, item in sorted(zip(places, items, strict=True), key=lambda pair: pair[0])]
        return {key: in_place([value[key] for value in values]) for key in values[0]}

    return in_place(list(parts))
