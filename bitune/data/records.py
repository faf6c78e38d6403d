"""Reads data sets, from JSON Lines files or from the Hub, into records of one schema. Knows no tokenizer and no model.

A record is a dict with `task` and either `question`, `choices` (list of texts), `label` (index); or `question`, `answer`; or
`prompt`, `answer`. The Hub's shapes of allenai/ai2_arc, allenai/openbookqa and openai/gsm8k are read as these.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub.errors import HFValidationError

from bitune.errors import DataError


def load_records(source: str | os.PathLike, split: str | None = None) -> list[dict]:
    """Read a whole data set.

    Args:
        source: path of a JSON Lines file, or a Hub data set as `id` or `id:config`.
        split: of a Hub data set, by default `train`; a file has none.

    Returns:
        Records in the schema above. `task` is what a record says, else the file's name up to its first dot, or the data set's.

    Raises:
        DataError: with the file and line, or the data set and record, what is wrong with it and what to do.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if split is not None:
            raise DataError(f"{path} is one file, so it has no split {split!r}; name the file that holds that split.")
        return _checked(_read_lines(path), task=path.name.split(".")[0], source=str(path))
    if isinstance(source, os.PathLike) or path.suffix in (".jsonl", ".json"):
        raise DataError(f"There is no file {path}; check the path.")
    name, _, config = source.partition(":")
    rows = _read_hub(name, config or None, split or "train")
    named = config if config not in ("", "main", "default") else name.split("/")[-1]
    return _checked(enumerate(rows, 1), task=named.lower().replace("-", "_"), source=source, unit="record")


def _read_lines(path: Path) -> Iterable[tuple[int, object]]:
    """Line number and parsed value of every line that is not blank."""
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line, f"{path}, line {number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check it.") from error


def _parsed(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}); write one JSON object a line.") from error


def _read_hub(name: str, config: str | None, split: str) -> Iterable[object]:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name!r} is no file here, and reading it from the Hub needs a package: pip install 'bitune[train]' or datasets."
        ) from error
    try:
        return datasets.load_dataset(name, config, split=split)
    except datasets.exceptions.DatasetGenerationError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0].rstrip(".")
        raise DataError(
            f"The files of {name!r} cannot be read as records ({reason}); use a data set of JSON or Parquet."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        for kind, message, problem in _HUB_ERRORS:
            if isinstance(error, kind) and re.search(message, reason):
                raise DataError(problem.format(name=name, split=split, reason=reason)) from error
        raise


# What can be wrong with the name of a Hub data set: what datasets raises, what its message holds, and our sentence. The first that
# fits counts; an error that is not here passes as it is.
_HUB_ERRORS = (
    (HFValidationError, "", "{name!r} is no file here, and no Hub data set can be called so; check the name."),
    (
        ConnectionError,
        "",
        "{name!r} is no file here, and the Hub cannot be reached ({reason}); check the connection, or name a JSON Lines file.",
    ),
    (
        FileNotFoundError,
        "",
        "{name!r} is no file here, and no data set on the Hub that you may read ({reason}); check the name, or log in.",
    ),
    (ValueError, "(Unknown|Bad) split", "The data set {name!r} has no split {split!r} ({reason}); name one that it has."),
    (
        ValueError,
        "BuilderConfig .* not found|Config name is missing",
        "The data set {name!r} needs one of its configs ({reason}); name it as {name}:CONFIG.",
    ),
    (
        RuntimeError,
        "scripts are no longer supported",
        "The data set {name!r} is a script, and scripts are not run; use a data set of JSON or Parquet.",
    ),
)


def _checked(rows: Iterable[tuple[int, object]], task: str, source: str, unit: str = "line") -> list[dict]:
    """Every row in the schema; DataError names the first that is not."""
    records = []
    for number, row in rows:
        try:
            records.append(normalized(row, task))
        except DataError as error:
            raise DataError(f"{source}, {unit} {number}: {error}") from error
    if not records:
        raise DataError(f"{source} holds no record; check that it is the right one.")
    return records


def normalized(row: object, task: str) -> dict:
    """One row in the schema, other fields left out. `task` names it if it has no name. Raises DataError."""
    if not isinstance(row, dict):
        raise DataError(f"{type(row).__name__} instead of an object with fields; write {{...}}.")
    record: dict = {"task": _text(row, "task") if "task" in row else task}
    if "prompt" in row:
        return record | {"prompt": _text(row, "prompt"), "answer": _text(row, "answer")}
    record["question"] = _text(row, "question_stem" if "question_stem" in row else "question")
    if "choices" not in row:
        return record | {"answer": _text(row, "answer")}
    choices, label = _choices(row)
    return record | {"choices": choices, "label": label}


def _text(row: dict, field: str) -> str:
    """A field that must hold text with something in it, fit for a tokenizer."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"field {field!r} is {value!r}, it needs a text; the row has {', '.join(map(str, row)) or 'no field'}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"field {field!r} holds half of a surrogate pair at character {error.start + 1}; remove it.") from error
    return value


def _choices(row: dict) -> tuple[list[str], int]:
    """The choices' texts and the index of the right one, from either shape; the first of two with the same text, as they score alike."""
    choices, label = row["choices"], row.get("label")
    if isinstance(choices, dict):  # the Hub's: {"text": [...], "label": ["A", ...]} with answerKey
        names, choices = choices.get("label"), choices.get("text")
        if not isinstance(names, list) or row.get("answerKey") not in names:
            raise DataError(
                f"answerKey is {row.get('answerKey')!r}, which is not a label of its choices; a hidden answer is no use."
            )
        label = names.index(row["answerKey"])
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"choices are {choices!r}; a list of two or more texts is needed.")
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
        raise DataError(f"label is {label!r}; an index from 0 to {len(choices) - 1} is needed.")
    texts = [_text({"choices": choice}, "choices") for choice in choices]
    return texts, texts.index(texts[label])
