"""One family: accepted or refused, and if accepted, what of it equals the libraries."""

import re
from dataclasses import dataclass

from bitune import UnsupportedModelError
from tests.families.comparisons import COMPARISONS
from tests.families.subjects import Subject, tiny_model
from tests.families.tiny_configs import NOT_TINY


@dataclass(frozen=True)
class Row:
    """What became of a family.

    Attributes:
        family: The model type of its config.
        verdict: `accepted`, `refused` or `not tried`.
        reason: Why not; empty for one that is accepted.
        equal: Comparison -> `equal`, `refused`, or `differs` in the words of the assertion.
    """

    family: str
    verdict: str
    reason: str
    equal: dict[str, str]

    @property
    def line(self) -> str:
        """This row of the table."""
        verdict = f"{self.verdict}: {self.reason}" if self.reason else self.verdict
        return "| " + " | ".join([f"`{self.family}`", verdict, *(self.equal.get(name, "") for name in COMPARISONS)]) + " |"


def sweep(family: str) -> Row:
    """Try a family. What is neither a difference nor a refusal in words passes as it is."""
    if family in NOT_TINY:
        return Row(family, "not tried", NOT_TINY[family], {})
    try:
        subject = Subject.of(tiny_model(family))
    except UnsupportedModelError as error:
        return Row(family, "refused", _short(error), {})
    equal = {}
    for name, compare in COMPARISONS.items():
        try:
            compare(subject)
            equal[name] = "equal"
        except UnsupportedModelError:
            equal[name] = "refused"
        except AssertionError as error:
            equal[name] = f"differs: {error}"
    return Row(family, "accepted", "", equal)


def _short(error: UnsupportedModelError) -> str:
    """The sentence without its subject and its remedy."""
    return re.sub(r"^'[\w-]+' ", "", str(error)).split(";")[0].rstrip(".")
