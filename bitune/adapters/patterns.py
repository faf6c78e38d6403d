"""Regular expressions of a PEFT config, tried within limits before PEFT runs them on the names of a base's modules.

A pattern can take longer than the age of the universe (`(a+)+b`), and Python's `re` neither stops nor lets another thread run. What
is dangerous cannot be told from the text alone: alternatives that overlap do it without nesting, several `.*` in a row are slow
without being endless, and rules against either would refuse patterns that people use. So the very calls that PEFT will make are made
in another process, which is ended when it takes too long. `re` always takes the same way, so here it is as quick as it was there.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from peft import PeftConfig

from bitune.errors import CheckpointError, shown

TIME_LIMIT = 3.0
"""Seconds, the start of Python included; a pattern that people use takes milliseconds."""

# Nothing in them repeats, so they need no trial; a dot stands for any character.
_PLAIN = re.compile(r"[\w.-]*", re.ASCII)

# As PEFT writes them: tuners_utils.check_target_module_exists, ia3.model, utils.other.get_pattern_key.
_WHOLE, _KEYS = ("target_modules", "exclude_modules", "feedforward_modules"), ("rank_pattern", "alpha_pattern")
_CALLS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(_WHOLE, ("{}", "fullmatch")),
    **dict.fromkeys(_KEYS, (r"(.*\.)?({})$", "match")),
    "layers_pattern": (r"(?:^|.*?\.){}\.(?P<idx>\d+)\.", "match"),
}

_PROGRAM = """
import json, re, sys
patterns, way, paths = json.load(sys.stdin)
try:
    for pattern in patterns:
        run = getattr(re.compile(pattern), way)
        for path in paths:
            run(path)
except (re.error, OverflowError, RecursionError) as error:
    print(json.dumps(str(error)))
"""


def check_patterns(config: PeftConfig, paths: Sequence[str], name: str) -> None:
    """Refuse a config with a regular expression that cannot be run on the names of a base's modules.

    Args:
        config: Not on the base yet.
        paths: The names of all modules.
        name: What the error calls the config.

    Raises:
        CheckpointError: A pattern takes longer than TIME_LIMIT, or is none.
    """
    for setting, patterns in _patterns(config).items():
        tried = [pattern for pattern in patterns if not _PLAIN.fullmatch(pattern)]
        if tried and (problem := _problem(setting, tried, paths)):
            raise CheckpointError(
                f"{name} has the {setting} {shown(tried if len(tried) > 1 else tried[0])}, {problem}; name the modules in a list."
            )


def _patterns(config: PeftConfig) -> dict[str, list[str]]:
    """Setting -> its regular expressions."""
    settings = vars(config)
    found = {key: [settings[key]] for key in _WHOLE if isinstance(settings.get(key), str)}
    found |= {key: list(settings[key]) for key in _KEYS if settings.get(key)}
    if layers := settings.get("layers_pattern"):
        found["layers_pattern"] = [layers] if isinstance(layers, str) else list(layers)
    return found


def _problem(setting: str, patterns: Sequence[str], paths: Sequence[str]) -> str | None:
    """Why PEFT could not run these patterns of a setting, as the end of a sentence; None where it can."""
    form, way = _CALLS[setting]
    given = json.dumps([[form.replace("{}", pattern, 1) for pattern in patterns], way, list(paths)])
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=TIME_LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return f"which takes longer than {TIME_LIMIT:g} s on the names of this base's modules"
    return f"which is no regular expression ({json.loads(done.stdout)})" if done.stdout else None
