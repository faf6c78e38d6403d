"""Bitune without bitune, in float64: PEFT's model reads a prompt twice, its caches are mixed number by number, and it answers."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from bitune.schema.variants import MixingRatios
from tests.families.comparisons import hand_made_masks, onto
from tests.families.subjects import Subject


class ByHand:
    """The readings of one prompt, and answers on mixes of them.

    Attributes:
        model: A copy of the subject's model under PEFT, in float64; the causal adapter, which answers, is active.
    """

    @torch.no_grad()
    def __init__(self, subject: Subject, prompt: Sequence[int]):
        self._subject, self.model = subject, copy.deepcopy(subject.peft).double()
        self._prompt = torch.tensor([prompt])
        prefix = self._prompt[:, :-1]
        self._readings = []
        for reading in ("causal", "bidirectional"):
            self.model.set_adapter(reading)
            self._readings.append(DynamicCache(config=subject.plain.config))
            masks = hand_made_masks(subject, prefix.shape[1], reading)
            masks = {kind: mask.double() for kind, mask in masks.items()} if isinstance(masks, dict) else masks.double()
            self.model(input_ids=prefix, attention_mask=masks, **onto(subject, self._readings[-1], 0, prefix.shape[1]))
        self.model.set_adapter("causal")

    def cache(self, ratios: MixingRatios, undone: int | None = None) -> DynamicCache:
        """Both readings mixed; of the token `undone` the first one."""
        mixed = copy.deepcopy(self._readings[0])
        tokens = self._prompt.shape[1] - 1
        for index, layer in enumerate(mixed.layers):
            second = self._readings[1].layers[index]
            for kind, alpha in (("keys", ratios.keys[index]), ("values", ratios.values[index])):
                own, other = getattr(layer, kind), getattr(second, kind)
                for place in range(own.shape[-2]):
                    if place + tokens - own.shape[-2] != undone:
                        own[:, :, place] = (1 - alpha) * own[:, :, place] + alpha * other[:, :, place]
        return mixed

    @torch.no_grad()
    def logits(self, cache: DynamicCache, answer: Sequence[int], model: nn.Module | None = None) -> Tensor:
        """[1 + A, vocabulary]: what the last prompt token and each of the A tokens of an answer predict on a copy of this cache."""
        inputs = torch.cat([self._prompt[:, -1:], torch.tensor([list(answer)], dtype=torch.long)], 1)
        placed = onto(self._subject, copy.deepcopy(cache), self._prompt.shape[1] - 1, inputs.shape[1])
        return (model or self.model)(input_ids=inputs, **placed).logits[0]

    def log_probability(self, cache: DynamicCache, answer: Sequence[int]) -> float:
        """Of an answer on this cache."""
        said = self.logits(cache, answer[:-1]).log_softmax(-1)
        return float(said[range(len(answer)), list(answer)].sum())
