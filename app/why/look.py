"""What of "Why they part" is looked at, as a link carries it and as it is found again when the run has ended. Plain values."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.ui.checks import Name

Panel = Literal["tokens", "layers", "lens"]
Place = Annotated[int, Field(ge=0, le=100_000)]  # of a token, more than any answer has


class LookLink(BaseModel):
    """What a link may say of the section.

    `panel`: what was asked last. `token_of`, `token`: the step that is open, the answer and a place in it. `layers_of`: whose mixing.
    `lens_of`, `lens_token`: the answer that is followed through the layers, and where.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    panel: Panel | None = None
    token_of: Name | None = None
    token: Place | None = None
    layers_of: Name | None = None
    lens_of: Name | None = None
    lens_token: Place | None = None


NO_LOOK = LookLink()


@dataclass(frozen=True)
class Wish:
    """A look that comes from a link: it is for the answers to this prompt, of a conversation its last question."""

    prompt: str
    look: LookLink
