"""Reads the rows of a file of JSON Lines, or of one JSON array. Knows no schema.

Read as `datasets.load_dataset("json", ...)` reads them: a byte order mark, CR LF, blank lines, gzip, NaN and an array in place of lines
pass; a key given twice, a comma too many and every encoding but UTF-8 are refused.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

from bitune.errors import DataError, reason
from bitune.files import local_path, unique_keys, unreadable

_GZIP = b"\x1f\x8b"


def local_file(source: str | os.PathLike) -> Path | None:
    """The file of a data set, not read; None for what can be a data set of the Hub, which is not asked; DataError for neither."""
    path = local_path(source, DataError)
    if path.is_file():
        return path
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a pipe or a device, which can be read once or without end; save it as a file.")
    if isinstance(source, os.PathLike) or path.suffix in (".jsonl", ".json"):
        raise DataError(f"There is no file {path}; check the path.")
    return None


def read_rows(path: Path) -> Iterator[tuple[str, object]]:
    """Every row of a file.

    Returns:
        Where it stands (`line 3`, or `record 3` of an array), and its value as Python's json reads it. NaN is null, which is what pandas
        means by it.

    Raises:
        DataError: with the file and line, what is wrong with it and what to do.
    """
    try:
        with open(path, "rb") as file:
            opened = gzip.open if file.read(2) == _GZIP else open
        with opened(path, "rt", encoding="utf-8-sig") as text:
            yield from parsed_rows(text, str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({reason(error)}); pack or download it again.") from error
    except OSError as error:
        raise unreadable(path, error, DataError) from error


def parsed_rows(text: TextIO, source: str) -> Iterator[tuple[str, object]]:
    """As `read_rows`, of an open text; `source` is what errors call it."""
    lines = ((number, line) for number, line in enumerate(text, 1) if line.strip())
    begin = next(lines, None)
    if begin is None:
        return
    before, line = begin[0] - 1, begin[1]
    if line.lstrip().startswith("["):
        whole = "\n" * before + line + text.read()
        rows = _parsed(whole, source, "write one array of objects, or one object a line")
        yield from ((f"record {record}", row) for record, row in enumerate(rows, 1))
        return
    for number, row in chain([begin], lines):
        yield f"line {number}", _parsed(row.strip(), f"{source}, line {number}", "write one JSON object a line")


def _parsed(text: str, where: str, remedy: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON that can be read ({_cause(error)}); {remedy}.") from error


def _cause(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        return f"{error.msg} at {place}"
    if isinstance(error, RecursionError):
        return "its lists and objects lie too deep in one another"
    return reason(error).partition(";")[0]  # a key given twice; a number of more digits than Python reads


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)
