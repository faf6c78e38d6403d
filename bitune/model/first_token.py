"""What the last prompt token comes to, from memory: the scores of the first new token, and the last token's own keys and values.

It is determined by the passes, their mixing, the adapter that answers and the token. So a prompt that is answered again, by another draw
say, needs no forward before its first new token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache

from bitune.adapters.manager import AdapterManager
from bitune.model.prefill import Row
from bitune.modeling.cache import row_of
from bitune.modeling.pass_store import FirstTokenKey, PassKey, StoredFirstToken


def first_token_keys(
    manager: AdapterManager, rows: Sequence[Row], passes: Sequence[Sequence[PassKey] | None], tokens: Sequence[int]
) -> list[FirstTokenKey | None]:
    """The key of each row as it would run now, in a turn; None where the passes were not kept, or are of other weights than now.

    Args:
        passes: Under which keys the passes of each row are kept.
        tokens: The last prompt token of each row.
    """
    if manager.layout.rotary_switch is not None:  # beyond the switch, keys are others in a batch with a longer prompt
        return [None] * len(rows)
    states = manager.states({name for row in rows for name in (row.answer_adapter, *(one.adapter for one in row.passes))})
    keys = []
    for row, kept, token in zip(rows, passes, tokens, strict=True):
        if kept is None or any(key.weights != states[key.prompt_pass.adapter] for key in kept):
            keys.append(None)
        else:
            ratios = None if row.alpha_k is None else (*row.alpha_k.tolist(), *row.alpha_v.tolist())
            keys.append(FirstTokenKey(tuple(kept), ratios, row.answer_adapter, states[row.answer_adapter], token))
    return keys


def recall_first_tokens(manager: AdapterManager, keys: Sequence[FirstTokenKey | None], cache: Cache) -> Tensor | None:
    """Scores of the first new token [rows, vocabulary], if they are known for all rows; `cache` then holds the last prompt token too."""
    found = [manager.passes.get(key) for key in keys if key is not None]
    if len(found) < len(keys) or None in found:
        return None
    for index in range(len(found[0].layers)):
        keys_and_values = (torch.stack([stored.layers[index][part] for stored in found]) for part in (0, 1))
        cache.update(*keys_and_values, index)
    return torch.stack([stored.scores for stored in found])


def keep_first_tokens(manager: AdapterManager, keys: Sequence[FirstTokenKey | None], cache: Cache, scores: Tensor) -> None:
    """Keep what the last prompt token came to: `cache` ends with it."""
    for row, key in enumerate(keys):
        if key is not None:
            manager.passes.put(key, StoredFirstToken(row_of(cache, row, -1), scores[row].clone()))
