"""--help of every command, and a flag that there is not, need no torch: they are answered at once."""

import pytest

from tests.light import run

COMMANDS = {
    "app.py": (),
    "app.record": (),
    "app.votes": ("export",),
    "benchmarks": (),
    "benchmarks.table": (),
    "bitune": ("train", "evaluate"),
    "bitune.harness": ("run", "ls"),
    "soak": (),
    "study": ("run", "all", "table", "ship"),
}
BRINGS = {"bitune.harness": ("numpy",)}  # lm-eval itself
EACH = [(name, *command) for name, commands in COMMANDS.items() for command in ((), *((one,) for one in commands))]


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_help(command):
    ended = run(*command, "--help", brings=BRINGS.get(command[0], ()))
    assert ended.returncode == 0 and ended.stdout.startswith("usage: ") and "%%" not in ended.stdout


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_a_flag_that_there_is_not(command):
    ended = run(*command, "--no-such-flag", brings=BRINGS.get(command[0], ()))
    assert ended.returncode == 2 and "usage: " in ended.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("app.py", "--chekpoint", "x"), "Did you mean --checkpoint?"),
        (("app.votes", "exprot"), "Did you mean export?"),
        (("app.votes", "export", "--format", "cvs"), "Did you mean csv?"),
        (("benchmarks", "--round", "x"), "argument --rounds: invalid int value: 'x'"),
        (("benchmarks", "--treads", "2"), "Did you mean --threads?"),
        (("soak", "--visiters", "3"), "Did you mean --visitors?"),
        (("study", "run", "--data", "x", "--sate", "y"), "Did you mean --state?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_typo_is_answered_with_the_nearest_name(command, words):
    ended = run(*command)
    assert ended.returncode == 2 and words in ended.stderr
