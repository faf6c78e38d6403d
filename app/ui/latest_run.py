"""What Compare ran last, as other tabs may take it. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LatestRun:
    """`answers` by name of the variant, in the order of their columns. `id`: of this one run, None until it has ended."""

    prompt: str
    template: str
    answers: Mapping[str, str]
    id: str | None = None
