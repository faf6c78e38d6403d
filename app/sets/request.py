"""What a person asks of Many prompts. What arrives over HTTP has any type it likes until it is in here or in the engine."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from pydantic.dataclasses import dataclass

from app.ui.checks import Names, Text, Whole
from bitune.sets.rows import SetSettings


@dataclass(frozen=True)
class SetRequest:
    """Prompts as text, the variants that answer all of them, how, and the visitor's what-ifs as they pass between tabs."""

    text: Text
    variants: Names
    template: Any = "own"
    max_new_tokens: Whole = 32
    temperature: Any = 0.0
    top_p: Any = 1.0
    seed: Whole = 0
    samples: Whole = 1
    what_ifs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> SetSettings:
        """How every prompt is asked; ConfigError where that makes no sense."""
        return SetSettings(self.template, self.max_new_tokens, self.temperature, self.top_p, self.seed, self.samples)
