"""What a person asks of Compare. What arrives over HTTP has any type it likes until it is in here or in the engine.

Checked here is what only the page knows; the engine checks prompt, numbers and names, and says what is wrong with them.
"""

from dataclasses import field
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic.dataclasses import dataclass

from app.compare.history import read_history
from app.ui.checks import Names, Whole, shown
from app.ui.what_ifs import plain, read
from bitune.errors import ConfigError
from bitune.schema.conversation import RECOMPUTE, Turn

MAX_NEW_TOKENS = 8192  # that any page writes or reads of a run; a page has its own limit below that, see app/limits.py
MAX_TEMPERATURE, MIN_TOP_P = 2.0, 0.05  # where the page's sliders end; the engine itself takes more
MAX_LINKED_SEED = 2**53 - 1  # a browser keeps numbers as doubles: a larger seed would become another one on the page


def limited(tokens: object) -> object:
    """`tokens` where they are not more than this page allows, else ConfigError."""
    if isinstance(tokens, int) and tokens > MAX_NEW_TOKENS:
        raise ConfigError(
            f"max_new_tokens is {shown(tokens)}; no page allows more than {MAX_NEW_TOKENS:,}, and this one may allow fewer."
        )
    return tokens


def plain_what_ifs(value: object) -> dict[str, dict]:
    """What-ifs as plain values without what only the page needs of them; ConfigError where they are none."""
    return {name: plain(question) for name, question in read(value).items()}


@dataclass(frozen=True)
class CompareRequest:
    """A prompt, the variants that answer it, how, and the what-ifs among the variants as plain values.

    `history`: the turns before the prompt, where it goes on with a conversation; `earlier`: how they are read, as in Engine.stream.
    """

    prompt: Any
    variants: Names
    template: Any = "own"
    max_new_tokens: Annotated[Whole, AfterValidator(limited)] = 64
    temperature: Any = 0.0
    top_p: Any = 1.0
    seed: Whole = 0
    what_ifs: Annotated[dict[str, Any], BeforeValidator(plain_what_ifs)] = field(default_factory=dict)
    history: Annotated[tuple[Turn, ...], BeforeValidator(read_history)] = ()
    earlier: Any = RECOMPUTE

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
            "history": self.history,
            "earlier": self.earlier,
        }
