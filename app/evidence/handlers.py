"""What happens in the tab Evidence, without the page: choices go in, HTML and plain values come out. Knows no gradio."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from app.evidence import items as evidence_items
from app.evidence import listing as evidence_list
from app.evidence import table as evidence_table
from app.evidence.data import FOLDER, Evidence, Row, as_json, load_all
from app.evidence.items import ALL, PAGE, Item
from app.evidence.texts import ItemTexts, as_asked
from app.ui import render
from app.ui.checks import shown
from app.ui.errors import sentence
from bitune.errors import ConfigError, UnknownNameError

NOTHING_RECORDED = (
    "<p class='bt-empty'>No results of the study are here yet. <code>python -m study run --data DIR</code> trains and measures, "
    "then <code>python -m study table</code> writes what this tab shows.</p>"
)
NO_TEXTS = (
    "The questions belong to other people's data sets and do not come with this page, so they are listed by number alone. To see "
    "their texts, start it with <code>python app.py --data FOLDER</code>, a folder of *.test.jsonl files, or with data sets of the "
    "Hugging Face Hub: <code>--data allenai/ai2_arc:ARC-Challenge --data allenai/ai2_arc:ARC-Easy --data allenai/openbookqa</code>."
)


@dataclass(frozen=True)
class Asked:
    """What is chosen in the explorer. From the browser, so of any type until it was looked up."""

    setting: object
    first: object
    second: object
    task: object = ALL
    wanted: object = "first"
    page: object = 0


@dataclass(frozen=True)
class Explorer:
    """What the explorer shows. `filters`: (label, name) of each, with how many questions it lets through."""

    html: str
    note: str = ""
    filters: Sequence[tuple[str, str]] = ()
    page: int = 0
    pages: int = 1
    place: str = ""


@dataclass(frozen=True)
class Sent:
    """A question as the fields of another tab take it."""

    prompt: str
    template: str


class EvidenceHandlers:
    """The events of Evidence: the files in `folder`, the texts in `sources`, and the checkpoints whose templates they meet."""

    def __init__(self, engine, folder: Path = FOLDER, sources: Sequence[str] = ()):
        self.engine = engine
        self.evidence, self.problems = load_all(folder)
        self.texts = ItemTexts(sources)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """(title, name) of the settings there are."""
        return [(evidence.title, name) for name, evidence in self.evidence.items()]

    def missing(self) -> str:
        """A sentence for every file that cannot be read, and what to do where there is none at all."""
        said = "".join(render.problem(problem) for problem in self.problems)
        return said or ("" if self.evidence else NOTHING_RECORDED)

    def table(self, setting: object) -> str:
        """The table of a setting."""
        try:
            evidence = self.named(setting)
            return evidence_table.table(evidence, evidence_table.views_of(evidence))
        except Exception as error:
            return render.problem(sentence(error))

    def rows(self, setting: str) -> list[str]:
        """Names of a setting's rows."""
        return [row.name for row in self.evidence[setting].rows]

    def tasks(self, setting: str) -> list[tuple[str, str]]:
        """(title, name) of a setting's tasks, all of them first."""
        tasks = [(task.title, task.name) for task in self.evidence[setting].tasks]
        return [("All", ALL), *tasks] if len(tasks) > 1 else tasks

    def first_choice(self, setting: str) -> Asked:
        """Where Bitune was right and the reference wrong; everything while the study has one row alone."""
        evidence = self.evidence[setting]
        first = next((row for row in evidence.rows if row.method == "bitune"), evidence.rows[-1])
        second = evidence.row(evidence.reference) or evidence.rows[0]
        wanted = "first" if first is not second else ALL
        return Asked(setting, first.name, second.name, self.tasks(setting)[0][1], wanted)

    def named(self, setting: object) -> Evidence:
        """The evidence of a setting; UnknownNameError."""
        if not isinstance(setting, str) or setting not in self.evidence:
            raise UnknownNameError("setting", str(setting), self.evidence)
        return self.evidence[setting]

    def items(self, asked: Asked) -> tuple[Evidence, list[Row], list[Item]]:
        """What is to be explored, before the filter; UnknownNameError."""
        evidence = self.named(asked.setting)
        rows = [row_named(evidence, name) for name in (asked.first, asked.second)]
        return evidence, rows, evidence_items.items_of(evidence, *rows, task_named(evidence, asked.task))

    def filters(self, asked: Asked) -> list[tuple[str, str]]:
        """What the filters are called before anything is shown."""
        _, rows, items = self.items(asked)
        return filters_of(items, rows)

    def explore(self, asked: Asked) -> Explorer:
        """A page of the items that pass the filter. Reads the texts the first time."""
        try:
            evidence, rows, items = self.items(asked)
            passed = evidence_items.kept(items, filter_named(asked.wanted))
            on_page, page, pages = evidence_items.page_of(passed, asked.page if type(asked.page) is int else 0)
            texts = self.texts.get()
            start = page * PAGE + 1
            return Explorer(
                html=evidence_list.listed(on_page, rows, evidence_table.views_of(evidence), texts, start),
                note=self.note(sum(item.id in texts for item in items), len(items)),
                filters=filters_of(items, rows),
                page=page,
                pages=pages,
                place=f"{start:,} to {start + len(on_page) - 1:,} of {len(passed):,}" if on_page else "",
            )
        except Exception as error:
            return Explorer(render.problem(sentence(error)))

    def note(self, known: int, items: int) -> str:
        """What is missing of the texts, and how to get it."""
        said = [escape(problem) for problem in self.texts.problems]
        if not self.texts.sources:
            said.append(NO_TEXTS)
        elif known < items:
            said.append(
                f"The data given with --data holds {known:,} of these {items:,} questions; the others are listed by number."
            )
        return "".join(f'<p class="bt-note">{words}</p>' for words in said)

    def send(self, item: object) -> Sent:
        """A question for Compare and Attention, so that what the variants read there is what was measured; ConfigError."""
        text = self.texts.get().get(item) if isinstance(item, str) else None
        if text is None:
            raise ConfigError(f"The text of item {shown(item)} is not known here; start the app with --data.")
        return Sent(*as_asked(text.prompt, (facts.template for facts in self.engine.checkpoints.values())))

    def answer(self, setting: object) -> dict[str, object]:
        """For programs: the tables as plain JSON, of one setting or of all. Raises."""
        chosen = self.evidence if setting in (None, "") else {setting: self.named(setting)}
        return {name: as_json(evidence) for name, evidence in chosen.items()}


def row_named(evidence: Evidence, name: object) -> Row:
    """The row of this name; UnknownNameError."""
    found = evidence.row(name) if isinstance(name, str) else None
    if found is None:
        raise UnknownNameError("row", str(name), [row.name for row in evidence.rows])
    return found


def task_named(evidence: Evidence, name: object) -> str:
    """`name` where it is one of a task or of all; UnknownNameError."""
    known = [ALL, *(task.name for task in evidence.tasks)]
    if name not in known:
        raise UnknownNameError("task", str(name), known)
    return name


def filter_named(name: object) -> str:
    """`name` where it is one of a filter; UnknownNameError."""
    known = [*evidence_items.FILTERS.values(), ALL]
    if name not in known:
        raise UnknownNameError("filter", str(name), known)
    return name


def filters_of(items: Sequence[Item], rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(label, name) of each filter, with its count."""
    first, second = (row.name for row in rows)
    counts = evidence_items.counts(items)
    names = {
        "first": f"{first} right, {second} wrong",
        "second": f"{second} right, {first} wrong",
        "neither": "both wrong",
        "both": "both right",
        ALL: "all",
    }
    return [(f"{words} ({counts[name]:,})", name) for name, words in names.items()]
