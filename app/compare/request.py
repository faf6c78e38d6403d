"""What a person asks of Compare. What arrives over HTTP has any type it likes until it is in here or in the engine.

Checked here is what only the page knows; the engine checks prompt, numbers and names, and says what is wrong with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic.dataclasses import dataclass

from app.ui.checks import Names, Whole
from app.ui.prompt_templates import TEMPLATES
from app.ui.validation import checked
from app.ui.what_ifs import plain, read
from bitune.errors import ConfigError

MAX_NEW_TOKENS = 512  # one request holds the model; this keeps the others from waiting for minutes


def limited(tokens: object) -> object:
    """`tokens` where they are not more than this page allows, else ConfigError."""
    if isinstance(tokens, int) and tokens > MAX_NEW_TOKENS:
        raise ConfigError(f"max_new_tokens is {tokens}; this page allows at most {MAX_NEW_TOKENS}.")
    return tokens


def plain_what_ifs(value: object) -> dict[str, dict]:
    """What-ifs as plain values without what only the page needs of them; ConfigError where they are none."""
    return {name: plain(question) for name, question in read(value).items()}


@dataclass(frozen=True)
class CompareRequest:
    """A prompt, the variants that answer it, how, and the what-ifs among the variants as plain values."""

    prompt: Any
    variants: Names
    template: Any = "own"
    max_new_tokens: Annotated[Whole, AfterValidator(limited)] = 64
    temperature: Any = 0.0
    top_p: Any = 1.0
    seed: Whole = 0
    what_ifs: Annotated[dict[str, Any], BeforeValidator(plain_what_ifs)] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, object]:
        """Everything but prompt and variants: the keyword arguments of Engine.stream."""
        return {
            "template": self.template,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "what_ifs": read(self.what_ifs),
        }


class Link(BaseModel):
    """What the address of a shared link may hold; everything in it is text at first."""

    prompt: str
    variants: str = ""
    template: Literal[tuple(TEMPLATES)] = "own"
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def from_query(query: Mapping[str, str], variants: Iterable[str]) -> CompareRequest | None:
    """The request in the address of a shared link, or None where there is none; `variants` are those loaded here."""
    if "prompt" not in query:
        return None
    values = checked(Link, query, "The link").model_dump(exclude_unset=True)
    known = tuple(variants)
    chosen = tuple(name for name in values.pop("variants", "").split(",") if name in known)
    return CompareRequest(variants=chosen or known, **values)
