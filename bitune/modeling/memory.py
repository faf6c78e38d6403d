"""Memory that torch has freed: given back to the system by whoever is done.

glibc keeps what lies between blocks that are still used. After long prompts of several variants that is some hundred megabytes, which
nobody needs between two requests.
"""

import ctypes
import functools
import sys
from collections.abc import Callable

import torch


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's function, None where there is another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def release_freed() -> bool:
    """Give freed memory back, in some milliseconds.

    Returns:
        Whether this C library can.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
    return trim is not None


def release_reserved() -> None:
    """Give back what torch has freed on a GPU and keeps for the next tensor."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
