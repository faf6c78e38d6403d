"""A prompt pass of some rows over a fixed number of tokens, so that it can be captured: shorter prompts are padded on the left."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from bitune.modeling.cache import copies, with_layers
from bitune.modeling.captured import Captured
from bitune.modeling.interface import attention_implementation, cache_input, position_input
from bitune.modeling.masks import DecoderLayout, pass_masks
from bitune.schema.variants import Attention

_SIZES = (64, 128, 256, 512, 1024)  # beyond, a forward takes so long that Python has asked for all kernels meanwhile
_MOST = 4096  # tokens of all rows together, for the same reason
_ON_THE_WAY = (
    16  # about so many times the hidden states are what a layer computes on the way, four or so of them in the feed-forward part
)


def size_for(rows: int, tokens: int) -> int | None:
    """Over how many tokens a pass of `tokens` tokens runs; None where there is nothing to be won."""
    return next((size for size in _SIZES if tokens <= size and rows * size <= _MOST), None)


class PromptForward(Captured):
    """The keys and values of a prompt pass, each row with an attention of its own.

    Args:
        model: In eval mode, without gradients, with the rows' adapters active whenever it runs; no layer has a window.
        layout: The model's.
        attentions: Of each row.
        tokens: The most that a row has.
        kept: As of a `DecodeStep`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: DecoderLayout,
        attentions: Sequence[Attention],
        tokens: int,
        kept: object = None,
    ):
        numbers = layout.cache_width + _ON_THE_WAY * layout.hidden_size
        super().__init__(numbers * model.dtype.itemsize * len(attentions) * tokens)
        self._model, self._layout, self._attentions, self._kept = model, layout, attentions, kept
        self._implementation = attention_implementation(model)
        self.device, self._tokens = model.device, tokens

    def prepare(self) -> None:
        size = (len(self._attentions), self._tokens)
        self._ids = torch.zeros(size, dtype=torch.int64, device=self.device)
        self._real = torch.ones_like(self._ids)

    def forward(self) -> Cache:
        masks = pass_masks(self._layout, self._attentions, self._real, self._implementation, self._model.dtype)
        cache, placed = DynamicCache(config=self._model.config), position_input(self._model, self._real, self._tokens)
        self._model.base_model(input_ids=self._ids, attention_mask=masks, use_cache=True, **cache_input(cache), **placed)
        return cache

    def run(self, ids: Tensor, mask: Tensor) -> Cache:
        """A cache of its own of prompts `ids`, `mask` [rows, tokens], padded on the left."""
        start = self._tokens - ids.shape[1]
        for whole, part in ((self._ids, ids), (self._real, mask)):
            whole[:, :start] = 0
            whole[:, start:] = part
        found = self.repeat()
        keys, values = (copies([getattr(layer, part)[:, :, start:] for layer in found.layers]) for part in ("keys", "values"))
        return with_layers(found, lambda index, _: (keys[index], values[index]))
