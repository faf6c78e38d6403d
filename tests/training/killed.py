"""A training that is killed on its way, as by a power cut."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bitune import BituneModel
from bitune.data.batches import TokenPair
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import BituneTrainer, train


class Killed(Exception):
    """In place of the signal."""


def train_until_killed(
    model: BituneModel, pairs: Sequence[TokenPair], settings: TrainingSettings, output: Path, validation: Sequence[TokenPair] = ()
) -> None:
    """As `train`, ended right after the fifth update was logged."""

    def die_at_5(self, logs, start_time=None, log=BituneTrainer.log):
        log(self, logs, start_time)
        if self.state.global_step == 5:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(BituneTrainer, "log", die_at_5)
        train(model, pairs, settings, output, validation)
