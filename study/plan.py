"""What the study trains and measures, as data: settings, methods, and the list of runs in the order they are worth."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Setting:
    """Where a setting's records come from (file names in the data folder) and how long a run is.

    `limits`: how many of the first records of each test file are measured. Prompts and answers longer than the limits are left
    out of training and validation, so that a run on two cores takes minutes.
    """

    name: str
    train: tuple[str, ...]
    limits: dict[str, int]
    steps: int
    tuning_steps: int
    batch_size: int = 8
    max_prompt_tokens: int = 128
    max_answer_tokens: int = 24
    validation: int = 320


CHOICES = ("arc_challenge", "arc_easy", "openbookqa")
SETTINGS = {
    setting.name: setting
    for setting in (
        # Train on instructions that hold none of the tests, as in the paper's main table.
        Setting("instruction", ("t0",), dict.fromkeys(CHOICES, 500) | {"t0": 250}, steps=300, tuning_steps=100),
        # Train on the task itself, as in the paper's second table.
        Setting("choices", CHOICES, dict.fromkeys(CHOICES, 500), steps=300, tuning_steps=100),
        Setting("arithmetic", ("mawps",), {"mawps": 238}, steps=200, tuning_steps=100),
    )
}


@dataclass(frozen=True)
class Run:
    """One training and its measurement. `tuning` runs are short and see the validation part only."""

    setting: str
    method: str = "lora"
    peft: str = "lora"
    rank: int = 8
    learning_rate: float = 1e-3
    mixing_learning_rate: float | None = None
    alpha_start: float = 0.5
    seed: int = 0
    tuning: bool = False

    @property
    def name(self) -> str:
        """Names the run's result; says everything that tells it from the others."""
        parts = [self.method, self.peft, f"r{self.rank}", f"lr{self.learning_rate:g}"]
        if self.mixing_learning_rate is not None:
            parts.append(f"theta{self.mixing_learning_rate:g}")
        if self.alpha_start != 0.5:
            parts.append(f"start{self.alpha_start:g}")
        return "-".join([self.setting, "tune" if self.tuning else "run", *parts, f"s{self.seed}"])


# The same number of tries for each: six. Theta's own rate and start are among Bitune's.
LORA_TRIES = [Run("", rank=16, learning_rate=rate) for rate in (3e-4, 6e-4, 1e-3, 2e-3, 4e-3, 8e-3)]
BITUNE_TRIES = [
    Run("", "bitune", learning_rate=1e-3),
    Run("", "bitune", learning_rate=1e-3, mixing_learning_rate=1e-4),
    Run("", "bitune", learning_rate=1e-3, mixing_learning_rate=1e-3, alpha_start=0.1),
    Run("", "bitune", learning_rate=2e-3, mixing_learning_rate=1e-3),
    Run("", "bitune", learning_rate=2e-3, mixing_learning_rate=1e-3, alpha_start=0.1),
    Run("", "bitune", learning_rate=4e-3, mixing_learning_rate=1e-3),
]


def tuning(setting: str) -> list[Run]:
    """The tries of one setting, dearest questions first."""
    return [replace(run, setting=setting, tuning=True) for pair in zip(LORA_TRIES, BITUNE_TRIES, strict=True) for run in pair]
