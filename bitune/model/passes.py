"""Prompt passes from memory: what a base has read before is not run again, and of a causal pass only what comes after a known beginning.

A pass is determined by its adapter's weights, its attention and the tokens it reads. What was run in another batch differs by rounding.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import Cache

from bitune.adapters.manager import AdapterManager
from bitune.model.prefill import Wanted, captured_size, run_passes
from bitune.modeling.cache import cache_of_rows, row_of
from bitune.modeling.interface import counted_layers
from bitune.modeling.pass_store import PassKey, StoredPass
from bitune.modeling.queries import NotedQueries, noted_queries
from bitune.reading import current

_LEAST_PREFIX = 32  # tokens; running fewer of them takes no longer than the extra forward over the rest


class Recall:
    """Reads passes for one request: `prefill.Read`.

    Attributes:
        known: Which of them were.
        keys: Under which key each is kept, where they can be.
    """

    def __init__(self):
        self.known: set[Wanted] = set()
        self.keys: dict[Wanted, PassKey] = {}

    def __call__(
        self, manager: AdapterManager, ids: Tensor, mask: Tensor, wanted: Sequence[Wanted]
    ) -> tuple[Cache, dict[Wanted, int]]:
        """As `run_passes`, in a turn and without gradients."""
        if not _can_be_kept(manager, ids):
            with _followed(manager, len(wanted) * ids.shape[1]):
                return run_passes(manager, ids, mask, wanted)
        store, keys = manager.passes, _keys(manager, ids, mask, wanted)
        passes = {want: found for want, key in keys.items() if (found := store.get(key)) is not None}
        self.known, self.keys = set(passes), keys
        missing = [want for want in wanted if want not in passes]
        groups = _groups(manager, {want: keys[want] for want in missing})
        left = sum(len(group) * (tokens - prefix if prefix else ids.shape[1]) for (prefix, tokens), group in groups.items())
        whole = None  # a cache and the rows in it, of what is run whole
        with _followed(manager, left):
            for (prefix, tokens), group in groups.items():
                if prefix:
                    passes |= _run_rest(manager, ids, group, prefix, tokens)
                else:
                    run, cache, rows = _run_whole(manager, ids, mask, list(group))
                    passes, whole = passes | run, (cache, rows)
        for want in missing:
            store.put(keys[want], passes[want])
        if whole and whole[1].keys() == set(wanted):
            return whole
        rows = [passes[want].layers for want in wanted]
        return cache_of_rows(manager.model, rows, ids.shape[1]), {want: row for row, want in enumerate(wanted)}


def run_and_keep(manager: AdapterManager, ids: Tensor, mask: Tensor, wanted: Sequence[Wanted]) -> None:
    """Run passes even if they are known, and keep them for who comes next; in a turn and without gradients."""
    passes, *_ = _run_whole(manager, ids, mask, wanted)
    if _can_be_kept(manager, ids):
        for want, key in _keys(manager, ids, mask, wanted).items():
            manager.passes.put(key, passes[want])


def known_with_queries(manager: AdapterManager, ids: Tensor, mask: Tensor, wanted: Sequence[Wanted]) -> list[StoredPass] | None:
    """These passes from memory; None where one is not there, or not its queries."""
    found = [manager.passes.get(key) for key in _keys(manager, ids, mask, wanted).values()]
    return found if all(stored is not None and stored.queries for stored in found) else None


@contextmanager
def _followed(manager: AdapterManager, tokens: int) -> Iterator[None]:
    """While so many tokens go through passes, whoever follows the request knows how many are left."""
    reading = current()
    if reading is None:
        yield
        return
    with counted_layers(manager.attentions, reading.add) as layers:
        reading.expect(tokens * layers)
        yield


def _can_be_kept(manager: AdapterManager, ids: Tensor) -> bool:
    """Whether no sliding layer has forgotten a token of these prompts, which another batch may need."""
    return all(window is None or window > ids.shape[1] for window in manager.layout.windows.values())


def _keys(manager: AdapterManager, ids: Tensor, mask: Tensor, wanted: Sequence[Wanted]) -> dict[Wanted, PassKey]:
    states = manager.states({prompt_pass.adapter for prompt_pass, _ in wanted})
    tokens = {prompt: tuple(ids[prompt][mask[prompt].bool()].tolist()) for prompt in {prompt for _, prompt in wanted}}
    return {(one, prompt): PassKey(one, states[one.adapter], tokens[prompt]) for one, prompt in wanted}


def _stored(cache: Cache, row: int, mask: Tensor, noted: NotedQueries | None = None) -> StoredPass:
    start = int((mask == 0).sum())
    return StoredPass(row_of(cache, row, start), noted and noted.of_row(cache, row, start))


def _groups(manager: AdapterManager, keys: dict[Wanted, PassKey]) -> dict[tuple[int, int], dict[Wanted, StoredPass | None]]:
    """{(tokens whose keys are known, tokens altogether): {pass: what begins alike}}; (0, 0) for all that are run whole."""
    groups = defaultdict(dict)
    for want, key in keys.items():
        begun, prefix = _beginning(manager, key)
        groups[(prefix, len(key.ids)) if prefix else (0, 0)][want] = begun
    return groups


def _beginning(manager: AdapterManager, key: PassKey) -> tuple[StoredPass | None, int]:
    """A known pass that begins as this causal one does, and how many first tokens need not be run for it."""
    if key.prompt_pass.attention != "causal" or manager.layout.rotary_switch is not None:
        return None, 0  # beyond the switch, known keys of a shorter call are others
    begun, shared = manager.passes.longest_prefix(key, _LEAST_PREFIX)
    return begun, min(shared, max(len(key.ids) - 1, 0))


def _run_whole(
    manager: AdapterManager, ids: Tensor, mask: Tensor, group: Sequence[Wanted]
) -> tuple[dict[Wanted, StoredPass], Cache, dict[Wanted, int]]:
    """A copy of each to be kept, then what `run_passes` returned.

    With their queries where these leave room for others: those of a long prompt are larger than its keys and values.
    """
    layout, model = manager.layout, manager.model
    size = len(group) * ids.shape[1] * layout.layers * layout.hidden_size * model.dtype.itemsize
    # A captured forward shows nobody its queries.
    notes = 2 * size <= manager.passes.limit and captured_size(manager, ids, group) is None
    with noted_queries(model) if notes else nullcontext() as noted:
        cache, rows = run_passes(manager, ids, mask, group)
    return {want: _stored(cache, rows[want], mask[want[1]], noted) for want in group}, cache, rows


def _run_rest(
    manager: AdapterManager, ids: Tensor, group: dict[Wanted, StoredPass], prefix: int, tokens: int
) -> dict[Wanted, StoredPass]:
    """Run what comes after the first `prefix` of `tokens` tokens, which have no padding: these end where `ids` do."""
    known = [[(keys[:, :prefix], values[:, :prefix]) for keys, values in begun.layers] for begun in group.values()]
    own_ids = ids[:, ids.shape[1] - tokens :]
    mask = torch.ones_like(own_ids)
    cache, rows = run_passes(manager, own_ids, mask, list(group), cache_of_rows(manager.model, known, prefix))
    return {want: _stored(cache, rows[want], mask[want[1]]) for want in group}
