"""Votes for other programs: python -m app.votes export [--votes FILE] [--format csv|jsonl] [--output FILE]."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from app.votes.export import csv_lines, json_lines
from app.votes.place import votes_file
from app.votes.store import VotesError, VoteStore
from bitune.errors import ConfigError, disk_failure
from bitune.flags import Flags, status_of

FORMATS = {"jsonl": json_lines, "csv": csv_lines}


def parser() -> Flags:
    """The command line."""
    flags = Flags(prog="python -m app.votes", description="The votes that visitors of the page gave.")
    export = flags.add_subparsers(dest="command", required=True).add_parser("export", help="write all of them, the oldest first")
    export.add_argument(
        "--votes",
        default=os.environ.get("BITUNE_VOTES", ""),
        metavar="FILE",
        help="the file they are kept in (default: where the page keeps them; environment: BITUNE_VOTES)",
    )
    export.add_argument(
        "--format", choices=FORMATS, default="jsonl", help="jsonl has everything as it was given, csv is for spreadsheets"
    )
    export.add_argument("--output", type=Path, metavar="FILE", help="where they go (default: the terminal)")
    return flags


def export(file: Path, form: str, output: Path | None) -> None:
    """Write the votes of a file; BituneError where it cannot be read, or what comes of it not be written."""
    if not file.is_file():
        raise ConfigError(f"There is no file of votes {str(file)!r}; name it with --votes.")
    try:
        lines = FORMATS[form](VoteStore.reading(file).votes())
        with nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8", newline="") as target:
            target.writelines(lines)
            target.flush()
    except VotesError as error:
        raise ConfigError(f"{file}: {error}") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        failure = disk_failure(error)
        raise ConfigError(f"{str(output)!r} cannot be written: {failure.cause}; {failure.remedy}.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and write; returns the exit status."""
    flags = parser().parse_args(arguments)
    return status_of("bitune", lambda: export(votes_file(flags.votes), flags.format, flags.output))


if __name__ == "__main__":
    sys.exit(main())
