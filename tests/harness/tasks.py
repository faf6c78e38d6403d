"""Tasks for lm-eval over local files, and ways to run them; all offline."""

import os
import subprocess
import sys
from pathlib import Path

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from bitune.harness import BituneLM
from tests.harness.items import END

ROOT = Path(__file__).parent.parent.parent


def arguments(work, **more: object) -> dict[str, object]:
    return {"pretrained": str(work / "qa"), "base": str(work / "base"), "device": "cpu", "dtype": "float32"} | more


def model(work, **more: object) -> BituneLM:
    return BituneLM(**arguments(work, **more))


def task(name: str, file: Path, output: str, **more: object) -> dict:
    """A task over a local file, as a task's YAML says it."""
    data = {"data_files": {"test": str(file)}, "cache_dir": str(file.parent / "cache")}
    common = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", "output_type": output}
    return common | more


def choice_task(work) -> dict:
    text = "Question: {{question}}\n\nChoices:\n{{choices | join('\n')}}\n\nAnswer:"
    return task(
        "choices",
        work / "choices.jsonl",
        "multiple_choice",
        doc_to_text=text,
        doc_to_choice="choices",
        doc_to_target="label",
        metric_list=[{"metric": "acc"}],
    )


def open_task(work, file: Path) -> dict:
    return task(
        "open",
        file,
        "generate_until",
        doc_to_text="Question: {{question}}\n\nAnswer:",
        doc_to_target="answer",
        generation_kwargs={"until": [END], "max_gen_toks": 5, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        filter_list=[{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    )


def run(work, tasks: list, **more: object) -> dict:
    given = {"model": "bitune", "model_args": arguments(work), "batch_size": 3, "bootstrap_iters": 0} | more
    return lm_eval.simple_evaluate(tasks=tasks, task_manager=TaskManager(include_defaults=False), **given)


def ask(kind: str, *pairs: tuple) -> list[Instance]:
    return [Instance(kind, {}, pair, 0) for pair in pairs]


def python(*command: object, **environment: str) -> subprocess.CompletedProcess:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | offline | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
