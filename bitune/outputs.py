"""Whether something can be written to a place, known before hours are spent on making it; and written whole. Knows no format."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitune.errors import ConfigError, disk_failure


def full_path(path: str | os.PathLike) -> Path:
    """The one name of a place: from the root, without `~`, `..`, links or a slash at the end, whatever folder is the current one later."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # no such home, a NUL
        raise ConfigError(f"{str(path)!r} is no path here ({error}); name another place.") from error


def from_here(path: Path) -> str:
    """A full path as a person in the current folder writes it: without that folder's own path in front."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def check_folder(folder: Path) -> None:
    """Make a folder, as far as it is not there, and a file in it and beside it; then take away again what was made.

    Raises:
        ConfigError: the disk refuses; with its reason.
    """
    with _refused(folder):
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        made: list[Path] = []
        try:
            for place in reversed(missing):
                place.mkdir()
                made.append(place)
            for place in (folder / "file", folder):
                with _beside(place) as part:
                    part.write_bytes(b"x")
        finally:
            for place in reversed(made):
                with suppress(OSError):  # another run has put something into it meanwhile
                    place.rmdir()


def check_file(file: Path) -> None:
    """Write something beside a file, as `write_whole` does, and take it away again.

    Raises:
        ConfigError: `file` is something else than a file or lies in no folder, or the disk refuses.
    """
    if file.is_dir():
        raise ConfigError(f"{str(file)!r} is a folder; name a file.")
    if not file.parent.is_dir():
        raise ConfigError(
            f"{str(file)!r} cannot be written, as there is no folder {str(file.parent)!r}; make it, or name another file."
        )
    if file.exists() and not file.is_file():
        raise ConfigError(f"{str(file)!r} is a pipe, a device or a socket, and a file would take its place; name a file.")
    with _refused(file), _beside(file) as part:
        part.write_bytes(b"x")


def write_whole(file: Path, text: str) -> None:
    """Write a text file, or replace it, whole or not at all; no other file is touched."""
    with _beside(file) as part:
        part.write_text(text, encoding="utf-8")
        part.replace(file)


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A path of the same name in a new folder beside `place`, which goes at the end with what is still in it."""
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as folder:
        yield Path(folder) / place.name


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failure = disk_failure(error)
        raise ConfigError(f"{str(path)!r} cannot be written: {failure.cause}; {failure.remedy}.") from error
