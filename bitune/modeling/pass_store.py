"""Prompt passes that were run, and what the last prompt token came to: kept on the device for the next request that wants the same."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from bitune.modeling.queries import LayerQueries, nbytes_of


@dataclass(frozen=True)
class PassKey:
    """What determines a pass on one base: the pass, the state of the weights of base and adapter, and the tokens that were read.

    In the place of the pass (a PromptPass) may stand whatever else says how the tokens were read, see model.conversation.
    """

    prompt_pass: Hashable
    weights: Hashable
    ids: tuple[int, ...]

    @cached_property
    def _hash(self) -> int:
        return hash((self.prompt_pass, self.weights, self.ids))

    def __hash__(self) -> int:  # of thousands of tokens, asked several times a request
        return self._hash


@dataclass(frozen=True)
class StoredPass:
    """Keys and values of one pass over n tokens, [heads, n, head dim] for each layer, and its queries where they are kept too."""

    layers: Sequence[tuple[Tensor, Tensor]]
    queries: Sequence[LayerQueries] | None = None

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for layer in self.layers for part in layer) + nbytes_of(self.queries or ())


@dataclass(frozen=True)
class FirstTokenKey:
    """What determines what the last prompt token comes to on one base.

    Attributes:
        passes: That read the other tokens, in the order of the mixing.
        ratios: How they are mixed, keys before values; None where there is one.
        adapter, weights: That reads the last token, and the state of its weights and the base's.
        token: The last one.
    """

    passes: tuple[PassKey, ...]
    ratios: tuple[float, ...] | None
    adapter: str | None
    weights: tuple[int, int]
    token: int


@dataclass(frozen=True)
class StoredFirstToken:
    """Scores of the first new token [vocabulary], and keys and values of the last prompt token, [heads, 1, head dim] for each layer."""

    layers: Sequence[tuple[Tensor, Tensor]]
    scores: Tensor

    @property
    def nbytes(self) -> int:
        return self.scores.nbytes + sum(part.nbytes for layer in self.layers for part in layer)


Key = PassKey | FirstTokenKey
Stored = StoredPass | StoredFirstToken


class PassStore:
    """The passes of one base that were used last, and what came of them. Its user owns the base meanwhile, see adapters.turns.

    Args:
        limit: The most bytes that are kept; what was used longest ago goes first. May be changed at any time.

    Attributes:
        nbytes: How many are kept now.
    """

    def __init__(self, limit: int):
        self.nbytes = 0
        self._limit = limit
        self._passes: OrderedDict[Key, Stored] = OrderedDict()
        self._with_queries: OrderedDict[Key, None] = OrderedDict()  # those of them, likewise

    def __len__(self) -> int:
        return len(self._passes)

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value
        self._shrink()

    def get(self, key: Key) -> Stored | None:
        """What is kept under this key, if it is still there."""
        if key in self._passes:
            self._passes.move_to_end(key)
        if key in self._with_queries:
            self._with_queries.move_to_end(key)
        return self._passes.get(key)

    def put(self, key: Key, stored: Stored) -> None:
        """Keep it, unless it is larger than everything that may be kept. Queries that come later are put to what is there."""
        if stored.nbytes > self._limit:
            stored = _without_queries(stored)
        if stored.nbytes > self._limit or (key in self._passes and _without_queries(stored) is stored):
            return
        self._replace(key, stored)
        self._shrink()

    def longest_prefix(self, key: PassKey, least: int) -> tuple[StoredPass | None, int]:
        """The pass of the same adapter and attention that agrees with most tokens of `key` from the first one on, and with how many.

        Args:
            least: Fewer tokens are none.
        """
        best, length = None, least - 1
        for other in self._passes:
            if isinstance(other, PassKey) and (other.prompt_pass, other.weights) == (key.prompt_pass, key.weights):
                shared = _shared(other.ids, key.ids)
                if shared > length:
                    best, length = other, shared
        return (None, 0) if best is None else (self.get(best), length)

    def clear(self) -> None:
        """Forget all."""
        self._passes.clear()
        self._with_queries.clear()
        self.nbytes = 0

    def _replace(self, key: Key, stored: Stored) -> None:
        known = self._passes.get(key)
        self.nbytes += stored.nbytes - (known.nbytes if known else 0)
        self._passes[key] = stored
        if isinstance(stored, StoredPass) and stored.queries:
            self._with_queries[key] = None
        else:
            self._with_queries.pop(key, None)

    def _shrink(self) -> None:
        """Queries go first: without them maps take longer, without a pass every request does."""
        while self.nbytes > self._limit and self._with_queries:
            key = next(iter(self._with_queries))
            self._replace(key, _without_queries(self._passes[key]))
        while self.nbytes > self._limit:
            _, oldest = self._passes.popitem(last=False)
            self.nbytes -= oldest.nbytes


def _without_queries(stored: Stored) -> Stored:
    """The same where it has none."""
    return replace(stored, queries=None) if isinstance(stored, StoredPass) and stored.queries else stored


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens are the same from the first one on."""
    return next(
        (index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
