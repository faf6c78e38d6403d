"""How much memory is free, and whether something fits into it: asked before it is loaded, as a system that runs out of memory ends processes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from bitune.errors import ConfigError

CONTROL_GROUPS = Path("/sys/fs/cgroup")
# Of a control group, as a container has one: the most bytes, those in use, and what of these is given back when it is wanted: old and new form.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def check_room(what: str, size: int, device: torch.device, given_back: int = 0) -> None:
    """ConfigError where `what` takes more memory than is free now.

    Args:
        what: The subject of the sentence.
        size: Bytes that it takes on the device, and on its way there in the memory of this computer.
        device: Where it goes.
        given_back: Bytes on that device that are let go before it comes.
    """
    for place in dict.fromkeys((torch.device("cpu"), device)):
        returned = given_back if device.type != "cuda" or place == device else 0
        free = free_bytes(place) + returned
        if size > free:
            where = "here" if place.type in ("cpu", "mps") else f"on {place}"
            after = f", with the {spoken(returned)} that are given back before" if returned else ""
            raise ConfigError(
                f"{what} takes about {spoken(size)} of memory and {spoken(free)} are free {where}{after}; free memory, or choose a "
                "smaller one."
            )


def written_bytes() -> int | None:
    """How much memory this process has written to, on a system that says so: what it only maps from files counts as free already."""
    info = psutil.Process().memory_info()
    return info.rss - info.shared if sys.platform == "linux" else None


def free_bytes(device: torch.device) -> int:
    """How many bytes can still be taken on a device; on one that shares this computer's memory, of that."""
    if device.type != "cuda":
        return min([psutil.virtual_memory().available, *_left_in_control_groups()])
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps what it has been given


def _left_in_control_groups() -> Iterator[int]:
    """What the control group of a container leaves; nothing where there is none, or it has no limit."""
    for most, used, given_back in _FILES:
        if not (CONTROL_GROUPS / most).is_file():
            continue
        limit = (CONTROL_GROUPS / most).read_text("ascii").strip()
        if limit != "max":
            statistics = (CONTROL_GROUPS / used).with_name("memory.stat").read_text("ascii").split()
            reclaimable = int(statistics[statistics.index(given_back) + 1])
            yield max(int(limit) - int((CONTROL_GROUPS / used).read_text("ascii")) + reclaimable, 0)


def spoken(size: int) -> str:
    """So many bytes as people say it: `3.2 GB`, `12 MB`."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
