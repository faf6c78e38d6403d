"""Votes for other programs: python -m app.votes export [--votes FILE] [--format csv|jsonl] [--output FILE]."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from app.votes.export import csv_lines, json_lines
from app.votes.place import votes_file
from app.votes.store import VotesError, VoteStore
from bitune.errors import BituneError, ConfigError, disk_failure

FORMATS = {"jsonl": json_lines, "csv": csv_lines}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(prog="python -m app.votes", description="The votes that visitors of the page gave.")
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and write."""
    flags = parser().parse_args(arguments)
    try:
        export(votes_file(flags.votes), flags.format, flags.output)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except BituneError as error:
        sys.exit(f"bitune: {error}")


if __name__ == "__main__":
    main()
