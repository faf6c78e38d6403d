"""How the benchmarks measure: works run in turn inside one process, as ratios; memory above what was there before."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Time of a work over that of the first one, round by round; `seconds` is the median time of the work itself."""

    median: float
    least: float
    most: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def seconds(work: Work) -> float:
    """Time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, Ratio]:
    """Each work once to warm up, then `rounds` times in turn; times as ratios to the first work of the same round."""
    for work in works.values():
        work()
    times = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
    first = next(iter(works))
    result = {}
    for name in works:
        ratios = [turn[name] / turn[first] for turn in times]
        median = statistics.median(turn[name] for turn in times)
        result[name] = Ratio(statistics.median(ratios), min(ratios), max(ratios), median)
    return result


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_above(work: Work) -> int:
    """Most bytes above the start while `work` runs, looked at every 5 ms."""
    start, most, done = resident(), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.005):
            most = max(most, resident() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return most
