"""What `--data` may name, known before anything of it is read: the start of the app asks here before it imports what takes time."""

from pathlib import Path

from bitune.data.lines import local_file
from bitune.errors import DataError

HUB_SPLIT = "test"


def files_of(source: str) -> list[tuple[str | Path, str | None]]:
    """What to read for a source, each with its split. DataError for a folder without tests, and for a file that is not there."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.test.jsonl"))
        if not files:
            raise DataError(f"The folder {source} has no file *.test.jsonl, so no question of the study is read from it.")
        return [(file, None) for file in files]
    return [(source, None if local_file(source) else HUB_SPLIT)]
