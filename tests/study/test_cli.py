"""python -m study: what it prints, and that what is wrong is one sentence on stderr. The runs themselves are in test_runs.py."""

import json
from pathlib import Path

import pytest

from bitune.errors import ConfigError
from study import __main__ as command
from study import table
from study.plan import RESULTS, SETTINGS

DONE = "choices-run-base-lora-r8-lr0.001-s0"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No progress beside the sentences, however slow the machine is."""
    monkeypatch.setattr("bitune.progress.FIRST_SECONDS", 3600.0)


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    monkeypatch.setattr("sys.argv", ["study", *map(str, arguments)])
    status = command.main()
    return status, *capsys.readouterr()


def refused(monkeypatch, capsys, *arguments: object) -> str:
    """The one sentence of a command that fails."""
    status, out, error = run(monkeypatch, capsys, *arguments)
    assert status == 1 and not out and error.startswith("study: ") and error.count("\n") == 1, (status, out, error)
    return error


def test_a_run_that_is_done_is_not_run_again_in_silence(monkeypatch, capsys, tmp_path):
    assert (RESULTS / f"{DONE}.json").is_file()
    assert "another folder with --results" in refused(monkeypatch, capsys, "run", "--data", tmp_path, "--only", DONE)
    assert "'nothing'" in refused(monkeypatch, capsys, "run", "--data", tmp_path, "--only", "nothing")


def test_a_run_without_result_or_checkpoint_is_not_shipped(monkeypatch, capsys, tmp_path):
    assert "is missing" in refused(monkeypatch, capsys, "ship", DONE, tmp_path / "out", "--state", tmp_path)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("study.ship.read_results", lambda folder: [])
    assert "has no result in" in refused(monkeypatch, capsys, "ship", DONE, tmp_path / "out", "--state", tmp_path)


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.json is not a result"):
        table.read_results(tmp_path)


def test_table_writes_what_it_prints(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(table, "EVIDENCE", tmp_path)
    monkeypatch.setattr("study.ship.cards", dict)
    status, out, _ = run(monkeypatch, capsys, "table")
    assert status == 0 and f"| {SETTINGS['choices'].title}: tries |" in out
    for file in tmp_path.iterdir():
        assert f"| {json.loads(file.read_text())['title']} | parameters |" in out
    assert {file.stem for file in tmp_path.iterdir()} >= {"choices", "instruction"}


def test_lengths_want_the_data_of_the_study(monkeypatch, capsys, tmp_path):
    record = json.dumps({"question": "Why?", "choices": ["a", "b"], "label": 0})
    for task in SETTINGS["instruction"].averaged:
        Path(tmp_path, f"{task}.test.jsonl").write_text(record)
    assert "questions are not in the data" in refused(monkeypatch, capsys, "lengths", "--data", tmp_path)
