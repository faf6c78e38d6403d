"""The study of a tiny base on made-up data, carried out once for all its tests."""

import json
from dataclasses import replace

import pytest

from study.run import Study, carry_out
from tests.study.small import BASELINE, METHODS, SMALL
from tests.tiny import tiny_base


@pytest.fixture(scope="package")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    questions = [{"question": f"{i}?", "choices": ["yes", "no", f"{i}"], "label": i % 3} for i in range(14)]
    turned = questions[1] | {"choices": ["1", "Yes", "no"]}
    too_long = {"question": "x" * 300, "choices": ["yes", "no"], "label": 0}
    open_records = [{"prompt": f"say {i}", "answer": str(i)} for i in range(6)]
    others = [record | {"question": f"{record['question']}?"} for record in questions]
    for name, records in (
        ("a.train", [too_long, *questions]),
        ("a.test", [too_long, questions[0], turned, *others]),
        ("t.test", open_records),
    ):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    study = Study(tiny_base(), folder, folder / "state", folder / "results", {"choices": SMALL})
    carry_out(study, [BASELINE, *METHODS, replace(METHODS[1], seed=1), replace(METHODS[0], tuning=True)])
    return study
