"""Prompt passes as rows of one batch -> the cache that the answer starts from.

The first P - 1 prompt tokens go through the passes; the last one belongs to the answer. A pass that several rows ask for is
run once. Source: Bitune (arXiv 2405.14862), section 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from bitune.adapters.manager import AdapterManager
from bitune.model.mixing import mix_rows
from bitune.modeling.cache import join_rows, take_rows
from bitune.modeling.interface import attention_implementation, cache_input, position_input
from bitune.modeling.masks import last_queries, pass_masks
from bitune.modeling.prompt_forward import PromptForward, size_for
from bitune.schema.variants import CAUSAL, PromptPass, Variant

_LONG = 256  # tokens; a forward more takes no longer than the attention that is spared from here on


@dataclass(frozen=True)
class Row:
    """What one row of a prompt cache holds, and what answers from it.

    Attributes:
        prompt: Which of the prompts is read.
        passes: One or two.
        alpha_k, alpha_v: How much of the second pass is taken, float32 [layers] each; None with one pass.
        answer_adapter: Runs on the last prompt token and on the answer; None is the base alone.
    """

    prompt: int
    passes: tuple[PromptPass, ...]
    alpha_k: Tensor | None = None
    alpha_v: Tensor | None = None
    answer_adapter: str | None = None

    @classmethod
    def of(cls, variant: Variant, prompt: int) -> "Row":
        """The row of a variant whose ratios are plain numbers."""
        ratios = (None, None) if variant.mixing is None else map(torch.tensor, (variant.mixing.keys, variant.mixing.values))
        return cls(prompt, variant.passes, *ratios, variant.answer_adapter)


Wanted = tuple[PromptPass, int]
"""A pass and the index of the prompt that it reads."""
Read = Callable[[AdapterManager, Tensor, Tensor, Sequence[Wanted]], tuple[Cache, dict[Wanted, int]]]
"""How passes come about: `run_passes`, or a `passes.Recall`, which runs only what was not run before."""


def prefill(
    manager: AdapterManager, prompt_ids: Tensor, prompt_mask: Tensor, rows: Sequence[Row], read: Read | None = None
) -> Cache:
    """A cache of `len(rows)` rows and P - 1 tokens. `prompt_ids`, `prompt_mask` [prompts, P], left-padded; `read` is `run_passes` if None.

    With one-token prompts the cache is empty: there is nothing to read twice.
    """
    # Padding is read by nobody, so it may hold an id that is no token of the base.
    ids, mask = prompt_ids.masked_fill(prompt_mask == 0, 0)[:, :-1], prompt_mask[:, :-1]
    if ids.shape[1] == 0:
        return DynamicCache(config=manager.model.config)
    wanted = list(dict.fromkeys((one, row.prompt) for row in rows for one in row.passes))
    cache, cache_rows = (read or run_passes)(manager, ids, mask, wanted)
    first = torch.tensor([cache_rows[row.passes[0], row.prompt] for row in rows])
    second = torch.tensor([cache_rows[row.passes[-1], row.prompt] for row in rows])
    alpha_k = _stack([row.alpha_k for row in rows], len(cache.layers))
    alpha_v = _stack([row.alpha_v for row in rows], len(cache.layers))
    return mix_rows(cache, first, second, alpha_k, alpha_v)


def run_passes(
    manager: AdapterManager, ids: Tensor, mask: Tensor, wanted: Sequence[Wanted], known: Cache | None = None
) -> tuple[Cache, dict[Wanted, int]]:
    """Run each (pass, prompt row) once over all tokens of `ids` [prompts, tokens]; returns the cache and each pair's row in it.

    `known`: keys and values of the first tokens of each of `wanted`, where these need not be run.
    """
    if known is None and (captured := _run_captured(manager, ids, mask, wanted)) is not None:
        return captured
    caches, order = [], []
    for group in _forwards(manager, mask, wanted, known):
        batches = manager.run([wanted[i][0].adapter for i in group], partial(_run, manager, ids, mask, wanted, known, group))
        caches += [cache for _, cache in batches]
        order += [group[i] for batch, _ in batches for i in batch]
    return join_rows(caches), {wanted[index]: row for row, index in enumerate(order)}


def captured_size(manager: AdapterManager, ids: Tensor, wanted: Sequence[Wanted]) -> int | None:
    """Over how many tokens these passes run as one captured forward, as far as is known before; None where they run as they are."""
    has_window = any(window is not None for window in manager.layout.windows.values())
    if not manager.captures or has_window or attention_implementation(manager.model) != "sdpa":
        return None
    return size_for(len(wanted), ids.shape[1]) if len(manager.batches([one.adapter for one, _ in wanted])) == 1 else None


def _run_captured(
    manager: AdapterManager, ids: Tensor, mask: Tensor, wanted: Sequence[Wanted]
) -> tuple[Cache, dict[Wanted, int]] | None:
    """As `run_passes`, in a captured forward; None where there is none."""
    if (tokens := captured_size(manager, ids, wanted)) is None:
        return None

    def run(batch: Sequence[int]) -> Cache | None:
        if (kind := manager.captured_kind()) is None:
            return None
        known_by, computes_with = kind
        attentions = tuple(wanted[i][0].attention for i in batch)
        make = partial(PromptForward, manager.model, manager.layout, attentions, tokens, computes_with)
        found = manager.captured.take((PromptForward, known_by, attentions, tokens), manager, make, waits=False)
        if found is None:
            return None
        manager.captured.give_back(found)  # nobody else runs this base before this call is over
        prompts = [wanted[i][1] for i in batch]
        return found.run(ids[prompts], mask[prompts])

    ((order, cache),) = manager.run([one.adapter for one, _ in wanted], run)
    return None if cache is None else (cache, {wanted[index]: row for row, index in enumerate(order)})


def _forwards(manager: AdapterManager, mask: Tensor, wanted: Sequence[Wanted], known: Cache | None) -> list[list[int]]:
    """Which of `wanted` share a forward as far as their attention goes: all of them, but for long causal passes without padding.

    Those run under the model's own mask, which is none: sdpa's kernel leaves out the half that no token sees.
    """
    own = [i for i, one in enumerate(wanted) if known is None and _has_own_mask(manager, mask, one)]
    others = [i for i in range(len(wanted)) if i not in own]
    return [group for group in (own, others) if group]


def _has_own_mask(manager: AdapterManager, mask: Tensor, wanted: Wanted) -> bool:
    attention, row = wanted[0].attention, mask[wanted[1]]
    is_long = len(row) >= _LONG and attention_implementation(manager.model) == "sdpa"
    return is_long and attention == CAUSAL and bool(row.all())


def _run(
    manager: AdapterManager,
    ids: Tensor,
    mask: Tensor,
    wanted: Sequence[Wanted],
    known: Cache | None,
    group: Sequence[int],
    batch: Sequence[int],
) -> Cache:
    """One forward over the passes `group[i]` of `wanted`, i in `batch`, which have the adapters that are active."""
    model, layout, chosen = manager.model, manager.layout, [group[i] for i in batch]
    prompts, start = [wanted[i][1] for i in chosen], 0 if known is None else known.get_seq_length()
    row_mask = mask[prompts]
    if known is None and _has_own_mask(manager, mask, wanted[chosen[0]]):
        masks = row_mask
    else:
        attentions = [wanted[i][0].attention for i in chosen]
        masks = last_queries(pass_masks(layout, attentions, row_mask, attention_implementation(model), model.dtype), start)
    cache = DynamicCache(config=model.config) if known is None else take_rows(known, torch.tensor(chosen))
    # Without the head: nobody reads the logits of a prompt pass.
    model.base_model(
        input_ids=ids[prompts][:, start:],
        attention_mask=masks,
        use_cache=True,
        **cache_input(cache),
        **position_input(model, row_mask, row_mask.shape[1] - start),
    )
    return cache


def _stack(alphas: Sequence[Tensor | None], layers: int) -> Tensor:
    """alpha [layers, rows]; 0, that is the first pass alone, for rows with one pass."""
    device = next((alpha.device for alpha in alphas if alpha is not None), None)
    zero = torch.zeros(layers, device=device)
    return torch.stack([zero if alpha is None else alpha for alpha in alphas], dim=1)
