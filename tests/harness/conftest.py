"""A base, a checkpoint and items for all tests of the harness."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from bitune import BituneModel, Engine, load_base
from bitune.data.examples import example_of
from bitune.evaluation.run import evaluate
from tests.harness.items import CHOICES, OPEN
from tests.tiny import bitune_on, saved_base

collect_ignore_glob = [] if find_spec("lm_eval") else ["test_*.py"]


@pytest.fixture(scope="package")
def work(tmp_path_factory) -> Path:
    """A folder with a base, a checkpoint on it, and items as JSON Lines."""
    work = tmp_path_factory.mktemp("harness")
    saved_base(work / "base")
    bitune_on(load_base(work / "base", device="cpu"), seed=4).save_pretrained(work / "qa")
    (work / "choices.jsonl").write_text("".join(json.dumps(record) + "\n" for record in CHOICES))
    return work


@pytest.fixture(scope="package")
def engine(work) -> Engine:
    """Base and checkpoint without lm-eval."""
    engine = Engine(load_base(work / "base", device="cpu"))
    engine.add_checkpoint(work / "qa")
    return engine


@pytest.fixture(scope="package")
def known(engine) -> list[dict]:
    """Open questions, some with the very answer that the checkpoint or the base gives."""
    examples = [example_of(record) for record in OPEN]
    report = evaluate(engine.manager, engine.variants, examples, engine.base.tokenizer, max_new_tokens=5)
    answers = [report.predictions["answer"][name] for name in ("qa", "base", "qa", "base", "qa")]
    return [record | {"answer": answers[i][i] or "none"} if i < 4 else record for i, record in enumerate(OPEN)]


@pytest.fixture(scope="package")
def checkpoint(work, engine) -> BituneModel:
    """The checkpoint as a model on the engine's base, for its own forward."""
    return BituneModel.from_pretrained(work / "qa", base=engine.base)
