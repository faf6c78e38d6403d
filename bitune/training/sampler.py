"""The order of the training examples: batches of like lengths, shuffled, the same for all processes and for a resumed run."""

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochSampler(LengthGroupedSampler):
    """Indices of examples in batches of like lengths, in an order that depends on seed and epoch alone.

    Padding is computed too, and questions differ fourfold in length, so examples of like lengths go together. The parent walks from
    long to short within every fifty batches, which shows as a wave in the loss: here its batches are shuffled.

    Args:
        batch_size: examples of one update over all processes.
        lengths: tokens of every example.
        seed: the same one gives the same order.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)  # what the parent draws with
        indices = list(super().__iter__())
        batches = [indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size)]
        # A short last batch stays last: in front of others it would shift them all.
        whole = len(indices) // self.batch_size
        order = [*torch.randperm(whole, generator=self.generator).tolist(), *range(whole, len(batches))]
        return iter([index for number in order for index in batches[number]])
