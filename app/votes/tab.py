"""Judging a run, and the tally, as parts of a tab: components and wiring only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import gradio as gr
from gradio.events import Dependency

from app.ui.caller import Caller
from app.ui.events import AT_ONCE
from app.ui.frame import ModelRequest, Updates, api, listen
from app.ui.pieces import html
from app.ui.templates import heading, problem, render
from app.votes.ballot import REASONS, Ballot, Vote
from app.votes.blind import letter
from app.votes.handlers import BAD, TIE, Voting
from app.votes.place import Kept

TITLE, WORDS = "Which answer is better?", "Your judgement is counted with those of others, once for each run."
BLIND_WORDS = "The names appear when you have judged."
SAME, ALL_BAD = ("About the same", TIE), ("All are bad", BAD)
TEXTS = "Keep this prompt and these answers with my vote, where others may read them"
TEXTS_INFO = "Otherwise only which variants answered, how, and your judgement are kept."
BLIND, BLIND_INFO = "Hide the names until I have judged", "Columns are then shuffled, and times are not shown."


class Judged(Protocol):
    """What a tab shows of a run: what can be judged of it, or in a sentence why nothing can, and whether the names are hidden."""

    running: bool
    blind: bool

    @property
    def ballot(self) -> Ballot | None: ...

    @property
    def not_judged(self) -> str: ...


@dataclass(frozen=True)
class Panel:
    """The components. `box` has all but `said`, which says what was voted or why nothing can be; `form` what is filled in."""

    box: gr.Column
    title: gr.HTML
    form: gr.Column
    run: gr.Textbox
    choice: gr.Radio
    reasons: gr.CheckboxGroup
    texts: gr.Checkbox
    vote: gr.Button
    names: gr.Button
    said: gr.HTML
    kept: Kept

    @property
    def components(self) -> list:
        """All that `show` may update."""
        return [
            self.box,
            self.title,
            self.form,
            self.run,
            self.choice,
            self.reasons,
            self.texts,
            self.vote,
            self.names,
            self.said,
        ]

    def show(self, screen: Judged) -> Updates:
        """The form for a run that has ended; what was filled in is emptied while the next one goes on, and never after its end."""
        words = said(screen.not_judged if self.kept.store is not None else "")
        if screen.running or not (screen.blind or screen.ballot):
            hidden = {self.box: gr.update(visible=False), self.said: words}
            return {**hidden, self.choice: gr.update(value=None), self.reasons: [], self.texts: False}
        ballot, asked = screen.ballot, screen.ballot is not None and self.kept.store is not None
        return {
            self.box: gr.update(visible=asked or screen.blind),
            self.title: gr.update(visible=asked, value=heading(TITLE, f"{WORDS} {BLIND_WORDS}" if screen.blind else WORDS)),
            self.form: gr.update(visible=asked),
            self.run: "" if ballot is None else ballot.run,
            self.choice: gr.update(choices=choices(ballot)),
            self.vote: gr.update(visible=asked),
            self.names: gr.update(visible=screen.blind),
            self.said: words if ballot is None else said(self.kept.problem),
        }


def said(words: str) -> str:
    """Words below the form; nothing where there are none."""
    return render("votes/said.html", words=words) if words else ""


def choices(ballot: Ballot | None) -> list[tuple[str, str]]:
    """What can be chosen of a run: a column, by the name that stands above it, or none."""
    names = enumerate(() if ballot is None else ballot.answers)
    columns = [(f"Answer {letter(place)}" if ballot.blind else name, str(place)) for place, name in names]
    return [*columns, SAME, ALL_BAD]


def blind_choice() -> gr.Checkbox:
    """Whether the next run is blind."""
    return gr.Checkbox(label=BLIND, info=BLIND_INFO, value=False, elem_id="bt-blind")


def panel(kept: Kept) -> Panel:
    """Put the components here; `Panel.show` fills them."""
    with gr.Column(visible=False, elem_id="bt-ballot") as box:
        title = html("")
        with gr.Column(elem_id="bt-ballot-form") as form:
            run = gr.Textbox(visible=False)
            choice = gr.Radio([SAME, ALL_BAD], label="Better", show_label=False, elem_id="bt-better")
            reasons = gr.CheckboxGroup(
                [(words, key) for key, words in REASONS.items()], label="Why (if you like)", elem_id="bt-reasons"
            )
            texts = gr.Checkbox(label=TEXTS, info=TEXTS_INFO, value=False, elem_id="bt-keep-texts")
        with gr.Row(elem_classes="bt-actions"):
            vote = gr.Button("Vote", variant="primary", elem_id="bt-vote", scale=0, min_width=120)
            names = gr.Button("Show the names", elem_id="bt-names", scale=0, min_width=180)
    return Panel(box, title, form, run, choice, reasons, texts, vote, names, html("", "bt-said"), kept)


def build(
    panel: Panel, voting: Voting, request: ModelRequest, latest: gr.State, unveiled: Callable[[Judged], Judged]
) -> list[Dependency]:
    """Put the tally here, and wire it and the panel.

    Args:
        panel: The form of this tab.
        voting: What happens.
        request: The tab's runs.
        latest: Their latest screen, which is what is judged, from this session's state on the server.
        unveiled: A screen with its names.

    Returns:
        The listeners after which names may have appeared.
    """
    with gr.Accordion("Votes so far", open=False, elem_id="bt-votes", visible=voting.kept.store is not None) as accordion:
        table = html("")

    def vote(latest: Judged, run: str, choice: str, reasons: Sequence[str], texts: bool) -> Updates:
        vote = voting.vote(latest.ballot, run, choice, reasons, texts, Caller.current(voting.proxies).visitor)
        return {
            **request.updates(unveiled(latest)),
            panel.box: gr.update(visible=False),
            panel.said: said(thanks_for(latest.ballot, vote)),
            table: voting.table(),
        }

    def failed(words: str) -> Updates:
        return {panel.said: problem(words)}

    def show_names(latest: Judged) -> Updates:
        return request.updates(unveiled(latest))

    inputs = {"latest": latest, "run": panel.run, "choice": panel.choice, "reasons": panel.reasons, "texts": panel.texts}
    # Without Gradio's own checks of the values: what is wrong with them is said by `Voting.vote`, and leaves no traceback in the log.
    voted = listen(panel.vote.click, vote, inputs, [*request.components, table], failed, **AT_ONCE, preprocess=False)
    shown = listen(panel.names.click, show_names, {"latest": latest}, request.components, failed)
    listen(accordion.expand, lambda: {table: voting.table()}, {}, [table], lambda words: {table: problem(words)}, **AT_ONCE)
    api(voting.votes, "votes")
    return [voted, shown]


def thanks_for(ballot: Ballot, vote: Vote) -> str:
    """What is said when a vote is on the disk: what was voted, and after a blind run which answer was whose."""
    names = list(ballot.answers)
    verdict = {TIE: "the answers are about the same", BAD: "all answers are bad"}.get(vote.verdict)
    if verdict is None:
        verdict = (
            f"{names[vote.place]} is better"
            if not ballot.blind
            else f"Answer {letter(vote.place)} ({names[vote.place]}) is better"
        )
    why = f" Why: {', '.join(REASONS[reason] for reason in vote.reasons)}." if vote.reasons else ""
    texts = " The prompt and the answers are kept with it." if vote.prompt is not None else ""
    whose = ", ".join(f"{letter(place)} was {name}" for place, name in enumerate(names))
    return f"Thanks, your vote is kept: {verdict}.{why}{texts}" + (f" {whose}." if ballot.blind else "")
