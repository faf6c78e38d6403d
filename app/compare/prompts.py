"""What each variant read of what was asked, in a few words. Pure text.

A template is told from what stands around the prompt in the text as read: so a run that was saved, also with another base, says it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.compare.request import CompareRequest
from app.ui.variants import VariantView
from bitune.schema.results import Update

AS_IT_IS = "the text as it is"
REWRITTEN = "in a template that changes it"
SHOWN = 22  # characters of either side of a template, those next to the prompt


@dataclass(frozen=True)
class Reading:
    """The `text` that a variant read, how many `tokens` that is, and `around`: what stands before and behind what was asked; None where that
    does not stand in it as it was asked."""

    text: str
    tokens: int
    around: tuple[str, str] | None

    @property
    def words(self) -> str:
        """How the prompt was read, where no template can be shown."""
        return REWRITTEN if self.around is None else "" if any(self.around) else AS_IT_IS

    @property
    def template(self) -> str:
        """What stands around the prompt, its line breaks as signs, an ellipsis for what was asked; empty without a template."""
        if self.around is None or not any(self.around):
            return ""
        before, after = (side.replace("\n", "↵") for side in self.around)
        before = before if len(before) <= SHOWN else f"…{before[-SHOWN:]}"
        after = after if len(after) <= SHOWN else f"{after[:SHOWN]}…"
        return f"{before}[prompt]{after}"


def readings(update: Update, views: Mapping[str, VariantView], request: CompareRequest) -> dict[str, Reading]:
    """What each variant read, by name; of none where a template would tell which one it is."""
    asked = str(request.prompt)
    return {
        name: reading(update.prompts[name], update.prompt_tokens[name], asked)
        for name in update.completions
        if not views[name].hidden
    }


def reading(text: str, tokens: int, asked: str) -> Reading:
    """One of them. In a conversation what was asked stands behind all turns before."""
    if not asked or asked not in text:
        return Reading(text, tokens, None)
    before, _, after = text.rpartition(asked)
    return Reading(text, tokens, (before, after))
