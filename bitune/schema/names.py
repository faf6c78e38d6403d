"""What the variants of an engine are called where nobody gave them a name."""

import os
from collections.abc import Mapping
from pathlib import Path

BASE_NAME = "base"
DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16", "int8", "fp32", "bf16", "fp16")


def default_name(source: object, taken: Mapping[str, object]) -> str:
    """The name of a checkpoint: the last part of its folder or Hub id, or all of it where another's ends alike.

    Args:
        source: a folder, or a Hub id with an optional revision.
        taken: the names there are, with their sources as text; None for what is no checkpoint.
    """
    text = os.path.expanduser(str(source))
    # A folder's name may hold an @; "." and a link have the name of what they lead to. A path that leads nowhere is refused when it is read.
    last = Path(os.path.realpath(text) if os.path.isdir(text) else os.path.abspath(text.partition("@")[0])).name
    return str(source) if last in taken and str(source) not in taken.values() else last


def expected_names(sources: list[object]) -> list[str]:
    """What an engine will call its variants that loads these checkpoints, the base first."""
    taken: dict[str, str | None] = {BASE_NAME: None}
    for source in sources:
        taken.setdefault(default_name(source, taken), str(source))
    return list(taken)
