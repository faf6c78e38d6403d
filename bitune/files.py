"""Files that somebody else wrote, read within limits: kind, size, depth and count are checked before anything is made of them.

Knows JSON, text and the headers of safetensors; knows no checkpoint, no base and no tensor.
"""

import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitune.errors import BituneError, DataError, disk_failure, reason, shown

JSON_BYTES = 8 * 1024**2
"""Of a config. One that names each of 40,000 modules has 3 MB."""

JSON_DEPTH = 64
"""Lists and objects inside each other. Configs have 3 or 4 of them; Python's own functions give up at some hundred."""

HEADER_BYTES = 16 * 1024**2
TENSORS = 100_000
"""Of one safetensors file; its header has at least 60 bytes a tensor. An adapter of 126 layers has 2,000."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that `git clone` leaves in place of a large one where Git LFS is not installed."""
_DTYPE = re.compile("[A-Z][A-Z0-9_]{0,15}")
"""How safetensors names every dtype that it has, such as F8_E4M3."""
_LENGTH_BYTES = 8  # of a safetensors file: the size of its header, lowest byte first


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of a tensor: `dtype` by its own names (`F32`, `BF16`), `shape` in numbers."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Args:
        tensors: name -> what is said of it, in the file's order.
        metadata: texts beside them.
    """

    tensors: Mapping[str, TensorHeader]
    metadata: Mapping[str, str]


def local_path(name: str | os.PathLike, error_class: type[BituneError]) -> Path:
    """The path that a person wrote, `~` replaced; `error_class` where nothing on this machine can have this name."""
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # it is too long, or the home of somebody who is not there
        raise error_class(f"{shown(str(name))} is no path here ({reason(error)}); give another.") from error
    return path


def check_file(file: Path, limit: int, error_class: type[BituneError]) -> int:
    """The size in bytes of a regular file, or of the one that a link leads to: the Hub's cache is made of links.

    Raises:
        FileNotFoundError: nothing has this name; what that means knows who asks.
        BituneError: it is something else than a file, larger than `limit` bytes, or cannot be looked at.
    """
    try:
        status = file.stat()
    except FileNotFoundError:
        if not file.is_symlink():
            raise
        raise error_class(
            f"{file} is a link to {os.readlink(file)!r}, and there is no such file; copy the file itself."
        ) from None
    except OSError as error:
        raise unreadable(file, error, error_class) from error
    except ValueError as error:  # a zero in the name
        raise error_class(f"{str(file)!r} is no name of a file ({reason(error)}); give another.") from error
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(status.st_mode)), "no file")
        raise error_class(f"{file} is {kind}, not a file; remove it, or copy the file there.")
    if status.st_size > limit:
        raise _too_large(file, status.st_size, limit, error_class)
    return status.st_size


def read_bytes(file: Path, limit: int, error_class: type[BituneError], *, at_most: int | None = None) -> bytes:
    """The content of a file, or its first `at_most` bytes; raises what `check_file` raises, and for a pointer of Git LFS."""
    check_file(file, limit, error_class)
    try:
        with file.open("rb") as stream:
            content = stream.read(limit + 1 if at_most is None else at_most)
    except OSError as error:
        raise unreadable(file, error, error_class) from error
    if len(content) > limit:  # it grows, or is one of those that the system makes while they are read
        raise _too_large(file, len(content), limit, error_class)
    if content.startswith(_POINTER):
        raise error_class(f"{file} is a pointer of Git LFS, not the file itself; fetch the file with `git lfs pull`.")
    return content


def read_text(file: Path, limit: int, error_class: type[BituneError]) -> str:
    """The text of a file in UTF-8; raises what `check_file` raises."""
    try:
        return read_bytes(file, limit, error_class).decode("utf-8")
    except UnicodeDecodeError as error:
        raise error_class(f"{file} is not readable text ({reason(error)}); download or save it again.") from error


def read_object(file: Path, error_class: type[BituneError], limit: int = JSON_BYTES) -> dict:
    """The JSON object in a file; raises what `check_file` raises, and `error_class` for one that is not readable JSON."""
    try:
        data = parse_json(read_bytes(file, limit, error_class).decode("utf-8"))
    except ValueError as error:
        raise error_class(f"{file} is not readable JSON ({reason(error)}); download or save it again.") from error
    if not isinstance(data, dict):
        raise error_class(f"{file} holds a {type(data).__name__}, not a JSON object; download or save it again.")
    return data


def parse_json(text: str) -> object:
    """The value that a JSON text holds; NaN and the infinities are read, as Python writes them.

    Raises:
        ValueError: it is no JSON; a key stands twice, as readers differ in which they take; it is nested deeper than JSON_DEPTH; or a
            text in it holds half of a surrogate pair, which can neither be shown nor saved.
    """
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
        check_nesting(value)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise ValueError(f"it holds half of a surrogate pair (U+{half:04X}), which is no character") from None
    return value


def check_nesting(value: object) -> None:
    """ValueError for a JSON value with lists and objects nested deeper than JSON_DEPTH."""
    level = [value]
    for _ in range(JSON_DEPTH):
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inside for item in items]
    if any(isinstance(item, dict | list) for item in level):
        raise ValueError(f"it is nested deeper than {JSON_DEPTH} lists and objects")


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these keys and values, as a hook of `json.loads`; ValueError for a key that stands twice."""
    if len(found := dict(pairs)) < len(pairs):
        [(repeated, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {repeated[:100]!r} stands twice in one object")
    return found


def parse_lines(text: str, what: str) -> list[object]:
    """The values of a text with one JSON value a line; DataError calls the text `what` and names the line."""
    values = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at characters that JSON allows inside a text
        if line.strip():
            try:
                values.append(parse_json(line))
            except ValueError as error:
                raise DataError(
                    f"Line {number} of {what} is not JSON ({reason(error)}); copy the file again, or remove it."
                ) from error
    return values


def read_header(file: Path, limit: int, error_class: type[BituneError]) -> Header:
    """The header of a safetensors file, without a tensor of it.

    Args:
        file: the file.
        limit: the most bytes that the whole file may have.
        error_class: of the errors.

    Raises:
        FileNotFoundError: as `check_file`.
        BituneError: as `check_file`; or the header is damaged, or says what cannot be.
    """
    size = check_file(file, limit, error_class)
    damaged = f"{file} is damaged or cut short ({{}}); download or save it again."
    beginning = read_bytes(file, limit, error_class, at_most=len(_POINTER))
    length = int.from_bytes(beginning[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES + length <= size:
        raise error_class(damaged.format(f"its header has {length:,} bytes, the file {size:,}"))
    if length > HEADER_BYTES:
        raise _too_large(file, length, HEADER_BYTES, error_class, part="a header of ")
    content = read_bytes(file, limit, error_class, at_most=_LENGTH_BYTES + length)[_LENGTH_BYTES:]
    if (tensors_named := content.count(b'"data_offsets"')) > TENSORS:  # before 20 seconds of parsing
        raise error_class(
            f"{file} holds {tensors_named:,} tensors, and at most {TENSORS:,} are read; split it into several files."
        )
    try:
        entries = parse_json(content.decode("utf-8"))
        if not isinstance(entries, dict):
            raise ValueError(f"its header is a {type(entries).__name__}, not an object")
        metadata = entries.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its __metadata__ are no texts")
        tensors = {name: _tensor_header(name, entry, size) for name, entry in entries.items()}
    except ValueError as error:
        raise error_class(damaged.format(reason(error))) from error
    return Header(tensors, metadata)


def _tensor_header(name: str, entry: object, size: int) -> TensorHeader:
    """`size`: of the file in bytes. ValueError for an entry that no tensor of such a file can have."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name[:100]!r} is not dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ValueError(f"the dtype of {name[:100]!r} is {shown(dtype)}, which safetensors does not have")
    # Half a byte is the least that a number takes; a dimension of 0 may stand beside one that overflows.
    numbers = isinstance(shape, list) and all(type(dimension) is int and 0 <= dimension <= 2 * size for dimension in shape)
    if not numbers or len(shape) > 8 or math.prod(shape) > 2 * size:
        raise ValueError(f"the shape of {name[:100]!r} is {str(shape)[:100]}, which this file cannot hold")
    return TensorHeader(dtype, tuple(shape))


def unreadable(file: Path, error: OSError, error_class: type[BituneError]) -> BituneError:
    """The sentence for a file that the system does not let us read, with the remedy for its reason."""
    failure = disk_failure(error)
    return error_class(f"{file} cannot be read: {failure.cause}; {failure.remedy}.")


def _too_large(file: Path, size: int, limit: int, error_class: type[BituneError], part: str = "") -> BituneError:
    return error_class(
        f"{file} has {part}{size:,} bytes and at most {limit:,} are read; it is not what its name says: replace it."
    )
