"""--help of every command, and a flag that there is not, need no torch: they are answered at once."""

import pytest

from tests.light import run

COMMANDS = {
    "app.py": (),
    "app.record": (),
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
    assert ended.returncode == 0 and ended.stdout.startswith("usage: ")


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_a_flag_that_there_is_not(command):
    ended = run(*command, "--no-such-flag", brings=BRINGS.get(command[0], ()))
    assert ended.returncode == 2 and "usage: " in ended.stderr
