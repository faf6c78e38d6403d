"""What a person asks of Compare. What arrives over HTTP has any type it likes until it is in here or in the engine.

Checked here is what only the page knows; the engine checks prompt, numbers and names, and says what is wrong with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.ui.checks import names, shown, whole
from app.ui.prompt_templates import TEMPLATES
from app.ui.what_ifs import plain, read
from bitune.errors import ConfigError

MAX_NEW_TOKENS = 512  # one request holds the model; this keeps the others from waiting for minutes


@dataclass(frozen=True)
class CompareRequest:
    """A prompt, the variants that answer it, how, and the what-ifs among the variants as plain values."""

    prompt: str
    variants: tuple[str, ...]
    template: str = "own"
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    what_ifs: Mapping[str, Mapping] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "what_ifs", {name: plain(question) for name, question in read(self.what_ifs).items()})
        object.__setattr__(self, "variants", names(self.variants))
        object.__setattr__(self, "max_new_tokens", whole(self.max_new_tokens))
        object.__setattr__(self, "seed", whole(self.seed))
        if isinstance(self.max_new_tokens, int) and self.max_new_tokens > MAX_NEW_TOKENS:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; this page allows at most {MAX_NEW_TOKENS}.")

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


def from_query(query: Mapping[str, str], variants: Iterable[str]) -> CompareRequest | None:
    """The request in the address of a shared link, or None where there is none; `variants` are those loaded here."""
    if "prompt" not in query:
        return None
    known = tuple(variants)
    asked = [name for name in query.get("variants", "").split(",") if name in known]
    given = {name: kind(query, name) for name, kind in QUERY_OPTIONS.items() if name in query}
    return CompareRequest(query["prompt"], tuple(asked) or known, **given)


def known_template(query: Mapping[str, str], name: str) -> str:
    """A template from a link, else ConfigError."""
    if query[name] not in TEMPLATES:
        raise ConfigError(f"The link says {name}={shown(query[name])}; known: {', '.join(TEMPLATES)}.")
    return query[name]


def parsed(kind: type):
    """A reader of numbers from a link: ConfigError where there is none."""

    def read(query: Mapping[str, str], name: str) -> int | float:
        try:
            return kind(query[name])
        except ValueError:
            raise ConfigError(f"The link says {name}={shown(query[name])}, which is not a number.") from None

    return read


QUERY_OPTIONS = {
    "template": known_template,
    "max_new_tokens": parsed(int),
    "temperature": parsed(float),
    "top_p": parsed(float),
    "seed": parsed(int),
}
