"""A run as a file: the request, the answers, and with what they were made. Only plain values are stored: reading one needs no model.

The page opens with such runs from assets/recorded, which `python -m app.record` computes; visitors save their own and open them again.
"""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from app.compare.request import MAX_NEW_TOKENS, CompareRequest
from app.ui.checks import MAX_NAMES
from app.ui.examples import EXAMPLES, Example
from app.ui.paths import ASSETS
from app.ui.validation import first_problem
from app.ui.variants import VariantView, views_of
from bitune.errors import ConfigError, DataError
from bitune.files import JSON_BYTES, parse_json, read_bytes
from bitune.schema.config import BaseReference
from bitune.schema.results import Update
from bitune.schema.variants import ATTENTIONS

FOLDER = ASSETS / "recorded"
SPECIMEN_TOKENS = 48  # short enough that three answers fit on the first screen
LIBRARIES = ("torch", "transformers", "peft", "tokenizers")
MAX_TOKEN_TEXT = 128  # characters: the longest tokens are runs of one sign
MAX_NUMBER = 2**53


@dataclass(frozen=True, kw_only=True)
class MadeOf:
    """A checkpoint among the variants of a run; `fingerprint` of its weights, see bitune.checkpoints.fingerprint."""

    method: str
    peft_kind: str
    trainable_parameters: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True, config=ConfigDict(allow_inf_nan=False, extra="forbid"))
class Recording:
    """One request and its answers.

    `recorded`: when they were computed. `base`, `device`, `dtype`, `checkpoints`, `libraries` (name -> version): with what. `tokens`: the
    text of each token of `update`'s answers, which alone need not be text; the ids stand there.
    """

    format: Literal["bitune run"] = "bitune run"
    version: Literal[1] = 1
    recorded: AwareDatetime
    base: BaseReference
    device: str
    dtype: str
    checkpoints: dict[str, MadeOf]
    libraries: dict[str, str]
    request: CompareRequest
    views: dict[str, VariantView]
    update: Update
    tokens: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def every_answer_can_be_shown(self) -> Self:
        """Answers, prompts, tokens and views are tables of the same variants, and no larger than this page makes them."""
        answers, prompts, counts = self.update.completions, self.update.prompts, self.update.prompt_tokens
        if not answers or not answers.keys() == prompts.keys() == counts.keys() == self.tokens.keys() <= self.views.keys():
            raise ValueError("its answers, prompts, numbers of tokens, tokens and views are not of the same variants")
        if max(len(self.views), len(self.checkpoints), len(self.libraries)) > MAX_NAMES:
            raise ValueError(f"it names more than {MAX_NAMES} variants, checkpoints or libraries")
        if not self.update.done or any(completion.finish_reason is None for completion in answers.values()):
            raise ValueError("an answer has not ended")
        for name, completion in answers.items():
            if completion.variant != name or self.views[name].name != name:
                raise ValueError("an answer stands under the name of another variant")
            if not completion.tokens <= len(completion.token_ids) == len(self.tokens[name]) <= MAX_NEW_TOKENS:
                raise ValueError("the ids and texts of an answer's tokens are not as many as its tokens, or too many")
            if len(completion.text) > MAX_TOKEN_TEXT * completion.tokens:
                raise ValueError("an answer is longer than this page writes one")
        if any(attention not in ATTENTIONS for view in self.views.values() for attention in view.passes):
            raise ValueError(f"a pass over the prompt is none of {', '.join(ATTENTIONS)}")
        return self


FILE = TypeAdapter(Recording)


def to_json(recording: Recording) -> str:
    """The file of a recording."""
    return FILE.dump_json(recording, indent=1).decode() + "\n"


def from_json(content: bytes | str) -> Recording:
    """The recording in a file of any origin; DataError, whose text is the cause as a part of a sentence, where it is none."""
    try:
        plain = parse_json(content.decode() if isinstance(content, bytes) else content)
        check_numbers(plain)
        return FILE.validate_python(plain)
    except ValidationError as error:
        raise DataError(first_problem(error)) from error
    except (ConfigError, ValueError) as error:  # ConfigError: a request that the page would refuse
        raise DataError(str(error).rstrip(".")) from error


def check_numbers(value: object) -> None:
    """ValueError where a number in a JSON value is larger than a browser's numbers are exact."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, int | float) and not abs(one) <= MAX_NUMBER:
            raise ValueError("a number in it is larger than any that this page writes")


def read(path: Path) -> Recording:
    """The recording in a file; DataError, which names it, where it is not one of this format."""
    content = read_bytes(path, JSON_BYTES, DataError)
    try:
        return from_json(content)
    except DataError as error:
        raise DataError(f"{path} is not a recording: {error}. Make it again with python -m app.record.") from error


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
    return recording_of(engine, request, views_of(engine), last, datetime.now(UTC))


def recording_of(
    engine, request: CompareRequest, views: Mapping[str, VariantView], update: Update, finished: datetime
) -> Recording:
    """A run that has ended, as it is saved.

    Args:
        engine: On which it ran.
        request: What was asked.
        views: Of the variants that answered, and perhaps of others.
        update: What was answered.
        finished: When it ended.
    """
    from bitune.model.identity import describe  # imports torch, and the page opens before that

    answers, facts = update.completions, engine.base_facts
    used = {*answers, *(question["of"] for question in request.what_ifs.values())}
    decode = engine.base.tokenizer.decode
    return Recording(
        recorded=finished.replace(microsecond=0),
        base=describe(engine.base),
        device=facts.device,
        dtype=facts.dtype,
        checkpoints={
            name: MadeOf(
                method=checkpoint.method,
                peft_kind=checkpoint.peft_kind,
                trainable_parameters=checkpoint.trainable_parameters,
                fingerprint=checkpoint.fingerprint,
            )
            for name, checkpoint in engine.checkpoints.items()
            if name in used
        },
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        request=request,
        views={name: view for name, view in views.items() if name in answers},
        update=update,
        tokens={name: tuple(decode([token]) for token in completion.token_ids) for name, completion in answers.items()},
    )
