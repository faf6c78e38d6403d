"""What was measured is kept, and the tables say it."""

import json
import subprocess
import sys

import pytest

from benchmarks import record, table
from benchmarks.figures import FIGURES
from benchmarks.measures import Measured, amount, ratio
from benchmarks.record import Results, read, write
from benchmarks.setting import Setting

RUN = {"base": "a", "dtype": "float32", "device": "cpu", "processor": "P", "threads": 2, "date": "2026-01-01", "commit": "1"}
RUN |= {"torch": "2", "transformers": "5", "peft": "0"}


def test_figures_measured_apart_stand_in_one_file_each_with_its_run(tmp_path):
    path, later = tmp_path / "new" / "a.json", RUN | {"commit": "2"}
    assert read(path) == Results({}, {})
    write(read(path).with_run({"step-five": ratio([3.0], [2.0]), "together": ratio([1.0], [2.0])}, RUN), path)
    write(read(path).with_run({"start": amount([12.34567], "s"), "together": ratio([1.0], [4.0])}, later), path)
    results = read(path)
    assert results.runs == {"step-five": RUN, "together": later, "start": later}
    assert results.figures["together"].median == 0.25 and results.figures["step-five"].over == 3.0
    assert results.figures["start"] == Measured(12.35, 12.35, 12.35, 1, "s")
    assert len(json.loads(path.read_text())["runs"]) == 2


def test_the_facts_of_a_run_are_those_the_table_names(tmp_path):
    facts = record.facts_of(Setting(tmp_path))
    assert facts.keys() >= RUN.keys() and facts["processor"] and facts["commit"]
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("page", table.TABLES, ids=lambda path: path.name)
def test_the_documents_have_the_tables_as_the_command_writes_them(page):
    text = page.read_text("utf-8")
    assert text.count(table.BEGIN) == text.count(table.END) == 1
    assert table.with_table(text, table.TABLES[page]()) == text, "run: python -m benchmarks.table"


def test_every_result_that_is_kept_is_a_figure():
    for path in record.RESULTS.glob("*.json"):
        results = read(path)
        assert set(results.figures) <= set(FIGURES), path.name
        assert all(run.keys() >= RUN.keys() for run in results.runs.values()), path.name


def test_a_row_says_whether_the_bound_holds():
    together, help_ = FIGURES["together"], FIGURES["command-help"]
    assert table.row(together, None).endswith("| not measured | 0.55 |")
    assert table.row(together, ratio([1.0, 2.0], [2.0, 4.0])).endswith("| 0.50 (0.50 to 0.50) | 0.55 |")
    assert table.row(together, ratio([3.0], [4.0])).endswith("| 0.75 | 0.55, missed |")
    assert table.row(help_, amount([12.0], "s")).endswith("| 12.0 s | 1 s, missed |")
    assert table.row(FIGURES["map-size"], amount([123.4], "kB")).endswith("| 123 kB |  |")


def test_the_table_has_a_line_for_every_machine():
    gpu = RUN | {"device": "GPU", "commit": "2"}
    results = Results({}, {}).with_run({"together": ratio([1.0], [2.0])}, RUN).with_run({"sweep": ratio([1.0], [2.0])}, gpu)
    lines = table.table(results, [FIGURES["together"]]).splitlines()
    assert lines[2].startswith("| base, Bitune and LoRA together")
    assert [line.split("; ")[1] for line in lines[4:]] == ["P, 2 threads", "GPU, 2 threads"]


def command(*arguments: object) -> subprocess.CompletedProcess:
    whole = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(whole, cwd=record.ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_the_command_measures_keeps_and_goes_on_past_what_cannot_be_measured(tmp_path):
    output = tmp_path / "results.json"
    run = command(
        "evaluate", "together", "--base", "shape:tiny", "--quick", "--threads", 1, "--output", output, "--dtype", "float16x"
    )
    assert run.returncode == 1 and "prepare: failed" in run.stdout and not output.exists()
    run = command("llama", "together", "--base", "shape:tiny", "--quick", "--threads", 1, "--output", output)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "llama: No folder with node-llama-cpp is named" in run.stdout
    assert set(read(output).figures) == {"together"} and read(output).runs["together"]["base"] == "shape:tiny"


def test_the_command_names_an_unknown_figure():
    run = command("togeter")
    assert run.returncode == 2 and "together" in run.stderr and len(run.stderr.splitlines()) == 1
