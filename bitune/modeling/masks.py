"""The attention of each row of a prompt batch: padding, sliding windows, causal / bidirectional / anticausal.

Knows the layout of a model's layers; knows no config, no adapter and no cache content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bitune.schema.variants import Attention


@dataclass(frozen=True)
class DecoderLayout:
    """The shape of a decoder, as far as bitune needs to know it.

    Attributes:
        layers: How many have a key/value cache.
        heads: Query heads a layer.
        context: The longest input in tokens, prompt and answer together.
        windows: Layer type -> sliding window in tokens, None for a type that sees everything.
        hidden_size: Width of a layer's input.
        limit: The most tokens that can be run together at all: the end of a table of positions, or the length from which on every
            further token changes all keys (`dynamic` rotary scaling), so that nothing cached stays true. None where there is no such
            length: then a model runs beyond `context` too, for what that is worth.
        rotary_switch: The rotary embedding takes other frequencies in a call of more tokens than this (`longrope`); calls beyond are
            alike again. None where all lengths are alike.
        cache_width: How many numbers a token has in the cache, keys and values of all layers.
        siblings: Paths of linear layers that read the same input, as far as is known: each group's results can be computed together.
    """

    layers: int
    heads: int
    context: int
    windows: Mapping[str, int | None]
    hidden_size: int
    limit: int | None = None
    rotary_switch: int | None = None
    cache_width: int = 0
    siblings: tuple[tuple[str, ...], ...] = ()


def positions(token_mask: Tensor) -> Tensor:
    """Position of each token among the real ones of its row; 0 on padding. `token_mask` [rows, tokens] -> int64, same shape."""
    return (token_mask.long().cumsum(-1) - 1).clamp(min=0)


def visible(attention: Attention, tokens: int, window: int | None, device: torch.device | str | None = None) -> Tensor:
    """Which key each query may see, padding aside: bool [query, key].

    A sliding window keeps its width in every direction: a causal layer with window w sees w - 1 tokens back, so a
    bidirectional one sees w - 1 tokens on either side.
    """
    index = torch.arange(tokens, device=device)
    distance = index[:, None] - index[None, :]
    seen = {
        "causal": distance >= 0,
        "bidirectional": torch.ones_like(distance, dtype=torch.bool),
        "anticausal": distance <= 0,
    }[attention]
    return seen if window is None else seen & (distance.abs() < window)


def pass_masks(
    layout: DecoderLayout, attentions: Sequence[Attention], token_mask: Tensor, implementation: str, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The masks of one batched prompt pass, row r reading with `attentions[r]`; `token_mask` [rows, tokens], 1 on real tokens.

    Returns [rows, 1, query, key]: bool (True = seen) for `sdpa`, added to the scores (0 or the lowest number of `dtype`) for
    `eager`, each the form transformers itself gives that implementation; a dict of them by layer type where layers differ.
    """
    by_type = {kind: _row_masks(attentions, token_mask, window) for kind, window in layout.windows.items()}
    return _as_taken(by_type, implementation, dtype)


def answer_masks(
    layout: DecoderLayout, cached: Tensor, seen: Tensor, implementation: str, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The masks of tokens that come after a cache and see all of it; the form is that of `pass_masks`.

    Args:
        cached: 1 on the real tokens of the cache [rows, cached].
        seen: Which of the tokens each of them may see, bool [rows, query, key]. No window is shorter than everything together.
    """
    mask = torch.cat([cached.bool()[:, None, :].expand(-1, seen.shape[1], -1), seen], dim=-1)[:, None]
    return _as_taken(dict.fromkeys(layout.windows, mask), implementation, dtype)


def masks_after(
    layout: DecoderLayout,
    attentions: Sequence[Attention],
    before: int,
    tokens: int,
    implementation: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor | dict[str, Tensor]:
    """The masks of `tokens` tokens that are read after a cache of `before` ones, without padding; the form is that of `pass_masks`.

    Row r reads its own tokens with `attentions[r]`, and all that came before. A sliding layer sees as far back as when it reads
    causally; the keys of its masks are the tokens that its cache still holds, then those that are read now.
    """
    by_type = {}
    for kind, window in layout.windows.items():
        held = before if window is None else min(before, window - 1)
        seen = torch.stack([visible(attention, held + tokens, window, device)[held:] for attention in attentions])
        seen[:, :, :held] = visible("causal", held + tokens, window, device)[held:, :held]
        by_type[kind] = seen[:, None]
    return _as_taken(by_type, implementation, dtype)


def step_masks(
    layout: DecoderLayout, real: Tensor, place: Tensor, implementation: str, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The masks of one token in a static cache, [rows, 1, 1, capacity]; the form is that of `pass_masks`. Asks the device nothing.

    Args:
        real: Which places hold a token once it was read, bool [rows, capacity].
        place: Where the token itself stands, int64 [1].
    """
    index = torch.arange(real.shape[1], device=real.device)
    by_type = {}
    for kind, window in layout.windows.items():
        seen = real & (index <= place)
        by_type[kind] = (seen if window is None else seen & (index > place - window))[:, None, None]
    return _as_taken(by_type, implementation, dtype)


def _as_taken(by_type: dict[str, Tensor], implementation: str, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Masks by layer type as this attention implementation takes them."""
    if implementation != "sdpa":
        by_type = {kind: additive(mask, dtype) for kind, mask in by_type.items()}
    return by_type if len(by_type) > 1 else next(iter(by_type.values()))


def last_queries(masks: Tensor | dict[str, Tensor], start: int) -> Tensor | dict[str, Tensor]:
    """What `pass_masks` returned, for the queries from token `start` on alone: the keys before it are known."""
    if isinstance(masks, dict):
        return {kind: mask[:, :, start:] for kind, mask in masks.items()}
    return masks[:, :, start:]


def _row_masks(attentions: Sequence[Attention], token_mask: Tensor, window: int | None) -> Tensor:
    tokens, device = token_mask.shape[1], token_mask.device
    patterns = {attention: visible(attention, tokens, window, device) for attention in set(attentions)}
    real = token_mask.bool()
    mask = torch.stack([patterns[attention] for attention in attentions]) & real[:, None, :]
    # A padding token sees itself: a row of nothing but masked keys would be NaN, and nothing reads what it computes.
    itself = torch.eye(tokens, dtype=torch.bool, device=device) & ~real[:, :, None]
    return (mask | itself)[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to scores: 0 where `mask` (bool) is True, the lowest number of `dtype` elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
