"""The threads of OpenMP, in which torch computes on a CPU: given back by whoever is done.

Each thread of Python that computes gets a team of its own and keeps it. With two teams there are more threads than CPUs; libgomp then puts
them to sleep between any two products, and a step of five variants on two CPUs takes twice as long. So only who owns a base has a team.
"""

import ctypes
import functools
import sys
from collections.abc import Callable

import torch

_SOFT = 1  # omp_pause_soft: what the runtime has been told stays


@functools.cache
def _pause() -> Callable[[int], int] | None:
    """libgomp's function, None where torch computes with another runtime, which shares its threads by itself."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(torch._C.__file__)  # a symbol is looked up in what this was linked with, too
    try:
        library.GOMP_parallel, library.omp_pause_resource_all  # noqa: B018
    except AttributeError:
        return None
    try:
        library.__kmpc_fork_call  # noqa: B018 - LLVM's and Intel's runtimes answer to both names
    except AttributeError:
        return library.omp_pause_resource_all
    return None


def release_team() -> bool:
    """End the team of the calling thread, if it has one; the next product makes a new one, in a tenth of a millisecond.

    Returns:
        Whether this runtime can.
    """
    pause = _pause()
    return pause is not None and pause(_SOFT) == 0
