"""What a link carries of Compare: the form, a conversation, and what is looked at below the answers. Knows no page and no model."""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field

from app.compare.history import MAX_TURNS, TurnFields
from app.compare.request import MAX_LINKED_SEED, MAX_NEW_TOKENS, MAX_TEMPERATURE, MIN_TOP_P, CompareRequest
from app.ui.checks import MAX_CHARACTERS, Name, NameList
from app.ui.prompt_templates import TEMPLATES
from app.why.look import LookLink
from bitune.schema.conversation import EARLIER

Prompt = Annotated[str, Field(max_length=MAX_CHARACTERS)]
TemplateName = Literal[tuple(TEMPLATES)]


class Conversation(BaseModel):
    """A conversation whose last question is answered anew: the turns before, the question, who answers, and how all of it is read."""

    model_config = ConfigDict(extra="forbid")

    turns: Annotated[list[TurnFields], Field(min_length=1, max_length=MAX_TURNS)]
    question: Prompt
    variants: NameList
    template: TemplateName
    earlier: Literal[EARLIER]


class Link(BaseModel):
    """What a link may say of Compare, and what a form may hold. A field that is left out stays as it is on the page.

    `reference`: the variant that the others are compared with. `look`: what is open in "Why they part".
    """

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt | None = None
    variants: NameList | None = None
    template: TemplateName | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=MIN_TOP_P, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_LINKED_SEED)] | None = None
    reference: Name | None = None
    look: LookLink | None = None
    conversation: Conversation | None = None


def conversation_of(request: CompareRequest) -> dict[str, object] | None:
    """The conversation that a request goes on with, as the fields of Conversation; None where it is a first question."""
    if not request.history:
        return None
    turns = [{"prompt": turn.prompt, "answers": dict(turn.answers)} for turn in request.history]
    how = {"variants": list(request.variants), "template": request.template, "earlier": request.earlier}
    return {"turns": turns, "question": request.prompt, **how}


def with_names(fields: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """Fields of Link, not checked yet, in whose conversation, reference and look the variants of `names` are called otherwise."""

    def renamed(value: object, key: str = "") -> object:
        if isinstance(value, Mapping):
            of_variants = key == "answers"
            return {names.get(name, name) if of_variants else name: renamed(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [renamed(one, key) for one in value]
        return names.get(value, value) if isinstance(value, str) and key in WITH_NAMES else value

    return {
        field: renamed(value, field) if field in ("conversation", "look", "reference") else value
        for field, value in fields.items()
    }


WITH_NAMES = ("reference", "variants", "token_of", "layers_of", "lens_of")  # fields whose values are names of variants


def from_query(query: Mapping[str, str]) -> dict[str, object] | None:
    """What stands in the query of an address, as links of before the page's fragment have it: the fields of Link.

    Args:
        query: The parameters of the address. In `variants` names are separated by commas; in a name, `,` and `%` are percent-encoded.

    Returns:
        None where the address holds no prompt. Nothing is checked yet: everything is text.
    """
    if "prompt" not in query:
        return None
    values: dict[str, object] = {name: query[name] for name in Link.model_fields if name in query}
    if named := [unquote(name) for name in query.get("variants", "").split(",") if name]:
        values["variants"] = named
    else:
        values.pop("variants", None)
    return values
