"""A reading that was recorded: what the tab shows before anything was read here. `python -m app.record` makes it.

It is what the browser gets after Read, with one map and no key to ask for more, so showing it needs no model.
"""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from app.attention.handlers import AttentionHandlers
from app.ui.examples import EXAMPLES
from app.ui.paths import ASSETS
from app.ui.validation import first_problem
from bitune.errors import DataError
from bitune.files import JSON_BYTES, read_bytes

PATH = ASSETS / "recorded" / "attention.json"
LIBRARIES = ("torch", "transformers", "peft", "tokenizers")
DIGITS = 3  # of the measures of a head: the overview shows two


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RecordedReading:
    """`value`: for the browser. The rest says when and with what it was computed; `checkpoint`: fingerprint of its weights."""

    format: Literal["bitune attention map"] = "bitune attention map"
    version: Literal[1] = 1
    recorded: AwareDatetime
    base: str
    checkpoint: str
    device: str
    dtype: str
    libraries: dict[str, str]
    value: dict[str, Any]

    @property
    def screen(self) -> dict[str, object]:
        """What the browser shows."""
        return {**self.value, "recorded": self.words}

    @property
    def words(self) -> str:
        """What it is, in words."""
        day = f"{self.recorded.day} {self.recorded:%B %Y}"
        return (
            f"This map was computed earlier, on {day}, with {self.base} and the checkpoint {self.value['variant']['name']}, which read the "
            "first example and its own answer to it. It is one map of many: press Read to read the prompt with what is loaded here, "
            "and to open any layer and head."
        )


FILE = TypeAdapter(RecordedReading)


def record(engine) -> RecordedReading:
    """Read the first example, and the variant's own answer to it, with the variant that one would begin with."""
    handlers = AttentionHandlers(engine)
    variant, prompt = handlers.first_choice(), EXAMPLES[0].prompt
    *_, last = engine.stream(prompt, [variant], max_new_tokens=24, temperature=0)
    (screen,) = handlers.run(variant, prompt=prompt, template="own", answer=last[variant].text)
    value = {name: part for name, part in screen.value.items() if name != "key"}
    facts = engine.base_facts
    return RecordedReading(
        recorded=datetime.now(UTC).replace(microsecond=0),
        base=facts.name,
        checkpoint=engine.checkpoints[variant].fingerprint if variant in engine.checkpoints else "",
        device=facts.device,
        dtype=facts.dtype,
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        value={**value, "measures": shortened(value["measures"])},
    )


def shortened(values: object) -> object:
    """Numbers in any nesting with fewer digits."""
    if isinstance(values, dict):
        return {name: shortened(value) for name, value in values.items()}
    return [shortened(value) for value in values] if isinstance(values, list) else round(values, DIGITS)


def to_json(recording: RecordedReading) -> str:
    """The file."""
    return FILE.dump_json(recording).decode() + "\n"


def load(path: Path = PATH) -> RecordedReading | None:
    """What is recorded, or None; DataError, which names the file, where it is not one of this format."""
    if not path.exists():
        return None
    try:
        return FILE.validate_json(read_bytes(path, JSON_BYTES, DataError))
    except ValidationError as error:
        raise DataError(
            f"{path} is not a recorded map: {first_problem(error)}. Make it again with python -m app.record."
        ) from error
