"""What every command line of the project shares: help with defaults, a typo answered with the nearest name, and errors as a sentence."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import NoReturn

from bitune.errors import BituneError

_FLAG = re.compile(r"--[a-z][\w-]*")
_CHOICE = re.compile(r"invalid choice: (?P<given>.+?) \(choose from (?P<known>.*)\)")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults behind the words, but for a flag that has none, is off, or says its default itself."""

    def _get_help_string(self, action):
        says_nothing = action.default in (None, [], False, "") or action.required or "default: " in action.help
        return action.help if says_nothing else super()._get_help_string(action)


class Flags(argparse.ArgumentParser):
    """A parser whose commands are such parsers too, so that each answers a typo with its own names."""

    def __init__(self, **options: object):
        """`options`: those of argparse.ArgumentParser."""
        super().__init__(formatter_class=Help, **options)

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, which leaves to the parser above what this one does not know: that one has other flags."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """As argparse's, and the nearest name where one was mistyped."""
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        if message.startswith("unrecognized arguments: "):
            known = set(_FLAG.findall(self.format_usage()))
            near = [nearest(given, known) for given in _FLAG.findall(message)]
        elif found := _CHOICE.search(message):
            near = [nearest(found["given"].strip("'"), re.findall(r"[\w.-]+", found["known"]))]
        else:
            near = []
        words = " and ".join(name for name in dict.fromkeys(near) if name)
        return f"\nDid you mean {words}?" if words else ""


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The one of the known names that a person may have meant; None where nothing is near."""
    return next(iter(get_close_matches(given, sorted(known), n=1, cutoff=0.5)), None)


def number(kind: type, minimum: float) -> Callable[[str], float]:
    """An argparse type: a number of at least `minimum`."""

    def read(text: str):
        value = kind(text)
        if not value >= minimum:
            raise argparse.ArgumentTypeError(f"{text} is below {minimum}")
        return value

    read.__name__ = kind.__name__  # argparse shows it where `kind` cannot read the text
    return read


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: one of these names, also where it comes from the environment, which argparse's `choices` do not look at."""

    def read(text: str) -> str:
        if text not in names:
            near = nearest(text, names)
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of {', '.join(names)}" + (f"; did you mean {near}?" if near else "")
            )
        return text

    return read


def status_of(program: str, command: Callable[[], int | None]) -> int:
    """Run a command. What people can act on comes out as one sentence on stderr; anything else passes.

    Args:
        program: what the sentence begins with.
        command: returns its exit status, None for 0.

    Returns:
        The exit status: 1 after an error of ours or the system's, or where nobody reads stdout any more; 130 after Ctrl+C.
    """
    try:
        status = command() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BituneError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130
    return status
