"""The command line: python -m soak [PART ...] does to an app what the public does, and prints figures. Status 1 where one is not held."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx

from bitune.errors import BituneError, UnknownNameError
from bitune.flags import Flags, number, status_of
from bitune.outputs import check_file, full_path
from soak.parts import PARTS, Plan


def parser() -> Flags:
    """The flags."""
    flags = Flags(prog="python -m soak", description="What a page in public has to bear, with figures.")
    flags.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; left out: all of them")
    flags.add_argument("--visitors", type=number(int, 1), default=Plan.visitors, help="at once")
    flags.add_argument("--minutes", type=number(float, 0), default=Plan.minutes, help="how long they stay")
    flags.add_argument("--pause", type=number(float, 0), default=Plan.pause, help="most seconds between two requests of one")
    flags.add_argument("--requests", type=number(int, 1), default=Plan.requests, help="of the part memory")
    flags.add_argument("--tokens", type=number(int, 1), default=Plan.tokens, help="of a longer answer")
    flags.add_argument("--base", help="as app.py takes it; default: the app's")
    flags.add_argument("--checkpoint", action="append", default=[], help="as app.py takes it, may be repeated")
    flags.add_argument("--output", type=Path, metavar="FILE", help="write the figures there too, as JSON")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts one after the other; returns the exit status."""
    options = parser().parse_args(arguments)
    return status_of("soak", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    if unknown := [name for name in options.parts if name not in PARTS]:
        print(f"soak: {UnknownNameError('part', unknown[0], PARTS)}", file=sys.stderr)
        return 2
    if options.output:
        check_file(full_path(options.output))
    flags = [*(["--base", options.base] if options.base else []), *(f"--checkpoint={one}" for one in options.checkpoint)]
    plan = Plan(tuple(flags), options.visitors, options.minutes, options.requests, options.tokens, options.pause)
    figures: dict[str, dict[str, object]] = {}
    for name in options.parts or PARTS:
        started = time.monotonic()
        try:
            figures[name] = PARTS[name](plan)
        except BituneError as error:
            figures[name] = {"failed": str(error), "ok": False}
        except httpx.TransportError as error:
            figures[name] = {"failed": f"The page does not answer ({type(error).__name__}).", "ok": False}
        print(f"{name} ({time.monotonic() - started:.0f} s): {json.dumps(figures[name], indent=2)}", flush=True)
        if options.output:
            options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if all(one["ok"] for one in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
