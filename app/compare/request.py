"""What a person asks of Compare. What arrives over HTTP has any type it likes until it is in here or in the engine.

Checked here is what only the page knows; the engine checks prompt, numbers and names, and says what is wrong with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from app.ui.checks import Names, Whole
from app.ui.prompt_templates import TEMPLATES
from app.ui.validation import checked
from app.ui.what_ifs import plain, read
from bitune.errors import ConfigError
from bitune.schema.generation import GenerationSettings

MAX_NEW_TOKENS = 512  # one request holds the model; this keeps the others from waiting for minutes
MAX_LINKED_SEED = 2**53 - 1  # a browser keeps numbers as doubles: a larger seed would become another one on the page


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
    """What the address of a shared link may hold; everything in it is text at first.

    `variants`: names separated by commas; in a name, `,` and `%` are percent-encoded.
    """

    prompt: str
    variants: str = ""
    template: Literal[tuple(TEMPLATES)] = "own"
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: Annotated[int, Field(ge=0, le=MAX_LINKED_SEED)] = 0


def from_query(query: Mapping[str, str], variants: Iterable[str]) -> CompareRequest | None:
    """The request in the address of a shared link.

    Args:
        query: The parameters of the address.
        variants: All that are loaded here; a link that names none asks for them.

    Returns:
        None where the address holds no prompt. The variants are those that the link names, loaded here or not.

    Raises:
        ConfigError: A setting in the link is no value that the engine takes.
    """
    if "prompt" not in query:
        return None
    link = checked(Link, query, "The link")
    GenerationSettings(link.max_new_tokens, link.temperature, link.top_p, link.seed)
    values = link.model_dump(exclude_unset=True)
    named = tuple(unquote(name) for name in values.pop("variants", "").split(",") if name)
    return CompareRequest(variants=named or tuple(variants), **values)
