"""How figures are measured: on which base, with how many threads and rounds. Knows no torch."""

from dataclasses import dataclass
from pathlib import Path

from bitune.base.default import EMBEDDED

SHAPE = "shape:"


class Skipped(Exception):
    """A figure cannot be measured here; its text is a sentence that says why, and what would help."""


@dataclass(frozen=True)
class Setting:
    """What every figure is measured with.

    Args:
        folder: of the run; `bases.prepare` puts the plain base and the checkpoints into it.
        base: as `bitune.load_base` takes it, or `shape:NAME` for random weights in the shape of a model.
        device, dtype: as `bitune.load_base` takes them.
        threads: of torch, and of what is started beside it.
        rounds: how often each thing is measured.
        quick: lengths of a few tokens, to see that a figure can be measured at all.
        llama: the folder in which node-llama-cpp is installed.
    """

    folder: Path
    base: str = EMBEDDED.name
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2
    rounds: int = 5
    quick: bool = False
    llama: Path | None = None

    @property
    def shape(self) -> str | None:
        """The shape's name where the base has random weights."""
        return self.base.removeprefix(SHAPE) if self.base.startswith(SHAPE) else None

    @property
    def few(self) -> int:
        """Rounds of what takes tens of seconds each: two or three."""
        return min(self.rounds, 3)

    def tokens(self, number: int) -> int:
        """So many tokens, or a few where it is to be quick."""
        return 8 + number % 8 if self.quick else number
