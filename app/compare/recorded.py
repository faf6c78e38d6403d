"""Answers computed earlier and saved in assets/recorded, so that the first page is never empty. `python -m app.record` computes them.

Only plain values are stored: reading a recording needs no model.
"""

from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from app.compare.request import CompareRequest
from app.ui.examples import EXAMPLES, Example
from app.ui.paths import ASSETS
from app.ui.validation import first_problem
from app.ui.variants import VariantView, views_of
from bitune.errors import ConfigError, DataError
from bitune.files import JSON_BYTES, read_bytes
from bitune.schema.results import Update

FOLDER = ASSETS / "recorded"
SPECIMEN_TOKENS = 48  # short enough that three answers fit on the first screen


@dataclass(frozen=True, kw_only=True, config=ConfigDict(allow_inf_nan=False))
class Recording:
    """One request and its answers. `base` and `recorded`, the day, stand in the note above them."""

    format: Literal[1] = 1
    base: str
    recorded: date
    request: CompareRequest
    views: dict[str, VariantView]
    update: Update

    @model_validator(mode="after")
    def every_answer_can_be_shown(self) -> Self:
        """Answers, prompts, numbers of tokens and views are tables of the same variants."""
        answers, prompts, tokens = self.update.completions, self.update.prompts, self.update.prompt_tokens
        if not answers or not answers.keys() == prompts.keys() == tokens.keys() <= self.views.keys():
            raise ValueError("its answers, prompts, numbers of tokens and views are not of the same variants")
        if any(completion.variant != name for name, completion in answers.items()):
            raise ValueError("an answer stands under the name of another variant")
        return self


FILE = TypeAdapter(Recording)


def to_json(recording: Recording) -> str:
    """The file of a recording."""
    return FILE.dump_json(recording, indent=1).decode() + "\n"


def read(path: Path) -> Recording:
    """The recording in a file; DataError, which names it, where it is not one of this format."""
    try:
        return FILE.validate_json(read_bytes(path, JSON_BYTES, DataError))
    except (ValidationError, ConfigError) as error:  # ConfigError: a request that the page would refuse
        cause = first_problem(error) if isinstance(error, ValidationError) else str(error).rstrip(".")
        raise DataError(f"{path} is not a recording: {cause}. Make it again with python -m app.record.") from error


def path_of(example: Example, folder: Path = FOLDER) -> Path:
    """Where the recording of an example lies."""
    return folder / f"{example.key}.json"


def load_all(folder: Path = FOLDER) -> dict[str, Recording]:
    """The recordings there are, by key of their example; examples without one are left out."""
    paths = {example.key: path_of(example, folder) for example in EXAMPLES}
    return {key: read(path) for key, path in paths.items() if path.exists()}


def record(engine, example: Example) -> Recording:
    """Run an example with every variant of the engine."""
    request = CompareRequest(prompt=example.prompt, variants=tuple(engine.variants), max_new_tokens=SPECIMEN_TOKENS)
    *_, last = engine.stream(request.prompt, list(request.variants), **request.options)
    views = views_of(engine.variants, engine.checkpoints)
    return Recording(base=engine.base_facts.name, recorded=date.today(), request=request, views=views, update=last)
