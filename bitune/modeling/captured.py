"""Forwards whose tensors stay where they are, so that a GPU repeats them as CUDA graphs: their many hundred kernels by one call.

A forward over few tokens computes for a fraction of the time that Python takes to ask for it. A graph knows addresses, sizes and nothing
else; so a forward is captured for certain rows, adapters and lengths, and is let go when weights are written or moved. On a device without
graphs the same forward runs as it is, which tests hold to the usual one.
"""

import contextlib
import logging
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

from bitune.errors import is_out_of_memory
from bitune.modeling.packed import lasting

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
        with _CAPTURING, torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self._run_once(current)
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads may do what they want meanwhile, load a checkpoint say.
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    self._found = self.forward()
            except BaseException:
                torch.cuda.set_stream(current)  # where ending the capture fails too, torch leaves its stream as the thread's
                _capture_nothing(self.device)
                raise
        self._graph = graph

    def _run_once(self, current: torch.cuda.Stream) -> None:
        """What libraries set up at a first call cannot be captured; `current` is this thread's stream."""
        side = torch.cuda.Stream()
        side.wait_stream(current)
        try:
            with torch.cuda.stream(side):
                self.forward()
        finally:  # a hook may have stopped it halfway, and what it uses is still being read there
            current.wait_stream(side)

    def repeat(self) -> object:
        """What `forward` returns; with a graph the next forward of any graph overwrites it."""
        if self._graph is None:
            return self.forward()
        self._graph.replay()
        return self._found


def _capture_nothing(device: torch.device) -> None:
    """A capture that succeeds, after one that did not: torch's random numbers believe until then that they are being captured."""
    with contextlib.suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        torch.zeros(1, device=device)


_CAPTURING = threading.Lock()  # torch captures one graph at a time, and a process may have several bases
Known = TypeVar("Known", bound=Captured)


class CapturedForwards:
    """The captured forwards of one base that were used last, each lent to one owner at a time. Its user owns the base meanwhile.

    Args:
        limit: The most bytes that they take together; 0 for none at all.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._known: OrderedDict[Captured, tuple[Hashable, weakref.ref]] = OrderedDict()  # with its kind and its owner
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._pool: object = None

    def __reduce__(self) -> tuple:
        return CapturedForwards, (self.limit,)  # a graph belongs to its process and to its model

    def __contains__(self, forward: object) -> bool:
        return forward in self._known

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value
        if value:
            self._make_room(0)
        else:
            self.clear()

    def take(self, kind: Hashable, owner: object, make: Callable[[], Known], *, waits: bool) -> Known | None:
        """A forward for somebody, until nobody refers to the owner any more or `give_back`; None where there is none for now.

        Args:
            kind: All that it depends on: its class, rows, sizes.
            owner: Any object that lives as long as the forward is wanted.
            make: One of this kind.
            waits: Whether a new kind is captured at once. Otherwise one is that was wanted before: capturing takes as long as a few
                forwards, and nobody may want it again.
        """
        forward = next((one for one in self._free() if self._known[one][0] == kind), None)
        if forward is None:
            waits = waits or kind in self._seen
            self._note(kind)
            forward = self._made(make) if waits else None
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

    def _free(self) -> list[Captured]:
        """Those that are lent to nobody, those used longest ago first."""
        return [forward for forward, (_, held) in self._known.items() if held() is None]

    def _make_room(self, nbytes: int) -> bool:
        """Whether so many bytes have room among those that are lent; then others went for it."""
        free = self._free()
        lent = sum(forward.nbytes for forward in self._known if forward not in free)
        if lent + nbytes > self._limit:
            return False
        while sum(forward.nbytes for forward in self._known) + nbytes > self._limit:
            del self._known[free.pop(0)]
        return True

    @lasting()  # whoever comes next may be in inference mode, or not
    def _made(self, make: Callable[[], Known]) -> Known | None:
        """A new one, captured; None where it has no room, or cannot be."""
        try:
            forward = make()
            if not self._make_room(forward.nbytes):
                return None
            forward.prepare()
            if forward.device.type == "cuda":
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                forward.capture(self._pool)
            else:
                forward.forward()  # to see that it does
        except Exception as error:
            if is_out_of_memory(error):
                self.clear()
                self.limit //= 2  # others need the memory
            elif isinstance(error, RuntimeError):  # the model asks the device something in between, as routing among experts may
                log.warning("Forwards of this base cannot be captured as CUDA graphs, and run without: %s", error)
                self.limit = 0
            else:
                raise
            return None
        return forward


def _nobody() -> None:
    return None
