"""The flags of python -m bitune: help at once, wrong usage explained, old flags answered with their new names."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from bitune.cli import main, parser

ROOT = Path(__file__).parent.parent
COMMANDS = ["generate", "compare", "train", "evaluate", "convert", "inspect"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and out.startswith(f"usage: python -m bitune {command}")
    assert "%%" not in out and "(default: None)" not in out and "(default: [])" not in out
    assert "(default: False)" not in out
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0 and f"\n    {command}" in capsys.readouterr().out


def test_every_flag_says_what_it_is():
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert set(commands.choices) == set(COMMANDS)
    for name, command in commands.choices.items():
        assert not [action.dest for action in command._actions if not action.help], name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["generat"], "invalid choice: 'generat'"),
        (["generate"], "required: prompt"),
        (["inspect", "a", "--base", "b"], "unrecognized arguments"),
        (["train", "--output", "x"], "required: --data"),
        (["train", "--data", "x", "--output", "y", "--method", "bitun"], "invalid choice: 'bitun'"),
        (["train", "--data", "x", "--output", "y", "--lr-scheduler-type", "zigzag"], "invalid choice: 'zigzag'"),
        (["train", "--data", "x", "--output", "y", "--weight-decay", "-1"], "--weight-decay: -1 is below 0"),
        (["train", "--data", "x", "--output", "y", "--max-grad-norm", "nan"], "--max-grad-norm: nan is below 0"),
        (["train", "--data", "x", "--output", "y", "--validation", "much"], "invalid float value: 'much'"),
        (["evaluate", "--data", "x", "--batch-size", "0"], "--batch-size: 0 is below 1"),
        (["evaluate", "--data", "x", "--limit", "-3"], "--limit: -3 is below 1"),
        (["compare"], "required: FILE"),
        (["compare", "x", "--samples", "0"], "--samples: 0 is below 1"),
    ],
)
def test_wrong_usage_is_explained(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and words in captured.err and not captured.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generat"], "Did you mean generate?"),
        (["generate", "hi", "--tempreture", "1"], "Did you mean --temperature?"),
        (["compare", "x", "--sample-s=2", "--chekpoint", "y"], "Did you mean --samples and --checkpoint?"),
        (["train", "--data", "x", "--output", "y", "--method", "bitun"], "Did you mean bitune?"),
        (["train", "--data", "x", "--output", "y", "--leaning-rate", "1"], "Did you mean --learning-rate?"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name_of_that_command(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.endswith(f"\n{words}\n")
    command = f" {arguments[0]}" if len(arguments) > 1 else ""
    assert captured.err.startswith(f"usage: python -m bitune{command} ")


def test_where_nothing_is_near_nothing_is_guessed(capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "a", "--samples", "2"])
    assert "Did you mean" not in capsys.readouterr().err


def test_a_reader_who_has_seen_enough_gets_no_traceback():
    script = "import sys, bitune.flags as f; sys.exit(f.status_of('bitune', lambda: print('line\\n' * 100_000)))"
    command = f'{sys.executable} -c "{script}" | head -1'
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "line\n", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--accumulation", "--gradient-accumulation-steps"),
        ("--alpha", "--lora-alpha"),
        ("--alpha-start", "--initial-mixing-alpha"),
        ("--batch-size", "--per-device-train-batch-size"),
        ("--clip", "--max-grad-norm"),
        ("--epochs", "--num-train-epochs"),
        ("--evaluate-every", "--eval-steps"),
        ("--log-every", "--logging-steps"),
        ("--save-every", "--save-steps"),
        ("--schedule", "--lr-scheduler-type"),
        ("--warmup", "--warmup-ratio"),
    ],
)
def test_an_old_flag_answers_with_its_new_name(old, new, capsys):
    for given in ([old, "0.5"], [f"{old}=0.5"]):
        with pytest.raises(SystemExit) as stopped:
            main(["train", "--data", "x", "--output", "y", *given])
        assert stopped.value.code == 2 and capsys.readouterr().err == f"python -m bitune train: {old} is called {new} now\n"
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    assert new in out and f"{old} " not in out


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help_needs_no_torch(command):
    """Nor transformers, PEFT or numpy: it answers at once."""
    script = (
        "import sys\n"
        "from bitune.cli import main\n"
        "try:\n    main([*sys.argv[1:], '--help'])\n"
        "finally:\n    print(sorted({'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.endswith("\n[]\n"), ended.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("generate --base {folder}/nothing hi", "There is no folder or .gguf file"),
        ("generate --base {folder} hi", "has no config.json"),
        ("generate --checkpoint {folder}/nothing hi", "There is no checkpoint folder"),
        ("generate --checkpoint {folder} hi", "bitune_config.json is missing"),
        ("generate --temperature -1 hi", "temperature is -1"),
        ("compare {folder}/nothing.txt", "There is no file"),
        ("compare {folder}/notes.txt --samples 2", "all of them would be the same"),
        ("compare {folder}/notes.txt --resume", "--resume is given without --output"),
        ("compare {folder}/notes.txt --output {folder}/notes.txt", "one would replace the other"),
        ("compare {folder}/notes.txt --output {folder}/more.txt", "more.txt' is there already"),
        ("compare {folder}/notes.txt --output {folder}/more.txt --resume", "is not JSON"),
        ("compare {folder}/notes.txt --csv {folder}", "is a folder; name a file"),
        ("compare {folder}/notes.txt --checkpoint {folder}/nothing", "There is no checkpoint folder"),
        ("train --data {folder}/nothing.jsonl --output {folder}/new", "There is no file"),
        ("train --data nobody/nothing --output {folder}", "not empty; choose an empty or new folder"),
        ("train --data nobody/nothing --output /dev/null/x", "cannot be written"),
        ("train --data nobody/nothing --output {folder}/new --learning-rate 0", "learning_rate is 0.0"),
        ("evaluate --data {folder}/nothing.jsonl", "There is no file"),
        ("evaluate --data nobody/nothing --leave-out {folder}/nothing.jsonl", "There is no file"),
        ("evaluate --data nobody/nothing --checkpoint {folder}/nothing", "There is no checkpoint folder"),
        ("convert {folder}/nothing {folder}/new", "There is no folder"),
        ("convert {folder} {folder}/notes.txt", "notes.txt' is a file"),
        ("inspect {folder}/nothing", "There is no checkpoint folder"),
    ],
)
def test_what_files_alone_can_tell_is_said_before_torch_is_imported(command, words, tmp_path):
    for name in ("notes.txt", "more.txt"):
        (tmp_path / name).write_text("mine\n")
    script = (
        "import sys\n"
        "from bitune.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, sorted({'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys()))"
    )
    arguments = command.format(folder=tmp_path).split()
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout == "1 []\n", ended
    assert words in ended.stderr and ended.stderr.startswith("bitune: ") and ended.stderr.count("\n") == 1


def test_a_report_that_cannot_be_written_is_said_before_torch_is_imported(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    script = "import sys\nfrom bitune.cli import main\nprint(main(sys.argv[1:]), 'torch' in sys.modules)"
    arguments = ["evaluate", "--data", "nobody/nothing", "--output", str(tmp_path / "notes.txt")]
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout == "1 False\n" and "is no report of an evaluation" in ended.stderr
