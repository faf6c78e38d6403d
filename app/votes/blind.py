"""A blind run: which answer is whose is known to the server alone until the visitor has judged. Pure.

What leaves the server carries letters in place of names, one colour, and neither the picture of the passes nor a word about them. Columns
stand in an order that is drawn anew for each run.
"""

from collections.abc import Iterable
from random import SystemRandom
from string import ascii_uppercase

from app.ui.variants import COLOURS, VariantView

COLOUR = COLOURS  # of every hidden variant: one that none of the others has


def shuffled(names: Iterable[str]) -> list[str]:
    """The names in an order that nobody can know."""
    names = list(names)
    SystemRandom().shuffle(names)
    return names


def letter(place: int) -> str:
    """`A` for the first column; after `Z` come `A2`, `B2` and so on."""
    turn, index = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[index] + (str(turn + 1) if turn else "")


def hidden_views(order: Iterable[str]) -> dict[str, VariantView]:
    """How variants are shown while nobody may know them, by name, in the order of their columns."""
    return {name: VariantView(f"Answer {letter(place)}", "", (), COLOUR, hidden=True) for place, name in enumerate(order)}
