"""Who may use a base now, one thread at a time, first come, first served; and what on it must not be removed."""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter

from torch import nn

from bitune import cancellation
from bitune.errors import ConfigError
from bitune.modeling.interface import attention_modules, before_each_layer
from bitune.modeling.threads import release_team

_SECONDS_BETWEEN_LOOKS = 0.05  # at a request's own cancellation, while it waits


class TurnQueue:
    """A lock with a line: whoever releases it and asks again stands behind all who wait.

    A plain lock is given to whoever is quickest, which is most often the thread that has just released it: a long request that
    works in turns would never let a short one in. The owner may take it again, as in `threading.RLock`.
    """

    def __init__(self):
        self._condition = threading.Condition()
        self._line: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Own the base until the end of the block.

        Args:
            cancelled: Set by anybody to leave the line; by default the event of the block that this thread is in
                (`cancellation.cancellable`), if it is in one.

        Raises:
            Cancelled: It was set before the turn came.
        """
        depth = self._depth if self.is_mine else 0
        try:
            self._acquire(cancelled or cancellation.current())
            yield
        finally:
            if (
                self.is_mine and self._depth > depth
            ):  # not where it left the line; but also where Ctrl+C came right after the turn
                self._release()

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread owns the base."""
        return self._owner == threading.get_ident()

    @property
    def waiting(self) -> int:
        """How many threads stand in the line."""
        return len(self._line)

    def _acquire(self, cancelled: threading.Event | None) -> None:
        if self.is_mine:
            self._depth += 1
            return
        ticket = object()
        timeout = None if cancelled is None else _SECONDS_BETWEEN_LOOKS
        with self._condition:
            self._line.append(ticket)
            try:
                while self._owner is not None or self._line[0] is not ticket:
                    cancellation.check(cancelled)
                    self._condition.wait(timeout)
                self._owner, self._depth = threading.get_ident(), 1
            finally:
                self._line.remove(ticket)
                self._condition.notify_all()  # whoever is first now may have become so by our leaving the line

    def _release(self) -> None:
        with self._condition:
            self._depth -= 1
            if self._depth == 0:
                release_team()  # the next one computes in another thread
                self._owner = None
                self._condition.notify_all()


class Holds:
    """Which threads need which adapters, from the start of their request to its end."""

    def __init__(self):
        self._changed = threading.Condition()
        self._threads: dict[str, list[int]] = {}  # adapter -> idents
        self._removing: set[str] = set()

    @contextmanager
    def hold(self, adapters: Collection[str], check: Callable[[], None]) -> Iterator[None]:
        """Keep adapters until the end of the block.

        Args:
            check: Raises where one of them is not there; called when nobody can begin to remove one.

        Raises:
            ConfigError: One of them is being removed.
        """
        thread = threading.get_ident()
        with self._changed:
            check()
            if leaving := sorted(self._removing.intersection(adapters)):
                raise ConfigError(f"Adapter {leaving[0]!r} is being removed; choose another.")
            for adapter in adapters:
                self._threads.setdefault(adapter, []).append(thread)
        try:
            yield
        finally:
            with self._changed:
                for adapter in adapters:
                    self._threads[adapter].remove(thread)
                self._changed.notify_all()

    @contextmanager
    def last_of(self, adapters: Collection[str], check: Callable[[], None], *, waits: bool) -> Iterator[None]:
        """Wait until nobody holds these adapters; until the end of the block, which removes them, nobody can begin to.

        Args:
            check: As in `hold`.
            waits: False for a thread that owns the base: whoever holds an adapter could not go on.

        Raises:
            ConfigError: The calling thread itself holds one, or may not wait, or somebody else is removing one.
        """
        with self._changed:
            check()
            held = [adapter for adapter in adapters if self._threads.get(adapter)]
            mine = [adapter for adapter in held if threading.get_ident() in self._threads[adapter]]
            if leaving := sorted(self._removing.intersection(adapters)):
                raise ConfigError(f"Adapter {leaving[0]!r} is being removed already; wait for that.")
            if mine:
                raise ConfigError(
                    f"Adapter {mine[0]!r} is in use by the very request that would remove it; end that request first."
                )
            if held and not waits:
                raise ConfigError(
                    f"Adapter {held[0]!r} is in use by a request that waits for this thread; remove it outside of a turn."
                )
            self._removing.update(adapters)
            try:
                self._changed.wait_for(lambda: not any(self._threads.get(adapter) for adapter in adapters))
            except BaseException:
                self._removing.difference_update(adapters)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._removing.difference_update(adapters)


class SharedModel:
    """A model that threads use in turns. Copied or pickled with its turns, it has a line of its own.

    Attributes:
        modules: Of the model, as they are now: to walk over them anew takes as long as a tenth of a token.
        attentions: Those of them that are the attention of a layer.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._note_modules()
        self._turns, self._holds = TurnQueue(), Holds()

    def _note_modules(self) -> None:
        self.modules = list(self.model.modules())
        self.attentions = attention_modules(self.modules)

    def __getstate__(self) -> dict:
        return {key: value for key, value in vars(self).items() if key not in ("_turns", "_holds")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _turns=TurnQueue(), _holds=Holds())

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Nobody else runs or changes this base until the end of the block; see `TurnQueue.turn`."""
        with self._turns.turn(cancelled):
            yield

    @contextmanager
    def eval_turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """A turn in eval mode, also while somebody trains on this base between two of their turns: dropout is theirs alone.

        In a block that can be cancelled (`cancellation.cancellable`) every layer of a forward looks whether it was: a long prompt is
        one forward and may take a minute.
        """
        with self.turn(cancelled), self._layers_look():
            training = list(filter(attrgetter("training"), self.modules))
            try:
                for module in training:
                    module.training = False
                yield
            finally:
                for module in training:
                    module.training = True

    def _layers_look(self) -> AbstractContextManager[None]:
        event = cancellation.current()
        return nullcontext() if event is None else before_each_layer(self.attentions, lambda: cancellation.check(event))
