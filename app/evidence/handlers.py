"""What happens in the tab Evidence, without the page: choices go in, HTML, figures and plain values come out. Knows no gradio.

Errors are raised; the frame of app/ui/frame.py puts them into words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import plotly.graph_objects as go
from pydantic import BaseModel, ConfigDict, Field

from app.evidence import charts, table
from app.evidence.counted import figures_of
from app.evidence.data import FOLDER, QUESTIONS, Evidence, Row, load_all
from app.evidence.items import ALL, FILTERS, PAGE, Item, counts, items_of, kept, page_of
from app.evidence.listing import listed
from app.evidence.texts import ItemTexts, as_asked
from app.ui.checks import Name, shown
from app.ui.loading import OnEngine
from app.ui.templates import render
from bitune.errors import ConfigError, UnknownNameError

NOT_IN_STUDY = "The link asks Evidence for {}, which is not among its results here."


@dataclass(frozen=True)
class ItemQuery:
    """What is chosen in the explorer. From the browser, so of any type until it was looked up."""

    setting: object
    first: object
    second: object
    task: object = ALL
    wanted: object = "first"
    page: object = 0
    topic: object = ALL


class Link(BaseModel):
    """What a link may say of Evidence: the setting of the table, the choices of the explorer and its page. What is left out is as at
    first; a link from before there were two settings has one for both."""

    model_config = ConfigDict(extra="forbid")

    table: Name | None = None
    setting: Name | None = None
    first: Name | None = None
    second: Name | None = None
    task: Name | None = None
    topic: Name | None = None
    wanted: Name | None = None
    page: Annotated[int, Field(ge=0, le=1_000_000)] | None = None


@dataclass(frozen=True)
class ItemPage:
    """A page of the list. `figures`: how often the two were right. `filters`: (label, name) of each, with how many questions it lets
    through; none where that is unknown."""

    html: str
    figures: str = ""
    note: str = ""
    filters: Sequence[tuple[str, str]] = ()
    page: int = 0
    pages: int = 1
    position: str = ""


class EvidenceHandlers(OnEngine):
    """The events of Evidence: the files in `folder`, the texts of our `questions` and in `sources`, and the checkpoints whose templates
    they meet."""

    def __init__(self, engine, folder: Path = FOLDER, sources: Sequence[str] = (), questions: Path = QUESTIONS):
        super().__init__(engine)
        self.evidence, self.problems = load_all(folder)
        self.texts = ItemTexts(sources, questions)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """(title, name) of the settings there are."""
        return [(evidence.title, name) for name, evidence in self.evidence.items()]

    @property
    def question_sets(self) -> list[tuple[str, str]]:
        """The same, those first whose questions come with this page."""
        return sorted(self.settings, key=lambda setting: self.evidence[setting[1]].made is None)

    def missing(self) -> str:
        """A sentence for every file that cannot be read, and what to do where there is none at all."""
        return render("evidence/missing.html", problems=self.problems, nothing=not self.evidence).strip()

    def table(self, setting: object) -> str:
        """The table of a setting."""
        return table.table(self.setting(setting))

    def whiskers(self, setting: object) -> go.Figure | None:
        """The differences of a setting, drawn."""
        evidence = self.setting(setting)
        return charts.whiskers(evidence, table.views_of(evidence))

    def rows(self, setting: str) -> list[str]:
        """Names of a setting's rows."""
        return [row.name for row in self.evidence[setting].rows]

    def tasks(self, setting: str) -> list[tuple[str, str]]:
        """(title, name) of a setting's tasks, all of them first."""
        tasks = [(task.title, task.name) for task in self.evidence[setting].tasks]
        return [("All", ALL), *tasks] if len(tasks) > 1 else tasks

    def topics(self, setting: str) -> list[tuple[str, str]]:
        """(title, name) of what a setting's questions are about, all of it first; that alone where nothing is known."""
        return [("All topics", ALL), *((topic, topic) for topic in self.evidence[setting].topics)]

    def first_query(self, setting: str) -> ItemQuery:
        """Where Bitune was right and the reference wrong; everything of our own questions, which are there to be read, and while the study
        has one row alone."""
        evidence = self.evidence[setting]
        first = next((row for row in evidence.rows if row.method == "bitune"), evidence.rows[-1])
        second = evidence.row(evidence.reference) or evidence.rows[0]
        wanted = "first" if first is not second and evidence.made is None else ALL
        return ItemQuery(setting, first.name, second.name, self.tasks(setting)[0][1], wanted)

    def linked_query(self, link: Link) -> tuple[ItemQuery | None, list[str]]:
        """What a link asks of the explorer as far as it is here, and a sentence for what is not; None where its setting is not here."""
        if link.setting not in self.evidence:
            return None, [] if link.setting is None else [NOT_IN_STUDY.format(shown(link.setting))]
        query = self.first_query(link.setting)
        rows, tasks, topics = self.rows(link.setting), *(dict(self.tasks(link.setting)), dict(self.topics(link.setting)))
        choices = {
            "first": rows,
            "second": rows,
            "task": tasks.values(),
            "topic": topics.values(),
            "wanted": [*FILTERS.values(), ALL],
        }
        named = {name: value for name in choices if (value := getattr(link, name)) is not None}
        found = {name: value for name, value in named.items() if value in choices[name]}
        words = [NOT_IN_STUDY.format(shown(value)) for name, value in named.items() if name not in found]
        return replace(query, **found, page=link.page or 0), words

    def linked_table(self, link: Link) -> tuple[str | None, list[str]]:
        """The setting that a link asks for above the questions, and a sentence where it is not here."""
        name = link.table or link.setting
        return (name, []) if name in self.evidence else (None, [] if name is None else [NOT_IN_STUDY.format(shown(name))])

    def setting(self, name: object) -> Evidence:
        """The evidence of a setting; UnknownNameError."""
        return self.evidence[known("setting", name, self.evidence)]

    def items(self, query: ItemQuery) -> tuple[Evidence, list[Row], list[Item]]:
        """What is to be explored, before the filter; UnknownNameError."""
        evidence = self.setting(query.setting)
        by_name = {row.name: row for row in evidence.rows}
        rows = [by_name[known("row", name, by_name)] for name in (query.first, query.second)]
        task = known("task", query.task, [ALL, *(task.name for task in evidence.tasks)])
        topic = known("topic", query.topic, [ALL, *evidence.topics])
        return evidence, rows, items_of(evidence, *rows, task, topic)

    def filters(self, query: ItemQuery) -> list[tuple[str, str]]:
        """What the filters are called before anything is shown."""
        _, rows, items = self.items(query)
        return filters_of(items, rows)

    def explore(self, query: ItemQuery) -> ItemPage:
        """A page of the items that pass the filter and have a text; UnknownNameError. Reads the texts the first time."""
        evidence, rows, items = self.items(query)
        passed = kept(items, known("filter", query.wanted, [*FILTERS.values(), ALL]))
        texts = self.texts.get()
        readable = [item for item in passed if item.id in texts]
        on_page, page, pages = page_of(readable, query.page if type(query.page) is int else 0)
        start, shown_rows = page * PAGE + 1, rows if evidence.made is None else evidence.rows
        return ItemPage(
            html=listed(on_page, shown_rows, table.views_of(evidence), texts, start) if readable or not passed else "",
            figures=figures_of(items, *rows),
            note=self.note(evidence, sum(item.id in texts for item in items), len(items)),
            filters=filters_of(items, rows),
            page=page,
            pages=pages,
            position=f"{start:,} to {start + len(on_page) - 1:,} of {len(readable):,}" if on_page else "",
        )

    def note(self, evidence: Evidence, with_text: int, items: int) -> str:
        """What is missing of the texts and how to get it, and which checkpoints are others here than those that answered."""
        counted = {"with_text": with_text, "items": items, "changed": self.changed(evidence)}
        return render("evidence/note.html", problems=self.texts.problems, sources=self.texts.sources, **counted)

    def changed(self, evidence: Evidence) -> list[str]:
        """The checkpoints of this page that have the name of one that answered, and other weights."""
        measured = evidence.made.checkpoints if evidence.made and self.loading.ready else {}
        here = self.engine.checkpoints if measured else {}
        return [name for name, weights in measured.items() if name in here and here[name].fingerprint != weights]

    def prompt_of(self, item: object) -> tuple[str, str]:
        """A question as (prompt, template) for another tab, so that what the variants read there is what was measured; ConfigError."""
        text = self.texts.get().get(item) if isinstance(item, str) else None
        if text is None:
            raise ConfigError(f"The text of item {shown(item)} is not known here; start the app with --data.")
        checkpoints = self.engine.checkpoints.values() if self.loading.ready else ()  # without any the text is whole already
        return as_asked(text.prompt, (facts.template for facts in checkpoints))

    def answer(self, setting: object) -> dict[str, object]:
        """For programs: the tables as plain JSON, of one setting or of all; UnknownNameError."""
        chosen = self.evidence if setting in (None, "") else {setting: self.setting(setting)}
        return {name: evidence.as_json() for name, evidence in chosen.items()}


def known(kind: str, name: object, names: Iterable[str]) -> str:
    """`name` where it is one of these names; UnknownNameError."""
    if not isinstance(name, str) or name not in names:
        raise UnknownNameError(kind, str(name), names)
    return name


def filters_of(items: Sequence[Item], rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(label, name) of each filter, with its count."""
    first, second = (row.name for row in rows)
    numbers = counts(items)
    labels = {
        "first": f"{first} right, {second} wrong",
        "second": f"{second} right, {first} wrong",
        "neither": "both wrong",
        "both": "both right",
        ALL: "all",
    }
    return [(f"{label} ({numbers[name]:,})", name) for name, label in labels.items()]
