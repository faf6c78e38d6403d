"""The command that exports votes, as a person runs it: everything as it was given, and nothing that a spreadsheet runs."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest

from app.votes.store import SCHEMA, VoteStore
from tests.app.votes.test_store import ROOT, sql
from tests.app.votes.votes import BITUNE, vote

VOTES = [
    vote("a", reasons=("clear", "correct")),
    vote("b", None, "tie", blind=False, prompt='=HYPERLINK("x")\r\n"q", ü', answers=("@SUM(1)", "a,b\n")),
]


@pytest.fixture
def file(tmp_path):
    store = VoteStore(tmp_path / "votes.sqlite3")
    for each in VOTES:
        store.add(each)
    return store.file


def export(*flags: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "app.votes", "export", *flags]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_json_lines_are_the_votes(file):
    done = export(BITUNE_VOTES=str(file))
    assert done.stderr == ""
    assert [json.loads(line) for line in done.stdout.splitlines()] == [json.loads(json.dumps(asdict(each))) for each in VOTES]


def test_csv_has_a_row_for_each_and_no_formula(file, tmp_path):
    output = tmp_path / "votes.csv"
    assert export("--votes", str(file), "--format", "csv", "--output", str(output)).returncode == 0
    first, second = csv.DictReader(StringIO(output.read_bytes().decode(), newline=""))
    assert (first["run"], first["better"], first["place"], first["seed"]) == ("a", BITUNE.name, "0", str(2**63 - 1))
    assert json.loads(first["variants"]) == ["bitune", "lora"] and json.loads(first["reasons"]) == ["clear", "correct"]
    assert (first["prompt"], second["better"], second["verdict"]) == ("", "", "tie")
    assert second["prompt"] == "'" + VOTES[1].prompt
    assert json.loads(second["answers"]) == list(VOTES[1].answers)


def test_what_cannot_be_exported_is_one_line(file, tmp_path):
    newer = VoteStore(tmp_path / "newer")
    sql(newer, f"PRAGMA user_version = {SCHEMA + 1}")
    text = tmp_path / "text"
    text.write_text("no votes " * 100)
    for flags, words in (
        (["--votes", str(tmp_path / "nothing")], "There is no file of votes"),
        (["--votes", str(newer.file)], f"schema {SCHEMA + 1} of a newer version"),
        (["--votes", str(text)], "no SQLite database"),
        (["--votes", str(file), "--output", str(tmp_path / "no" / "folder")], "cannot be written"),
    ):
        done = export(*flags)
        assert done.returncode == 1 and words in done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("bitune: ")


def test_exporting_imports_neither_gradio_nor_torch():
    check = "import sys, app.votes.__main__; print({'gradio', 'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", "it begins at once"


def test_a_reader_that_has_seen_enough_ends_it_quietly(file):
    command = f"{sys.executable} -m app.votes export --votes {file} | head -c 10"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (len(done.stdout), done.stderr) == (10, "")


def test_the_file_of_another_process_is_read_as_it_is(file):
    before = file.read_bytes()
    export("--votes", str(file))
    assert file.read_bytes() == before and [path.name for path in Path(file).parent.iterdir()] == [file.name]
