"""Forwards whose tensors stay where they are, so that a GPU repeats them as CUDA graphs: their many hundred kernels by one call.

A forward over few tokens computes for a fraction of the time that Python takes to ask for it. A graph knows addresses, sizes and nothing
else; so a forward is captured for certain rows, adapters and lengths, and is let go when weights are written or moved. On a device without
graphs the same forward runs as it is, which tests hold to the usual one.
"""

import logging
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor

from bitune.errors import is_out_of_memory

log = logging.getLogger(__name__)

DEVICES = ("cuda",)
"""Types of devices on which a forward is worth its memory."""
_SEEN = 256  # kinds of forwards that are known to have been wanted


class Captured(ABC):
    """A forward that is repeated. It takes no memory before `prepare`.

    Args:
        nbytes: About as many bytes as its tensors will take.

    Attributes:
        device: Where it runs.
    """

    device: torch.device

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found: object = None

    @abstractmethod
    def prepare(self) -> None:
        """Make the tensors that are read and written."""

    @abstractmethod
    def forward(self) -> object:
        """Compute from these tensors; asks the device nothing, and returns tensors that are the forward's own."""

    def capture(self, pool: object) -> None:
        """Note the forward as a graph; `pool` is memory that graphs share which never run at the same time."""
        with torch.cuda.device(self.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # what libraries set up at a first call cannot be captured
                self.forward()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # others may load a checkpoint meanwhile
                self._found = self.forward()
        self._graph = graph

    def repeat(self) -> object:
        """What `forward` returns; with a graph the next forward of any graph overwrites it."""
        if self._graph is None:
            return self.forward()
        self._graph.replay()
        return self._found


Forward = TypeVar("Forward", bound=Captured)


class CapturedForwards:
    """The captured forwards of one base that were used last, each lent to one owner at a time. Its user owns the base meanwhile.

    Args:
        limit: The most bytes that they take together; 0 for none at all.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._known: OrderedDict[Captured, tuple[Hashable, weakref.ref]] = OrderedDict()  # with its kind and its owner
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._pool: object = None

    def __reduce__(self) -> tuple:
        return CapturedForwards, (self.limit,)  # a graph belongs to its process and to its model

    def __contains__(self, forward: object) -> bool:
        return forward in self._known

    def take(self, kind: Hashable, owner: object, make: Callable[[], Forward], *, waits: bool) -> Forward | None:
        """A forward for somebody, until nobody refers to the owner any more or `give_back`; None where there is none for now.

        Args:
            kind: All that it depends on: its class, rows, sizes.
            owner: Any object that lives as long as the forward is wanted.
            make: One of this kind.
            waits: Whether a new kind is captured at once. Otherwise one is that was wanted before: capturing takes as long as a few
                forwards, and nobody may want it again.
        """
        free = [forward for forward, (_, held) in self._known.items() if held() is None]
        forward = next((one for one in free if self._known[one][0] == kind), None)
        if forward is None:
            waits = waits or kind in self._seen
            self._note(kind)
            forward = self._made(make(), free) if waits else None
        if forward is not None:
            self._known[forward] = kind, weakref.ref(owner)
            self._known.move_to_end(forward)
        return forward

    def give_back(self, forward: Captured) -> None:
        """Its owner does not want it any more."""
        if forward in self._known:
            self._known[forward] = self._known[forward][0], _nobody

    def clear(self) -> None:
        """Let go of all; who owns one finds that it is not among these any more."""
        self._known.clear()
        self._seen.clear()
        self._pool = None

    def _note(self, kind: Hashable) -> None:
        self._seen[kind] = None
        self._seen.move_to_end(kind)
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)

    def _made(self, forward: Forward, free: list[Captured]) -> Forward | None:
        """The same, captured, if it has room among those that are lent; the others make room for it, those used longest ago first."""
        lent = sum(other.nbytes for other in self._known if other not in free)
        if lent + forward.nbytes > self.limit:
            return None
        while sum(other.nbytes for other in self._known) + forward.nbytes > self.limit:
            del self._known[free.pop(0)]
        try:
            forward.prepare()
            if forward.device.type == "cuda":
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                forward.capture(self._pool)
        except Exception as error:
            if is_out_of_memory(error):
                self.clear()
                self.limit //= 2  # others need the memory; asked again at the next token
            elif isinstance(error, RuntimeError):  # the model asks the device something in between, as routing among experts may
                log.warning("Forwards of this base cannot be captured as CUDA graphs, and run without: %s", error)
                self.limit = 0
            else:
                raise
            return None
        return forward


def _nobody() -> None:
    return None


def size_with(part: Tensor, tokens: int) -> torch.Size:
    """The size of keys or values [rows, heads, tokens, head dim] with so many tokens."""
    return torch.Size([*part.shape[:2], tokens, part.shape[-1]])
