"""What a person asks of Compare, checked. Everything that arrives over HTTP has any type it likes until it is in here."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bitune.errors import ConfigError

MOST_NEW_TOKENS = 512  # one request holds the model; this keeps the others from waiting for minutes
TEMPLATES = {"own": "the checkpoint's own", "chat": "the base's chat template", "none": "none, the text as it is"}


@dataclass(frozen=True)
class CompareRequest:
    """A prompt, the variants that answer it, and how. The engine checks what only a model can know, such as length."""

    prompt: str
    variants: tuple[str, ...]
    template: str = "own"
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        put = object.__setattr__
        put(self, "prompt", text("The prompt", self.prompt))
        put(self, "variants", names("Variants", self.variants))
        put(self, "template", text("The template", self.template))
        put(self, "max_new_tokens", whole_number("New tokens", self.max_new_tokens))
        put(self, "temperature", number("Temperature", self.temperature))
        put(self, "top_p", number("Top-p", self.top_p))
        put(self, "seed", whole_number("The seed", self.seed))
        if not self.variants:
            raise ConfigError("No variant is chosen; choose at least one to run.")
        if not 1 <= self.max_new_tokens <= MOST_NEW_TOKENS:
            raise ConfigError(f"New tokens is {self.max_new_tokens}; it must lie between 1 and {MOST_NEW_TOKENS}.")

    @property
    def options(self) -> dict[str, object]:
        """Everything but prompt and variants: the keyword arguments of Engine.stream."""
        return {
            "template": self.template,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }


def text(what: str, value: object) -> str:
    """`value` if it is text, else ConfigError."""
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be text; got {shown(value)}.")
    return value


def names(what: str, value: object) -> tuple[str, ...]:
    """`value` as a tuple of different names, in their order, else ConfigError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{what} must be a list of names; got {shown(value)}.")
    return tuple(dict.fromkeys(text("The name of a variant", name) for name in value))


def number(what: str, value: object) -> float:
    """`value` if it is a finite number, else ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{what} must be a number; got {shown(value)}.")
    return value


def whole_number(what: str, value: object) -> int:
    """`value` if it is a whole number (sliders send 64 as 64.0), else ConfigError."""
    if number(what, value) != int(value):
        raise ConfigError(f"{what} must be a whole number; got {shown(value)}.")
    return int(value)


def shown(value: object) -> str:
    """A value as it may stand in a sentence: short, and nothing at all for an emptied field."""
    if value is None:
        return "nothing"
    written = repr(value)
    return written if len(written) <= 40 else written[:39] + "…"


def from_query(query: Mapping[str, str], variants: Iterable[str]) -> CompareRequest | None:
    """The request in the address of a shared link, or None where there is none; `variants` are those loaded here."""
    if "prompt" not in query:
        return None
    known = tuple(variants)
    asked = [name for name in query.get("variants", "").split(",") if name in known]
    given = {name: value for name, value in query.items() if name in ("template", "max_new_tokens", "temperature", "top_p", "seed")}
    if given.get("template", "own") not in TEMPLATES:
        raise ConfigError(f"The link asks for the template {shown(given['template'])}; known: {', '.join(TEMPLATES)}.")
    for name, kind in (("max_new_tokens", int), ("temperature", float), ("top_p", float), ("seed", int)):
        if name in given:
            given[name] = parsed(name, given[name], kind)
    return CompareRequest(query["prompt"], tuple(asked) or known, **given)


def parsed(name: str, value: str, kind: type) -> int | float:
    """A number from a link, else ConfigError."""
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"The link says {name}={shown(value)}, which is not a number.") from None
