"""Exceptions people can act on. Each message gives the value, the cause and the remedy. Imports nothing of the project."""

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from reprlib import Repr

_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 8
_SHORT.maxstring = _SHORT.maxother = 150
_LONGEST_NUMBER = 128  # bits; Python itself refuses to write out numbers of some thousand


def shown(value: object) -> str:
    """A value that somebody else wrote, as it stands in a sentence: on one line, cut to 200 characters."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        return f"a number of {value.bit_length():,} bits"
    text = _SHORT.repr(value).replace("\n", " ")
    return text if len(text) <= 200 else f"{text[:197]}..."


class BituneError(Exception):
    """Root of every error this library raises on purpose; its text is one sentence fit to show to a person."""


class BaseNotFoundError(BituneError):
    """No source could deliver the base weights, or what it delivered is damaged."""


class UnsupportedModelError(BituneError):
    """The base model cannot run Bitune: no ordinary key/value cache, or no control over its attention mask."""


class CheckpointError(BituneError):
    """A checkpoint folder is incomplete, damaged, of an unknown format, or does not fit."""


class WrongBaseError(CheckpointError):
    """The checkpoint was trained on another base than the one it is loaded on."""


class ConfigError(BituneError):
    """A setting has a value that makes no sense."""


class PromptError(BituneError):
    """A prompt cannot be read by the model: empty, too long, or not text."""


class DataError(BituneError):
    """A data set or one of its records cannot be read."""


class UnknownNameError(BituneError, KeyError):
    """A name is not among the known ones; the message lists them and the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = get_close_matches(name[:100], known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        choices = ", ".join(map(repr, known)) or "none yet"
        self.message = f"There is no {kind} called {shown(name)}; known: {choices}.{hint}"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would show the repr
        return self.message

    def __reduce__(self) -> tuple:  # pickled by its message: what was known is not kept
        return UnknownNameError.__new__, (UnknownNameError, self.message), self.__dict__


@dataclass(frozen=True)
class Failure:
    """A known cause of an exception of another library, and what helps against it: two parts of one sentence."""

    cause: str
    remedy: str


_DISK_FAILURES = {
    errno.ENOSPC: Failure("the disk is full", "free some space"),
    errno.EDQUOT: Failure("the disk quota is used up", "free some space"),
    errno.EFBIG: Failure("the file is larger than this disk or this account may hold", "choose another folder"),
    errno.EROFS: Failure("the disk is read-only", "choose another folder"),
    errno.EACCES: Failure("permission denied", "change the permissions, or choose another folder"),
    errno.EPERM: Failure("permission denied", "change the permissions, or choose another folder"),
}


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that say there is no room."""


def disk_failure(error: OSError) -> Failure:
    """What the operating system says about a file, with the remedy that fits its error number."""
    return _DISK_FAILURES.get(error.errno, Failure(reason(error), "check the path and the disk"))


_RUST = re.compile(r"\(os error (\d+)\)")


def disk_error(error: BaseException) -> OSError | None:
    """What the operating system refused to do with a file, where that is the cause of an exception; None where it is not.

    tokenizers and safetensors, which are written in Rust, raise exceptions of no telling class; the number stands in their text.
    """
    if isinstance(error, OSError):
        return error
    found = _RUST.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # torch on a CPU
    "not enough memory",  # torch on a CPU, Windows
    "Cannot allocate memory",  # the operating system, when a file is mapped
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or in the computer: torch raises a RuntimeError of its own, or a plain one."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )


def reason(error: BaseException) -> str:
    """The first line of an exception, fit to stand inside a sentence.

    Where another library wraps an exception (`raise ... from cause`), its cause is read instead: it is closer to what happened.

    Args:
        error: any exception.

    Returns:
        At most 300 characters without a stop at the end; the exception's class where it has no text.
    """
    if not isinstance(error, BituneError):
        error = error.__cause__ or error
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".:;")[:300]
