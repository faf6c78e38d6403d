"""A few tokens through a model in every way that bitune uses it: what comes out must be what the model gives by itself.

The calls are those of bitune.model: passes over all but the last prompt token under masks of ours, then the last one and an answer on the
cache, alone and in a batch padded on the left (prompts) and on the right (answers).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from bitune.modeling.interface import attention_implementation, cache_input, input_device, position_input, vocabulary_size
from bitune.modeling.masks import DecoderLayout, pass_masks
from bitune.schema.variants import Attention

PROMPT = 5
SHORTER = 2
"""The second prompt lacks so many tokens of the first."""
ANSWER = 2
PROBED_WINDOW = 64  # up to here a prompt longer than the window costs next to nothing
BOTH: tuple[Attention, Attention] = ("causal", "bidirectional")


@dataclass(frozen=True)
class Read:
    """What rows of prompts came to.

    Attributes:
        stored: Keys and values of every layer, [rows, heads, tokens, head dim] each.
        first: What the decoder makes of the first token of each row [rows, hidden].
        answered: Logits of the last prompt token and the answer, read at once [rows, 1 + ANSWER, vocabulary].
    """

    stored: list[Tensor]
    first: Tensor
    answered: Tensor


class Probe:
    """Prompts and answers of a few tokens, and forwards over them; `model` is in eval mode."""

    def __init__(self, model: PreTrainedModel, layout: DecoderLayout):
        self.model, self.layout = model, layout
        small = [window for window in layout.windows.values() if window and window <= PROBED_WINDOW]
        self.tokens = max([PROMPT, *(window + 2 for window in small)])
        device = input_device(model)
        count = self.tokens + ANSWER
        self.text = (torch.arange(count, device=device) * 7 + 3)[None] % vocabulary_size(model)
        self.ones = torch.ones(1, count, dtype=torch.long, device=device)

    def by_itself(self) -> tuple[list[Tensor], Tensor]:
        """The model's own reading, without a mask: keys and values of the prompt but for its last token, as in `Read`; and the logits of
        the whole text [1, tokens, vocabulary]."""
        caches = [DynamicCache(config=self.model.config) for _ in range(2)]  # some families refuse to make one by themselves
        self.model(input_ids=self.text[:, : self.tokens - 1], use_cache=True, **cache_input(caches[0]))
        return _content(caches[0]), self.model(input_ids=self.text, use_cache=True, **cache_input(caches[1])).logits

    def alone(self, cut: int) -> Read:
        """The prompt without its first `cut` tokens, read both ways, with no padding anywhere."""
        text = self.text[:, cut:].expand(2, -1)
        return self._read(text, torch.ones_like(text), BOTH)[0]

    def in_a_batch(self) -> tuple[Read, Tensor]:
        """The whole prompt and a shorter one, both read both ways, in one batch of four rows; the shorter prompts have no answer.

        Also returns the logits of the whole prompts where the answer is read token by token, [4, 1 + ANSWER, vocabulary].
        """
        text, real = self.text.repeat(4, 1), self.ones.repeat(4, 1)
        text[2:, :SHORTER] = real[2:, :SHORTER] = 0
        text[2:, self.tokens :] = real[2:, self.tokens :] = 0
        read, cache, by_token = *self._read(text, real, BOTH * 2), []
        real[2:, self.tokens :] = 1  # a row that has ended goes on with padding, seen as tokens, until the last one ends
        for end in range(self.tokens, self.tokens + 1 + ANSWER):
            by_token.append(self._answer(text[:, end - 1 : end], real[:, :end], cache))
        return read, torch.cat(by_token, dim=1)

    def _read(self, text: Tensor, real: Tensor, attentions: tuple[Attention, ...]) -> tuple[Read, Cache]:
        """Also returns a cache of the prompts' first tokens, to go on from."""
        prompt = text.shape[1] - ANSWER
        ids, mask = text[:, : prompt - 1], real[:, : prompt - 1]
        masks = pass_masks(self.layout, attentions, mask, attention_implementation(self.model), self.model.dtype)
        cache = DynamicCache(config=self.model.config)
        placed = position_input(self.model, mask, ids.shape[1])
        output = self.model.base_model(input_ids=ids, attention_mask=masks, use_cache=True, **cache_input(cache), **placed)
        stored, kept = _content(cache), copy.deepcopy(cache)
        return Read(stored, output.last_hidden_state[:, 0], self._answer(text[:, prompt - 1 :], real, cache)), kept

    def _answer(self, ids: Tensor, real: Tensor, cache: Cache) -> Tensor:
        placed = position_input(self.model, real, ids.shape[1])
        return self.model(input_ids=ids, attention_mask=real, use_cache=True, **cache_input(cache), **placed).logits


def _content(cache: Cache) -> list[Tensor]:
    """Of the layers that were written; some families never write into the cache that they are given."""
    filled = [layer for layer in cache.layers if layer.is_initialized]
    return [part.clone() for layer in filled for part in (layer.keys, layer.values)]
