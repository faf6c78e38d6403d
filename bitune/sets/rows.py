"""What a set comes to, as plain values: how it is asked, and each prompt with its answers. Knows no engine and no file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from bitune.errors import ConfigError, DataError, shown
from bitune.schema.generation import FinishReason, GenerationSettings


@dataclass(frozen=True)
class SetSettings:
    """How every prompt of a set is asked; the fields are those of `Engine.stream`, and `samples`: how many answers each variant gives.

    Sample i, from 0, is drawn with the seed `seed` + i, so it is what one prompt alone gives with that seed.
    """

    template: str = "own"
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    samples: int = 1

    def __post_init__(self):
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
            raise ConfigError(f"samples is {shown(self.samples)}; it must be a whole number of at least 1.")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"samples is {self.samples} at temperature 0, where all of them would be the same; give a temperature above 0."
            )
        for sample in (0, self.samples - 1):
            GenerationSettings(**self.of_sample(sample))

    def of_sample(self, sample: int) -> dict[str, object]:
        """The fields of GenerationSettings for one sample."""
        seed = self.seed + sample if sample else self.seed  # of any type until it has been checked
        how = {name: getattr(self, name) for name in ("max_new_tokens", "temperature", "top_p")}
        return {**how, "seed": seed}


@dataclass(frozen=True)
class SetAnswer:
    """An answer: its text, its tokens with the end token, how it ended, and whether it is right; None where nobody says what is."""

    text: str
    tokens: int
    finish_reason: FinishReason
    is_right: bool | None = None


@dataclass(frozen=True)
class Row:
    """One prompt and an answer of each variant. `index`: its place in the set, from 0. `sample`: which of several answers, from 0."""

    index: int
    sample: int
    prompt: str
    right: str | None
    answers: Mapping[str, SetAnswer]

    @property
    def key(self) -> tuple[int, int]:
        """What no other row of a set has."""
        return self.index, self.sample

    @property
    def is_same(self) -> bool:
        """Whether all variants gave the same text."""
        return len({answer.text for answer in self.answers.values()}) == 1

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "answers": {name: asdict(answer) for name, answer in self.answers.items()}}

    @classmethod
    def from_dict(cls, value: object) -> "Row":
        """What `to_dict` made; DataError for anything else."""
        try:
            answers = {name: SetAnswer(**answer) for name, answer in value["answers"].items()}
            row = cls(**{**value, "answers": answers})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise DataError(f"{shown(value)} is no row of a set; take the file as it was written.") from error
        row._check()
        return row

    def _check(self) -> None:
        texts = [self.prompt, *([] if self.right is None else [self.right]), *(one.text for one in self.answers.values())]
        numbers = [self.index, self.sample, *(one.tokens for one in self.answers.values())]
        is_row = (
            all(isinstance(text, str) for text in texts)
            and all(type(number) is int and number >= 0 for number in numbers)
            and all(one.finish_reason in get_args(FinishReason) for one in self.answers.values())
            and all(one.is_right in (None, True, False) for one in self.answers.values())
        )
        if not is_row:
            raise DataError(f"Row {shown(self.index)} of a set holds what no row can hold; take the file as it was written.")


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows as they stand in the set, the samples of a prompt together."""
    return sorted(rows, key=lambda row: row.key)
