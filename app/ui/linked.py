"""What of a link's choices is here: those of variants, template and length, as every tab that answers prompts has them."""

from collections.abc import Iterable, Mapping

from app.ui.checks import not_here
from app.ui.frame import Inputs
from app.ui.loading import OnEngine


def as_here(
    on: OnEngine, fields: Inputs, values: Mapping[str, object], what_ifs: Iterable[str]
) -> tuple[dict[str, object], list[str]]:
    """The values of a tab's fields, as far as they are here, and a sentence for each that is not.

    Args:
        on: The engine.
        fields: `variants`, `template` and `max_new_tokens` among them.
        values: What a link says of these fields, checked.
        what_ifs: The names of the visitor's.
    """
    values, words = dict(values), []
    if values.get("template") == "chat" and not on.has_chat_template:
        values["template"] = "own"
        words.append("This base has no chat template, so each checkpoint's own is chosen.")
    asked, most = values.get("max_new_tokens"), fields["max_new_tokens"].maximum
    if asked is not None and asked > most:
        values["max_new_tokens"] = most
        words.append(f"The link asks for {asked} new tokens; this page writes at most {most}.")
    if "variants" in values:
        named, here = values["variants"], [*on.names, *what_ifs]
        values["variants"] = [name for name in here if name in named]
        words += not_here(name for name in named if name not in here)
    return values, words
