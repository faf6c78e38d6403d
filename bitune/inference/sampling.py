"""Settings of an answer as transformers takes them: random draws that all variants share."""

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from bitune.schema.generation import GREEDY_BELOW, GenerationSettings


class SharedGumbelNoise(LogitsProcessor):
    """Adds the same Gumbel noise to every row, new at each step: greedy choice after it is a draw from softmax(scores).

    Rows of one request thus share their luck (the Gumbel-max trick), and a difference in text is a difference in the models.
    The noise is drawn on the CPU in float32, so that a seed means the same on every device. An answer that has `begun` with so many
    tokens goes on with the draw that comes after them.
    """

    def __init__(self, seed: int, begun: int = 0):
        self._generator = torch.Generator().manual_seed(seed)
        self._begun = begun

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        while self._begun:
            torch.rand(scores.shape[-1], generator=self._generator)
            self._begun -= 1
        uniform = torch.rand(scores.shape[-1], generator=self._generator)
        noise = -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float32).tiny)))
        return scores + noise.to(scores.device, scores.dtype)


def sampling(settings: GenerationSettings, begun: int = 0) -> LogitsProcessorList:
    """The processors that turn greedy choice into sampling with shared draws, `begun` of which are over; none where the choice is greedy."""
    if settings.temperature < GREEDY_BELOW:
        return LogitsProcessorList()
    warpers = [TemperatureLogitsWarper(float(settings.temperature))]
    if settings.top_p < 1:
        warpers.append(TopPLogitsWarper(float(settings.top_p)))
    return LogitsProcessorList([*warpers, SharedGumbelNoise(settings.seed, begun)])
