"""How the benchmarks measure: works that run in turn inside one process, as ratios; memory above what was there before."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

Work = Callable[[], float]
"""Does something and returns what it measured of it, as a rule seconds."""


@dataclass(frozen=True)
class Measured:
    """A figure: the median over rounds, the least and the most.

    Attributes:
        unit: Of the three; empty for a ratio.
        over, under: Of a ratio, the medians of what was held against each other, in the unit that was measured.
    """

    median: float
    least: float
    most: float
    rounds: int
    unit: str = ""
    over: float | None = None
    under: float | None = None


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def timed(call: Callable[[], object]) -> Work:
    """The call as a work that measures its seconds."""
    return lambda: seconds(call)


def in_turn(works: Mapping[str, Work], rounds: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Each work once to warm up, then `rounds` times in turn; what each has measured, round by round.

    A work gives back the threads that it has computed in: those of two works would slow each other down.
    """
    from bitune.modeling.threads import release_team  # with torch, which the command line has no use for

    def alone(work: Work) -> float:
        try:
            return work()
        finally:
            release_team()

    if warm_up:
        for work in works.values():
            alone(work)
    turns = [{name: alone(work) for name, work in works.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in works}


def ratio(over: Sequence[float], under: Sequence[float]) -> Measured:
    """What was measured of one thing over that of another, round by round."""
    ratios = [one / other for one, other in zip(over, under, strict=True)]
    of_each = statistics.median(over), statistics.median(under)
    return Measured(statistics.median(ratios), min(ratios), max(ratios), len(ratios), "", *of_each)


def amount(values: Sequence[float], unit: str) -> Measured:
    """A figure that is no ratio: a time or a size."""
    return Measured(statistics.median(values), min(values), max(values), len(values), unit)


def resident() -> int:
    """Bytes of this process in memory now."""
    return psutil.Process().memory_info().rss


def peak_above(call: Callable[[], object]) -> int:
    """Most bytes above the start while `call` runs, looked at every 5 ms."""
    start, most, done = resident(), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.005):
            most = max(most, resident() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return most
