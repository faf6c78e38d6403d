"""Whether something can be written to a place, known before hours are spent on making it. Knows no format."""

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
            for parent in (folder, folder.parent):
                with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=parent) as beside:
                    (Path(beside) / "file").write_bytes(b"x")
        finally:
            for place in reversed(made):
                with suppress(OSError):  # another run has put something into it meanwhile
                    place.rmdir()


def check_file(file: Path) -> None:
    """Make the `.part` of a file, which is renamed when it is whole, and take it away again.

    Raises:
        ConfigError: `file` is a folder or lies in none, or the disk refuses.
    """
    if file.is_dir() or not file.parent.is_dir():
        raise ConfigError(f"{str(file)!r} cannot be a file: it is a folder, or lies in none; name a file in a folder there is.")
    with _refused(file):
        part = file.with_name(f"{file.name}.part")
        part.write_bytes(b"x")
        part.unlink()


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failure = disk_failure(error)
        raise ConfigError(f"{str(path)!r} cannot be written: {failure.cause}; {failure.remedy}.") from error
