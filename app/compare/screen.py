"""What Compare shows, as plain values: answers, how they are compared, and what other tabs may take of them. Knows no gradio and no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import uuid4

from app.compare import html
from app.compare.recorded import Recording
from app.compare.request import CompareRequest
from app.ui.latest_run import LatestRun
from app.ui.variants import VariantView
from app.votes.ballot import Ballot
from app.votes.blind import hidden_views
from app.why.look import Wish
from bitune.schema.results import Update

NOTHING_TO_SAVE = "There is no run to save yet: press Run, and wait until it has ended."
NOT_ENDED = "The run goes on; it can be saved when it has ended."
HIDDEN = "While the names are hidden the run cannot be saved, as the file would tell them. Vote first, or press “Show the names”."
FOLLOW_UP = "Answers to a follow-up question are not judged, as each variant has read its own earlier answers."
STOPPED = "This run was stopped, so its answers are not judged."


@dataclass(frozen=True)
class Screen:
    """What Compare shows: two pieces of HTML, whether a run is under way; and what was asked and answered so far.

    `answers`: while a run is under way the columns alone; what is in them is `live`.
    `views`: of the variants in `update`; a what-if among them may be gone from the page when they are needed.
    `run_id`: of the run whose end this is, unlike any other's; None before. `recording`: what is shown instead of a run of this page;
    `words`: on what of it is not here, where somebody has opened it.
    `blind`: which answer is whose may not leave the server yet; `answers` and `live` do not tell it, `prompts` is empty. `unveiled`: they
    were hidden until this screen.
    `note`: why what was asked next was not run. `reference`: the variant that the others are compared with, None while nothing is compared.
    `finished`: when the run ended; None before.
    `wish`: what a link wants to be looked at below the answers.
    """

    answers: str
    prompts: str = ""
    running: bool = False
    update: Update | None = None
    request: CompareRequest | None = None
    views: Mapping[str, VariantView] = field(default_factory=dict)
    run_id: str | None = None
    recording: Recording | None = None
    words: Sequence[str] | None = None
    blind: bool = False
    unveiled: bool = False
    note: str = ""
    reference: str | None = None
    wish: Wish | None = None
    finished: datetime | None = None

    @property
    def live(self) -> dict[str, object]:
        """What fills the columns of `answers` by now; nothing where they are whole."""
        if not self.running or self.update is None:
            return {}
        return html.live(self.update, hidden_views(self.update.completions) if self.blind else self.views)

    @property
    def texts(self) -> dict[str, str]:
        """The answers so far by name of the variant, in the order of their columns."""
        return {} if self.update is None else {name: completion.text for name, completion in self.update.completions.items()}

    @property
    def latest_run(self) -> LatestRun | None:
        """What other tabs may take from here; None where nothing has run, or where it would tell which answer is whose.

        None also where a conversation goes on: they would see one question of it.
        """
        if self.update is None or self.request is None or self.blind or self.request.history:
            return None
        return LatestRun(self.request.prompt, self.request.template, self.texts, self.run_id)

    @property
    def ballot(self) -> Ballot | None:
        """What can be judged: a run that came to its end by itself, of several variants, which all were asked the same."""
        if self.running or self.run_id is None or len(self.texts) < 2 or self.not_judged:
            return None
        request = self.request
        sampling = {name: request.options[name] for name in ("max_new_tokens", "temperature", "top_p", "seed")}
        return Ballot(self.run_id, request.prompt, request.template, sampling, self.texts, self.blind, request.what_ifs)

    @property
    def not_judged(self) -> str:
        """Why the answers of a run of several variants that has ended are not judged, a sentence; empty where they are, or nothing is there."""
        if self.running or self.run_id is None or len(self.texts) < 2:
            return ""
        if self.request.history:
            return FOLLOW_UP
        stopped = any(completion.finish_reason == "cancelled" for completion in self.update.completions.values())
        return STOPPED if stopped else ""

    @property
    def not_saved(self) -> str:
        """Why what is shown cannot be saved, a sentence; empty where it can."""
        if self.recording is not None:
            return ""
        if self.running:
            return NOT_ENDED
        if self.update is None:
            return NOTHING_TO_SAVE
        return HIDDEN if self.blind else ""


def is_blind(wanted: object, order: Sequence[str]) -> bool:
    """Whether names are hidden: one answer alone has nothing to be told from."""
    return wanted is True and len(order) > 1


def columns(order: Sequence[str], views: Mapping[str, VariantView], blind: bool) -> list[VariantView]:
    """How the variants of a run are shown, from left to right."""
    return list(hidden_views(order).values()) if blind else [views[name] for name in order]


def arranged(update: Update, order: Sequence[str]) -> Update:
    """The answers in the order of their columns. The request keeps the engine's order, on which it depends what the base reads."""
    return replace(update, completions={name: update.completions[name] for name in order})


def ended(
    request: CompareRequest,
    update: Update,
    views: Mapping[str, VariantView],
    blind: bool = False,
    reference: str | None = None,
    wish: Wish | None = None,
) -> Screen:
    """The answers when no more is to come, and what was read: a template can tell whose answer it is, so not in a blind run.

    They are compared with `reference`, and with the first one that has a text where it has none or is not among them.
    """
    chosen = update.completions.get(reference)
    reference = html.first_with_text(update.completions) if chosen is None or not chosen.text.strip() else reference
    answers = html.answers(update, hidden_views(update.completions) if blind else views, request, reference)
    made_of = {"update": update, "request": request, "views": views, "reference": reference, "wish": wish}
    made_of |= {"blind": blind, "run_id": uuid4().hex, "finished": datetime.now(UTC)}
    return Screen(answers, "" if blind else html.prompts(update, views), **made_of)
