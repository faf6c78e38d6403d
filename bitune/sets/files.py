"""The rows of a set in a file: JSON Lines that a later run goes on with, and CSV for spreadsheets. Knows no engine.

The first line of the JSON Lines is {"settings": ...}: what made the answers, so that no file holds answers that were made in two ways. Each
other line is a row, written when its batch has ended.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitune.errors import ConfigError, DataError, disk_failure, shown
from bitune.files import parse_lines, read_text
from bitune.outputs import check_file, write_whole
from bitune.sets.rows import Row, in_order

_BYTES = 1024**3  # it holds every answer
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")  # what so begins is run by one spreadsheet or another


@dataclass
class SetFile:
    """A file of rows, open for more. `rows`: those that it holds."""

    path: Path
    rows: list[Row] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows at the end, at once."""
        _append(self.path, "".join(_line(row.to_dict()) for row in rows))
        self.rows += rows


def check_set_file(path: Path, *, resume: bool) -> None:
    """ConfigError unless rows can be written to `path`: it is new or empty, or a file of rows that is gone on with; knows no settings."""
    check_file(path)
    if not path.exists() or not path.stat().st_size:
        return
    if not resume:
        raise ConfigError(f"{str(path)!r} is there already; go on with it by --resume, or name a new file.")
    _read(path)


def open_set_file(path: Path, settings: Mapping[str, object], *, resume: bool) -> SetFile:
    """A file to which the rows of a set are written.

    Args:
        path: of the file.
        settings: what makes the answers, as plain JSON values.
        resume: whether to go on with what it holds.

    Raises:
        ConfigError: it is there and is not to be gone on with, or its rows were made with other settings; the first one is named.
        DataError: it holds something else.
    """
    check_set_file(path, resume=resume)
    if not path.exists() or not path.stat().st_size:
        write_whole(path, _line({"settings": settings}))
        return SetFile(path)
    earlier, rows = _read(path)
    settings = json.loads(json.dumps(settings))  # a tuple is a list in a file
    for name in (*settings, *(name for name in earlier if name not in settings)):
        if earlier.get(name) != settings.get(name):
            raise ConfigError(
                f"The rows in {str(path)!r} were made with {name} {shown(earlier.get(name))}, and now it is {shown(settings.get(name))}; "
                "give the same settings, or name a new file."
            )
    _append(path, "", cut=True)
    return SetFile(path, rows)


def _read(path: Path) -> tuple[dict[str, object], list[Row]]:
    """Settings and rows. A last line that was not written to its end is left out."""
    whole, _, _ = read_text(path, _BYTES, DataError).rpartition("\n")
    values = parse_lines(whole, f"{str(path)!r}")
    head = values[0] if values else None
    if not isinstance(head, dict) or not isinstance(head.get("settings"), dict):
        raise ConfigError(f"{str(path)!r} holds no rows of a set of prompts, and they would be written into it; name a new file.")
    rows = {row.key: row for row in map(Row.from_dict, values[1:])}
    return head["settings"], list(rows.values())


def _append(path: Path, text: str, *, cut: bool = False) -> None:
    """Write at the end of a file; `cut`: behind its last whole line."""
    try:
        with path.open("r+b") as file:
            if cut:
                file.truncate(file.read().rfind(b"\n") + 1)
            file.seek(0, io.SEEK_END)
            file.write(text.encode("utf-8"))
    except OSError as error:
        failure = disk_failure(error)
        raise ConfigError(f"{str(path)!r} cannot be written: {failure.cause}; {failure.remedy}.") from error


def json_lines(settings: Mapping[str, object], rows: Iterable[Row]) -> str:
    """The whole text of a file of rows."""
    return "".join(_line(value) for value in ({"settings": settings}, *(row.to_dict() for row in rows)))


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """A head, and a line a row (RFC 4180), in the order of the set.

    Prompts and answers are of anybody, so their cells are `harmless`.
    """
    names = list(rows[0].answers) if rows else []
    parts = ("text", "tokens", "finish_reason", "is_right")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["prompt number", "sample", "prompt", "right", "same", *(f"{name}: {part}" for name in names for part in parts)]
    )
    for row in in_order(rows):
        answers = [getattr(row.answers[name], part) for name in names for part in parts]
        cells = [row.index + 1, row.sample + 1, row.prompt, row.right, row.is_same, *answers]
        writer.writerow(map(harmless, cells))
    return text.getvalue()


def harmless(cell: object) -> object:
    """A cell that a spreadsheet shows and does not run: before text that begins as a formula does, blanks apart, stands a `'`."""
    runs = isinstance(cell, str) and (cell.startswith(_FORMULA) or cell.lstrip("\ufeff \v\f\u00a0\u3000").startswith(_FORMULA))
    return f"'{cell}" if runs else cell


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """The rows as CSV in a file, whole or not at all."""
    write_whole(path, csv_text(rows))
