"""A decode step with a static cache: of a fixed capacity, with the place of the next token in a tensor, so that it can be captured."""

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from bitune.modeling.cache import with_layers
from bitune.modeling.captured import Captured
from bitune.modeling.interface import attention_implementation, cache_input
from bitune.modeling.masks import DecoderLayout, step_masks

_CAPACITY = 256  # tokens: capacities are multiples of it, so that prompts of many lengths share a step


def capacity_for(tokens: int) -> int:
    """The capacity of a step that goes on from so many tokens."""
    return (tokens // _CAPACITY + 1) * _CAPACITY


class _StaticLayer(DynamicLayer):
    """Keys and values [rows, heads, capacity, head dim]; a token is written at `place`, int64 [1]."""

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor):
        super().__init__()
        self.keys, self.values, self.place, self.is_initialized = keys, values, place, True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.place, key_states)
        self.values.index_copy_(2, self.place, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """A model that computes with it cannot be captured: the number changes from step to step."""
        raise RuntimeError("a static layer does not know how many of its tokens were read")


class DecodeStep(Captured):
    """One token each for some rows, again and again.

    Args:
        model: In eval mode, without gradients, with the rows' adapters active whenever the step runs.
        layout: The model's.
        cache: Keys and values of as many rows; the step gets tensors of its own, of these sizes.
        capacity: The most tokens of a row, prompt and answer together.
        kept: Whatever the forward uses and nobody else may hold for as long.

    Attributes:
        tokens: How many were read.
    """

    def __init__(self, model: PreTrainedModel, layout: DecoderLayout, cache: Cache, capacity: int, kept: object = None):
        parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        self._sizes = [torch.Size([*part.shape[:2], capacity, part.shape[-1]]) for part in parts]
        self._like = parts[0].new_empty(len(parts[0]), 0)
        super().__init__(sum(size.numel() for size in self._sizes) * self._like.element_size())
        self._model, self._layout, self._kept = model, layout, kept
        self._implementation = attention_implementation(model)
        self.device, self.capacity, self.tokens = self._like.device, capacity, 0

    def prepare(self) -> None:
        rows, like = self._like.shape[0], self._like
        self._input = like.new_zeros(rows, 1, dtype=torch.int64)
        self._positions, self._place = torch.zeros_like(self._input), like.new_zeros(1, dtype=torch.int64)
        self._real = like.new_ones(rows, self.capacity, dtype=torch.bool)
        self._content = like.new_zeros(sum(size.numel() for size in self._sizes))
        parts = self._content.split([size.numel() for size in self._sizes])
        parts = [part.view(size) for part, size in zip(parts, self._sizes, strict=True)]
        self._cache = DynamicCache(config=self._model.config)
        self._cache.layers = [_StaticLayer(*pair, self._place) for pair in zip(parts[::2], parts[1::2], strict=True)]

    def forward(self) -> Tensor:
        masks = step_masks(self._layout, self._real, self._place, self._implementation, self._model.dtype)
        output = self._model(
            input_ids=self._input, attention_mask=masks, position_ids=self._positions, use_cache=True, **cache_input(self._cache)
        )
        self._place += 1
        self._positions += 1
        return output.logits[:, -1].to(torch.float32)

    def load(self, cache: Cache, mask: Tensor) -> None:
        """Go on from a prompt: its cache, and which of its tokens are real [rows, tokens], with the one that is run next."""
        self.tokens = mask.shape[1] - 1
        self._content.zero_()  # what is left there is read by nobody, but a NaN of another request would come through a weight of 0
        for layer, given in zip(self._cache.layers, cache.layers, strict=True):
            start = self.tokens - given.keys.shape[-2]  # a layer with a window has forgotten what came before
            layer.keys[:, :, start : self.tokens] = given.keys
            layer.values[:, :, start : self.tokens] = given.values
        self._place.fill_(self.tokens)
        self._positions.copy_(mask.sum(-1, keepdim=True) - 1)
        self._real.fill_(True)
        self._real[:, : self.tokens] = mask[:, :-1].bool()

    def run(self, tokens: Tensor) -> Tensor:
        """Read a token of each row, int64 [rows, 1]; returns scores of the next one, float32 [rows, vocabulary]."""
        self._input.copy_(tokens)
        scores = self.repeat().clone()
        self.tokens += 1
        return scores

    def content(self) -> Cache:
        """What was read, without a copy: only as long as the step is not run again."""
        end = self.tokens
        return with_layers(self._cache, lambda _, layer: (layer.keys[:, :, :end], layer.values[:, :, :end]))

    def dynamic_cache(self) -> Cache:
        """A cache as transformers makes it, of what was read."""
        cache = DynamicCache(config=self._model.config)
        for index, layer in enumerate(self.content().layers):
            cache.update(layer.keys.clone(), layer.values.clone(), index)
        return cache
