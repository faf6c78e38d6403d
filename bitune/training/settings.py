"""How to train, as plain values under the names of transformers' TrainingArguments. Imports no torch: the command line shows it."""

import math
from dataclasses import dataclass, field, fields

from bitune.errors import ConfigError

LR_SCHEDULER_TYPES = ("linear", "cosine", "constant", "constant_with_warmup")


def _setting(default, text: str, *, minimum: float | None = None, above_zero: bool = False):
    """A field with the text that --help shows; `minimum` and `above_zero` are what `TrainingSettings` accepts."""
    return field(default=default, metadata={"help": text, "minimum": minimum, "above_zero": above_zero})


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults are the paper's (arXiv 2405.14862, section 4) where it states one.

    Each field says in `metadata["help"]` what it is. `learning_rate` 1e-3 goes with LoRA alpha = 2 x rank.

    Raises:
        ConfigError: a value that cannot be trained with.
    """

    num_train_epochs: float = _setting(1.0, "passes over the data")
    max_steps: int = _setting(-1, "updates; overrides --num-train-epochs if above 0")
    per_device_train_batch_size: int = _setting(8, "examples that one process puts through at a time", above_zero=True)
    gradient_accumulation_steps: int = _setting(1, "batches of each process that make one update", above_zero=True)
    learning_rate: float = _setting(1e-3, "of the adapters, at the end of the warm-up", above_zero=True)
    mixing_learning_rate: float | None = _setting(
        None, "of the mixing coefficients theta; that of --learning-rate if not given", minimum=0
    )
    warmup_ratio: float = _setting(0.1, "share of all updates over which the rate rises")
    lr_scheduler_type: str = _setting("linear", "course of the rate after the warm-up")
    weight_decay: float = _setting(0.0, "of the adapters", minimum=0)
    max_grad_norm: float = _setting(1.0, "longer gradients are scaled down to this norm; 0 leaves them", minimum=0)
    bf16: bool = _setting(False, "bfloat16 base and autocast; adapters, theta and optimizer stay in float32")
    seed: int = _setting(0, "of the first weights, the order of the data and dropout")
    logging_steps: int = _setting(10, "updates between lines of the log", above_zero=True)
    save_steps: int = _setting(100, "updates between states to resume from", above_zero=True)
    eval_steps: int | None = _setting(
        None, "updates between losses on the held-out records; at the end only if not given", minimum=1
    )

    def __post_init__(self):
        for setting in fields(self):
            value, minimum = getattr(self, setting.name), setting.metadata["minimum"]
            if isinstance(value, float) and math.isinf(value) and setting.name != "max_grad_norm":
                raise ConfigError(f"{setting.name} is {value}; it must be a number with an end.")
            if setting.metadata["above_zero"] and not value > 0:
                raise ConfigError(f"{setting.name} is {value}; it must be above 0.")
            if None not in (value, minimum) and not value >= minimum:
                raise ConfigError(f"{setting.name} is {value}; it must be {minimum} or more.")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; numpy, which is seeded too, takes 0 to {2**32 - 1}.")
        if self.lr_scheduler_type not in LR_SCHEDULER_TYPES:
            raise ConfigError(f"lr_scheduler_type is {self.lr_scheduler_type!r}; choose {', '.join(LR_SCHEDULER_TYPES)}.")
        if self.max_steps <= 0 and not self.num_train_epochs > 0:
            raise ConfigError(f"num_train_epochs is {self.num_train_epochs}; give some, or max_steps.")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"warmup_ratio is {self.warmup_ratio}; it is a share of all updates, from 0 to below 1.")
