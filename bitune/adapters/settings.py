"""Values in an adapter_config.json: of the types that PEFT takes, finite, and no more than it can go through. Knows no model.

PEFT checks few of them: a rank that is text or an alpha that is infinite shows somewhere later as a TypeError, or as NaN.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields

from peft import PeftConfig

from bitune.errors import CheckpointError, shown
from bitune.schema.config import FLOAT32_MAX

MAX_NAMES = 20_000
"""Names in one list: PEFT compares each with each module of the base."""

MAX_PATTERNS = 1_024
"""Regular expressions in one setting: PEFT compiles each anew for each module. A base of 126 layers has 882 linear ones."""

MAX_PATTERN = 10_000
"""Characters of a regular expression; the longest that PEFT or Unsloth write have some hundred."""


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= FLOAT32_MAX


def _is_rank(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_pattern(value: object) -> bool:
    return type(value) is str and len(value) <= MAX_PATTERN


def _all(values: object, fits: Callable[[object], bool], limit: int) -> bool:
    return isinstance(values, Iterable) and len(values) <= limit and all(map(fits, values))


def _are_names(value: object) -> bool:
    """A regular expression, or a list of names; none where the setting is not used."""
    listed = isinstance(value, list) and _all(value, lambda name: type(name) is str, MAX_NAMES)
    return value is None or listed or _is_pattern(value)


def _are_patterns(value: object) -> bool:
    return value is None or _is_pattern(value) or isinstance(value, list) and _all(value, _is_pattern, MAX_PATTERNS)


def _are_layers(value: object) -> bool:
    return value is None or type(value) is int or isinstance(value, list) and _all(value, lambda x: type(x) is int, MAX_NAMES)


def _by_pattern(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and _all(value, _is_pattern, MAX_PATTERNS) and all(map(fits, value.values()))


_NAMES = f"a list of at most {MAX_NAMES:,} names, or a regular expression of at most {MAX_PATTERN:,} characters"
_KEYS = f"for at most {MAX_PATTERNS:,} names or regular expressions, each of at most {MAX_PATTERN:,} characters"
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "r": (_is_rank, "a whole number from 1 on"),
    "rank_pattern": (_by_pattern(_is_rank), f"an object with whole numbers from 1 on {_KEYS}"),
    "lora_alpha": (_is_number, "a finite number of float32"),
    "alpha_pattern": (_by_pattern(_is_number), f"an object with finite numbers of float32 {_KEYS}"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "target_modules": (_are_names, _NAMES),
    "exclude_modules": (_are_names, _NAMES),
    "feedforward_modules": (_are_names, _NAMES),
    "layers_pattern": (_are_patterns, f"a regular expression, or a list of at most {MAX_PATTERNS:,}"),
    "layers_to_transform": (_are_layers, f"a number, or a list of at most {MAX_NAMES:,}"),
    "init_lora_weights": (lambda value: value is None or type(value) in (bool, str), "true, false or text"),
    **dict.fromkeys(
        ("peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version"),
        (lambda value: value is None or type(value) is str, "text"),
    ),
}


def check_settings(data: Mapping[str, object], kind: type[PeftConfig], file: str) -> None:
    """Refuse settings that are not of PEFT's types, or beyond the limits here.

    Args:
        data: The settings that `kind` knows, from `file`.
        kind: Of config.
        file: What the error calls it.

    Raises:
        CheckpointError: Names the first such setting.
    """
    defaults = {field.name: None if field.default is MISSING else field.default for field in fields(kind)}
    for key, value in data.items():
        fits, words = _RULES.get(key) or _like(defaults[key])
        if not fits(value):
            raise CheckpointError(f"{file} has the {key} {shown(value)}; it must be {words}: download or save the adapter again.")


def _like(default: object) -> tuple[Callable[[object], bool], str]:
    """The rule for a setting of which only the default is known."""
    if isinstance(default, bool):
        return lambda value: type(value) is bool, "true or false"
    if isinstance(default, int | float):
        return _is_number, "a finite number"
    if isinstance(default, str):
        return lambda value: value is None or type(value) is str, "text"
    return lambda value: value is None or type(value) in (dict, list), "an object, a list or null"
