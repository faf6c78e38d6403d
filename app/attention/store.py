"""Attention maps that were computed, kept for the pages that show them. Knows no gradio and no model; safe to use from any thread.

A result is computed once and kept under a key that only its page knows; opening another layer or head then asks for one small picture.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

from app.attention import maps as pictures
from app.attention.request import AttentionRequest
from bitune.cancellation import Cancelled, check, current
from bitune.errors import ConfigError
from bitune.schema.results import AttentionMaps

RESULT_BYTES = 100 * 2**20  # of one result with all its layers; a longer prompt keeps only the layers that were opened
STORE_BYTES = 4 * RESULT_BYTES
SECONDS_BETWEEN_LOOKS = 0.05  # at a request's own cancellation, while another one computes what it wants
FORGOTTEN = "This reading is no longer kept here; press Read to compute it again."


@dataclass(eq=False)
class AttentionResult:
    """What was asked and what came of it.

    `maps`: the summaries, with whatever layers were computed first. `labels`: of its tokens. `layers`: those that were opened later; a
    Future, as one may still be under way. `layers` and `bytes` belong to the store, which changes them under its lock.
    """

    key: str
    request: AttentionRequest
    maps: AttentionMaps
    labels: Sequence[str]
    bytes: int
    layers: dict[int, Future[AttentionMaps]] = field(default_factory=dict)


class AttentionStore:
    """The results of all visitors, the oldest forgotten when they take too much memory."""

    def __init__(self, compute: Callable[[AttentionRequest, Sequence[int]], AttentionMaps], max_bytes: int = STORE_BYTES):
        """An empty store.

        Args:
            compute: Runs the model for some layers of a request; called without the lock.
            max_bytes: How much memory all maps together may take; the result used last stays in any case.
        """
        self.compute = compute
        self.max_bytes = max_bytes
        self.bytes = 0
        self.results: OrderedDict[str, AttentionResult] = OrderedDict()
        self.lock = Lock()

    def add(self, request: AttentionRequest, maps: AttentionMaps, labels: Sequence[str] = ()) -> AttentionResult:
        """Keep what came of a request, under a key that nobody can guess."""
        result = AttentionResult(secrets.token_urlsafe(16), request, maps, labels, pictures.size(maps))
        with self.lock:
            self.results[result.key] = result
            self.bytes += result.bytes
            self._forget_oldest()
        return result

    def get(self, key: str) -> AttentionResult:
        """The result under this key; ConfigError where it is no longer kept."""
        with self.lock:
            if key not in self.results:
                raise ConfigError(FORGOTTEN)
            self.results.move_to_end(key)
            return self.results[key]

    def has(self, result: AttentionResult, layer: int) -> bool:
        """Whether this layer is kept, so that nothing has to be computed."""
        with self.lock:
            known = result.layers.get(layer)
        return layer in result.maps.layers or (known is not None and known.done() and known.exception() is None)

    def layer(self, result: AttentionResult, layer: int) -> AttentionMaps:
        """The maps that hold this layer, computed where they were not kept; once, however many ask at the same time."""
        if layer in result.maps.layers:
            return result.maps
        while True:
            with self.lock:
                known = result.layers.get(layer)
                if known is None:
                    computed = result.layers[layer] = Future()
            if known is None:
                return self._compute(result, layer, computed)
            try:
                return known.result(SECONDS_BETWEEN_LOOKS)
            except Cancelled:
                continue  # whoever asked first does not want it any more; this one does
            except TimeoutError:
                check(current())

    def _compute(self, result: AttentionResult, layer: int, computed: Future[AttentionMaps]) -> AttentionMaps:
        try:
            maps = self.compute(result.request, [layer])
        except BaseException as error:
            with self.lock:
                del result.layers[layer]  # whoever asks next tries again
            computed.set_exception(error)
            raise
        with self.lock:
            self._count(result, pictures.size(maps))
        computed.set_result(maps)
        return maps

    def _count(self, result: AttentionResult, added: int) -> None:
        """`added` bytes more of a result, which may have been forgotten while they were computed. Needs the lock."""
        result.bytes += added
        if result.key in self.results:
            self.bytes += added
            self.results.move_to_end(result.key)
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Until the rest fits; the last one stays. Needs the lock."""
        while self.bytes > self.max_bytes and len(self.results) > 1:
            _, oldest = self.results.popitem(last=False)
            self.bytes -= oldest.bytes
