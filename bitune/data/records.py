"""Reads data sets, from JSON Lines files or from the Hub, into records of the schema in rows.py. Knows no tokenizer and no model."""

import os
import re
from collections.abc import Iterable

from huggingface_hub.errors import HFValidationError

from bitune.data.lines import local_file, read_rows
from bitune.data.rows import first_number, normalized
from bitune.errors import DataError


def load_records(source: str | os.PathLike, split: str | None = None) -> list[dict]:
    """Read a whole data set.

    Args:
        source: path of a JSON Lines file, or a Hub data set as `id` or `id:config`.
        split: of a Hub data set, by default `train`; a file has none.

    Returns:
        Records in the schema of rows.py. `task` is what a record says, else the file's name up to its first dot, or the data set's.

    Raises:
        DataError: with the file and line, or the data set and record, what is wrong with it and what to do.
    """
    path = local_file(source)
    if path is not None:
        if split is not None:
            raise DataError(f"{path} is one file, so it has no split {split!r}; name the file that holds that split.")
        return _checked(read_rows(path), task=path.name.split(".")[0], source=str(path))
    name, _, config = source.partition(":")
    rows = _read_hub(name, config or None, split or "train")
    named = config if config not in ("", "main", "default") else name.split("/")[-1]
    numbered = ((f"record {number}", row) for number, row in enumerate(rows, 1))
    return _checked(numbered, task=named.lower().replace("-", "_"), source=source)


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


def _checked(rows: Iterable[tuple[str, object]], task: str, source: str) -> list[dict]:
    """Every row in the schema; DataError names the first that is not."""
    rows, records = list(rows), []
    first = first_number(row for _, row in rows)
    for place, row in rows:
        try:
            records.append(normalized(row, task, first))
        except DataError as error:
            raise DataError(f"{source}, {place}: {error}") from error
    if not records:
        raise DataError(f"{source} holds no record; check that it is the right one.")
    return records
