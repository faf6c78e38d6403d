"""A text or a file with many prompts -> the prompts, with the right answer where one is given. Knows no tokenizer and no model.

Three forms, told apart by a file's name or, without one, by the text itself:

- JSON: one value a line, or one array. A text is a prompt; an object has `prompt` or `question`, and may have `answer`; or a question has
  `choices` and `label` as in rows.py, and then the choices are listed under it as in training.
- CSV, with commas, semicolons or tabs: the first line names the columns, which are the fields of such an object.
- Text: each line is a prompt, and what follows a tab in it the right answer, as two columns of a spreadsheet are pasted; or, where a line
  `---` stands in it, each part between such lines is a prompt of several lines.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitune.data.lines import parsed_rows
from bitune.data.rows import asked, first_number
from bitune.errors import DataError, reason, shown
from bitune.files import local_path, read_text

JSON, CSV, TEXT = "JSON Lines", "CSV", "text"
FORMS = {".jsonl": JSON, ".json": JSON, ".ndjson": JSON, ".csv": CSV, ".tsv": CSV, ".txt": TEXT, ".md": TEXT}
SET_BYTES = 64 * 1024**2
"""Of a file with prompts: hundreds of thousands of questions."""

_BETWEEN = "---"
_SEPARATORS = ",;\t"
_COLUMNS = {"prompt", "question", "question_stem"}


@dataclass(frozen=True)
class SetPrompt:
    """What is asked, as a person would type it, and the right answer; None where nobody says what is right."""

    prompt: str
    right: str | None = None


def load_set(source: str | os.PathLike) -> tuple[SetPrompt, ...]:
    """The prompts of a file; DataError with the file, the place, what is wrong and what to do."""
    path = local_path(source, DataError)
    if not path.exists():
        raise DataError(f"There is no file {path}; check the path.")
    return parse_set(read_text(path, SET_BYTES, DataError), str(path))


def parse_set(text: str, name: str | None = None) -> tuple[SetPrompt, ...]:
    """The prompts of a text.

    Args:
        text: as it was read, or pasted.
        name: of the file that it stands in, whose ending says the form; None for what was pasted.

    Raises:
        DataError: a prompt cannot be read, or there is none.
    """
    source, text = name or "The text", _lines_ended_alike(text.removeprefix("\ufeff"))
    form = FORMS.get(Path(name).suffix.lower() if name else "") or _form_of(text)
    prompts = _of_text(text, source) if form == TEXT else _of_rows(_rows(text, form, source), source)
    if not prompts:
        raise DataError(f"{source} holds no prompt; write one a line.")
    return prompts


def set_of(values: Sequence[object]) -> tuple[SetPrompt, ...]:
    """The prompts of a list: each entry a text, or an object as a line of JSON has it; DataError names the entry that cannot be read."""
    prompts = _of_rows([(f"entry {number:,}", value) for number, value in enumerate(values, 1)], "The list")
    if not prompts:
        raise DataError("The list holds no prompt; give at least one.")
    return prompts


def _form_of(text: str) -> str:
    """The form that a text without a name has: the first line decides."""
    first = next((line.strip() for line in text.split("\n") if line.strip()), "")
    if first.startswith("{") or first.startswith("["):
        try:
            is_json = not isinstance(json.loads(first), int | float)
        except RecursionError:  # then the reader of JSON says so
            is_json = True
        except ValueError:  # an array over several lines, or a prompt that begins so
            is_json = first == "[" or first.startswith('{"')
        return JSON if is_json else TEXT
    return CSV if _separator(first) and _names_columns(first) else TEXT


def _names_columns(line: str) -> bool:
    """Whether the first line of a text without a name is that of a CSV."""
    try:
        return not _COLUMNS.isdisjoint(_header(line))
    except csv.Error:  # a cell of it is longer than the csv module reads
        return False


def _lines_ended_alike(text: str) -> str:
    """Lines that end as on any system, or as old spreadsheets of a Mac save them, with a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _of_text(text: str, source: str) -> tuple[SetPrompt, ...]:
    lines = text.split("\n")
    if any(line.strip() == _BETWEEN for line in lines):
        parts = [[]]
        for line in lines:
            if line.strip() == _BETWEEN:
                parts.append([])
            else:
                parts[-1].append(line)
        return tuple(SetPrompt(part.strip("\n")) for part in map("\n".join, parts) if part.strip())
    prompts = []
    for number, line in enumerate(lines, 1):
        prompt, _, right = (part.strip() for part in line.partition("\t"))
        if right and not prompt:
            raise DataError(
                f"{source}, line {number}: an answer stands behind a tab without a prompt before it; write the prompt."
            )
        if prompt:
            prompts.append(SetPrompt(prompt, right or None))
    return tuple(prompts)


def _rows(text: str, form: str, source: str) -> list[tuple[str, object]]:
    """Every row with the place where it stands."""
    return list(parsed_rows(io.StringIO(text), source) if form == JSON else _csv_rows(text, source))


def _of_rows(rows: Sequence[tuple[str, object]], source: str) -> tuple[SetPrompt, ...]:
    first, prompts = first_number(row for _, row in rows), []
    for place, row in rows:
        try:
            prompts.append(SetPrompt(*asked({"prompt": row} if isinstance(row, str) else row, first)))
        except DataError as error:
            raise DataError(f"{source}, {place}: {error}") from error
    return tuple(prompts)


def _csv_rows(text: str, source: str) -> list[tuple[str, dict[str, str | None]]]:
    """The rows of a CSV with named columns; an empty cell is as good as none."""
    text = text.lstrip("\n")
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(first) or ",", strict=True)
    rows = []
    try:
        columns = _checked_columns(_header(first), source)
        next(reader)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) > len(columns):
                    raise DataError(
                        f"{source}, line {reader.line_num}: {len(cells)} cells under {len(columns)} columns; put quotes around a text "
                        "that has the separator in it."
                    )
                given = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
                rows.append((f"line {reader.line_num}", given))
    except csv.Error as error:
        place = f"line {max(reader.line_num, 1)}"
        if "field limit" in str(error):
            raise DataError(
                f"{source}, {place}: a cell has more than {csv.field_size_limit():,} characters; shorten it, or close a quote that is "
                "still open."
            ) from error
        raise DataError(f"{source}, {place}: no CSV that can be read ({reason(error)}); save it again.") from error
    return rows


def _checked_columns(columns: list[str], source: str) -> list[str]:
    """The columns; DataError where none of them is a prompt, or where a name stands twice, as one of the two would not be read."""
    if _COLUMNS.isdisjoint(columns):
        named = ", ".join(columns) or "none"
        raise DataError(
            f"{source} has the columns {shown(named)[1:-1]}, and none is called prompt or question; name the columns in the first line."
        )
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has two columns called {shown(twice)}; rename one of them, or take it out.")
    return columns


def _separator(header: str) -> str | None:
    """The sign that parts the columns in the first line of a CSV; None where there is one column."""
    found = max(_SEPARATORS, key=header.count)
    return found if found in header else None


def _header(line: str) -> list[str]:
    """The names of the columns in the first line of a CSV, in small letters."""
    cells = next(csv.reader([line], delimiter=_separator(line) or ","), [])
    return [cell.strip().lower() for cell in cells]
