"""Replace a set of files in a folder, all or none, and leave every other file in it alone. Knows no checkpoint."""

import contextlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def replace_files(folder: Path, files: Mapping[str, bytes], outdated: Iterable[str], *, essential: str) -> None:
    """Write `files` into `folder` and take `outdated` out of it.

    The new files are complete on the disk, beside the folder, before the first of them takes its place. After that only names
    change, and an error puts all of them back.

    Args:
        folder: may be there or not; its own name and place do not change, nor do files that are not named here.
        files: path inside the folder, at most one folder deep, -> content.
        outdated: paths inside the folder that go, as far as they are there; a subfolder that this leaves empty goes too.
        essential: the path of the file without which a reader refuses the folder: it goes first and comes last, for the case that
            the process is killed.

    Raises:
        OSError: of the file system; nothing was changed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        if not folder.exists():
            new.rename(folder)
            return
        replaced = [name for name in dict.fromkeys([essential, *files, *outdated]) if (folder / name).exists()]
        added = sorted(files, key=lambda name: name == essential)
        moves = [(folder / name, old / name) for name in replaced] + [(new / name, folder / name) for name in added]
        _move_all(moves)
    for subfolder in {(folder / name).parent for name in replaced} - {folder}:
        with contextlib.suppress(OSError):  # it still holds something
            subfolder.rmdir()


def _move_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename every source to its target, in this order, and make the folders of the targets; an error undoes all of it."""
    made: list[Path] = []
    try:
        for source, target in moves:
            if not target.parent.exists():
                made.append(target.parent)
                target.parent.mkdir(parents=True)
            source.rename(target)
    except BaseException:
        for source, target in reversed(moves):
            if target.exists() and not source.exists():  # whatever the moment of the error, this move was made
                target.rename(source)
        for parent in reversed(made):
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
