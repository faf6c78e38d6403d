"""The shipped checkpoints on all test questions: part by part, kept on the way, and in the cards."""

import shutil
from dataclasses import replace

import pytest

from bitune.data.examples import content_of
from bitune.errors import ConfigError
from study import all_questions
from study.all_questions import measure_all
from study.plan import ALL_QUESTIONS, SETTINGS, Run
from study.ship import cards, ship
from study.table import evidence, read_results, rows_of
from tests.study.small import BASELINE, METHODS, SMALL

ALL = replace(SMALL, name="small_all", of="choices", seeds=(0,), limits={"a": 9, "t": 4})


@pytest.fixture
def shipped(study, tmp_path, monkeypatch):
    """Both methods' checkpoints in a folder, beside a copy of the results; the settings are the small ones."""
    monkeypatch.setitem(SETTINGS, "choices", SMALL)
    for name in list(ALL_QUESTIONS):
        monkeypatch.delitem(ALL_QUESTIONS, name)
    monkeypatch.setitem(ALL_QUESTIONS, ALL.name, ALL)
    shutil.copytree(study.results, tmp_path / "results")
    for run in METHODS:
        ship(run, study.state, tmp_path / "shipped" / run.method, study.results)
    return {"shipped": tmp_path / "shipped", "results": tmp_path / "results"}


def all_of(setting) -> dict[str, dict]:
    return {setting.name: setting}


def test_on_the_same_items_the_numbers_are_those_of_the_runs(study, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(all_questions, "PART", 3)
    same = replace(ALL, limits=SMALL.limits)
    written = measure_all(study.base, study.data, tmp_path / "state", settings=all_of(same), **shipped)
    assert len(written) == 3
    results = {Run(**result["run"]).name: result for result in read_results(shipped["results"])}
    for run in (BASELINE, *METHODS):
        assert results[replace(run, setting=same.name).name]["measured"] == results[run.name]["measured"]
    rows = rows_of(same, list(results.values()))
    assert [row["name"] for row in evidence(same, rows)["rows"]] == ["Base", "Bitune", "LoRA r4"]


def test_what_is_done_is_kept_in_parts(study, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(all_questions, "PART", 3)
    ran, evaluate = [], all_questions.evaluate

    def until_killed(manager, variants, examples, *arguments, **named):
        ran.append([content_of(one.prompt) for one in examples])
        if len(ran) == 3:
            raise KeyboardInterrupt
        return evaluate(manager, variants, examples, *arguments, **named)

    monkeypatch.setattr(all_questions, "evaluate", until_killed)
    with pytest.raises(KeyboardInterrupt):
        measure_all(study.base, study.data, tmp_path / "state", settings=all_of(ALL), **shipped)
    before = len(list(shipped["results"].iterdir()))
    assert len(measure_all(study.base, study.data, tmp_path / "state", settings=all_of(ALL), **shipped)) == 3
    assert list(map(len, ran)) == [3, 3, 1, 1, 3, 1] and ran[2] == ran[3]  # of 7 and 4 questions; the third was tried twice
    assert len(list(shipped["results"].iterdir())) == before + 3
    monkeypatch.setattr(all_questions, "PART", 4)
    with pytest.raises(ConfigError, match="other questions than are measured now"):
        measure_all(study.base, study.data, tmp_path / "state", settings=all_of(ALL), **shipped)
    (shipped["shipped"] / "lora").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="other checkpoints than are shipped now"):
        measure_all(study.base, study.data, tmp_path / "state", settings=all_of(ALL), **shipped)


def test_cards_say_it(study, shipped, tmp_path):
    assert all("all test questions" not in text for text in cards(**shipped_as(shipped)).values())
    measure_all(study.base, study.data, tmp_path / "state", settings=all_of(ALL), **shipped)
    for file, text in cards(**shipped_as(shipped)).items():
        _, _, part = text.partition("## On all test questions")
        assert part.count("| this checkpoint |") == 1 and "| Base, untrained |" in part, file
        assert ("| Bitune, 1 seed |" in part) == (file.parent.name == "lora")


def shipped_as(folders: dict) -> dict:
    return {"folder": folders["shipped"], "results": folders["results"]}
