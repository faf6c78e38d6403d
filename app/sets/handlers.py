"""What happens in the tab Many prompts, without the page: a set goes in, screens come out. Knows no gradio; errors are raised."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from app.sets import html
from app.sets.progress import ALL, NEWEST, PAGE, Progress, filters_of, page_of
from app.sets.request import SetRequest
from app.ui.admission import Admission
from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.templates import empty, problem
from app.ui.variants import in_order, views_of, with_what_ifs
from app.ui.what_ifs import plain, read
from bitune.data.prompt_sets import SetPrompt, parse_set
from bitune.errors import ConfigError, DataError
from bitune.sets.files import csv_text, json_lines
from bitune.sets.rows import in_order as rows_in_order

ROWS = 16
"""Answers that are written together: so many that a step is used well, so few that nobody beside them waits long for a turn."""
# Of the intervals that are shown while more rows come, after every batch: with 12 variants all of them take seconds.
RESAMPLES_MEANWHILE = 500
NOTHING_YET = "No set has run yet. Paste prompts or open a file, then press Run: every chosen variant answers every prompt."
NOT_ANSWERED = "Stopped before the first answer."
NOTHING_TO_SAVE = "There is no answer to save yet: press Run."


@dataclass(frozen=True)
class Screen:
    """What the tab shows: how far it is, what the rows say together, rows; and the set itself, where there is one.

    `filters`, `wanted`, `page`, `pages`, `position`: of the rows; no filter while a set runs, when the newest rows are shown.
    """

    status: str
    summary: str = ""
    rows: str = ""
    running: bool = False
    progress: Progress | None = None
    filters: Sequence[tuple[str, str]] = ()
    wanted: str = ALL
    page: int = 0
    pages: int = 1
    position: str = ""

    @property
    def can_go_on(self) -> bool:
        """Whether a set was stopped before its end."""
        return not self.running and self.progress is not None and len(self.progress.rows) < self.progress.total


@dataclass(frozen=True)
class Begun:
    """A set that can be answered, as it is shown at first, and the batches that are left of it."""

    screen: Screen
    batches: Sequence[object]


class SetHandlers(OnEngine):
    """The events of the tab on one engine."""

    def __init__(self, engine, admission: Admission | None = None):
        super().__init__(engine, admission)

    def first_screen(self) -> Screen:
        """What stands there before anything was computed."""
        return Screen(empty(NOTHING_YET))

    def opened(self, text: object, name: object) -> tuple[str, str]:
        """A file that the browser has read: its prompts as the text that the box shows, and a sentence on them.

        DataError where it cannot be read, ConfigError where it holds more than a set may.
        """
        if not isinstance(text, str) or not isinstance(name, str):
            raise ConfigError("A file is a text and its name.")
        prompts = self.checked(parse_set(text, name))
        words = html.read_words(len(prompts), sum(one.right is not None for one in prompts))
        if parse_or_none(text) == prompts:
            return text, words
        lines = ({"prompt": one.prompt} if one.right is None else {"prompt": one.prompt, "answer": one.right} for one in prompts)
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines), words

    def checked(self, prompts: tuple[SetPrompt, ...], samples: int = 1) -> tuple[SetPrompt, ...]:
        """The prompts, where a set may have so many; ConfigError."""
        most, asked = self.admission.limits.set_prompts, len(prompts) * samples
        if asked > most:
            times = f" with {samples} answers to each" if samples > 1 else ""
            raise ConfigError(
                f"This set has {len(prompts):,} prompts{times}; this page answers at most {most:,} of a set. Take fewer, or run "
                "python -m bitune compare on a machine of your own."
            )
        return prompts

    def announce(self, **values: object) -> Screen:
        """At once after Run."""
        return Screen(empty("Reading the prompts …"), running=True)

    def begin(self, shown: Screen | None = None, **values: object) -> Iterator[Begun]:
        """Read a set and plan its batches; raises what is wrong with it. `shown`: what stands there, of which this takes nothing."""
        request = SetRequest(**values)
        yield self.begun(request, parse_set(request.text))

    def begun(self, request: SetRequest, prompts: tuple[SetPrompt, ...]) -> Begun:
        """The batches of a set; raises what is wrong with it."""
        settings = request.settings
        self.checked(prompts, settings.samples)
        views = with_what_ifs(views_of(self.engine), request.what_ifs)
        names = in_order(request.variants, views)
        what_ifs = {name: value for name, value in request.what_ifs.items() if name in names}
        views = {name: views[name] for name in names if name in views}
        progress = Progress(prompts, settings, views, what_ifs, {})
        batches = self.planned(progress, names)
        return Begun(self.running(replace(progress, facts=self.facts(progress))), batches)

    def planned(self, progress: Progress, names: Sequence[str]) -> Sequence[object]:
        """The batches that are left: none larger than one prompt may be."""
        from bitune.sets.run import planned  # imports torch, and the page opens before that

        return planned(
            self.engine,
            progress.prompts,
            names,
            progress.settings,
            batch_size=max(1, ROWS // max(len(names), 1)),
            batch_tokens=self.admission.limits.prompt_tokens,
            what_ifs=read(progress.what_ifs),
            done=[row.key for row in progress.rows],
        )

    def facts(self, progress: Progress) -> dict[str, object]:
        """What makes the answers."""
        from bitune.sets.run import set_facts

        facts = set_facts(self.engine, list(progress.views), progress.prompts, progress.settings)
        what_ifs = {name: plain(question) for name, question in read(progress.what_ifs).items()}
        return {**facts, "what_ifs": what_ifs} if what_ifs else facts

    def work(self, progress: Progress, batch) -> Work:
        """What a batch asks of the model."""
        what_ifs, known = progress.what_ifs, self.engine.variants
        sources = {what_ifs[name]["of"] if name in what_ifs else name for name in progress.views}
        passes = {one for name in sources if name in known for one in known[name].passes}
        new_tokens, prompts = progress.settings.max_new_tokens, len(batch.indices)
        return Work(batch.tokens, max(len(passes), 1), new_tokens, len(progress.views), prompts)

    def answer(self, progress: Progress, batch) -> Iterator[Screen]:
        """The set with the answers of one batch more. In a thread: what many rows say together takes its time to count."""
        from bitune.sets.run import rows_of

        started = time.monotonic()
        asked, settings = [progress.prompts[index] for index in batch.indices], progress.settings
        how = {"template": settings.template, "what_ifs": read(progress.what_ifs), **settings.of_sample(batch.sample)}
        answers = self.runner.batch([one.prompt for one in asked], list(progress.views), **how)
        seconds = progress.seconds + time.monotonic() - started
        rows = (*progress.rows, *rows_of(batch, asked, answers))
        yield self.running(replace(progress, rows=rows, seconds=seconds))

    def waiting(self, words: str, latest: Screen | None) -> Screen:
        """While the engine is loading, or others come first; what is answered already stays."""
        if latest is None or latest.progress is None:
            return Screen(empty(words), running=True)
        return replace(latest, status=html.status(latest.progress, running=True, words=words), running=True)

    def running(self, progress: Progress) -> Screen:
        """While more rows come: the newest of them."""
        newest = html.rows(progress, progress.rows[-NEWEST:][::-1]) if progress.rows else ""
        return Screen(html.status(progress, running=True), html.summary(progress, RESAMPLES_MEANWHILE), newest, True, progress)

    def ended(self, latest: Screen, words: str = "") -> Screen:
        """When no more rows come."""
        return self.shown(replace(latest, summary=html.summary(latest.progress)), words)

    def shown(self, screen: Screen, words: str = "", wanted: str = ALL, page: int = 0) -> Screen:
        """The rows that a choice lets through, page by page; what all of them say together is on the screen already."""
        progress = screen.progress
        status = html.status(progress, running=False, words=words)
        if not progress.rows:
            return Screen(status, progress=progress)
        passed, on_page, page, pages = page_of(progress.rows, wanted, page)
        start = page * PAGE + 1
        position = f"{start:,} to {start + len(on_page) - 1:,} of {len(passed):,}" if on_page else ""
        rows, filters = html.rows(progress, on_page), filters_of(progress.rows)
        return Screen(status, screen.summary, rows, False, progress, filters, wanted, page, pages, position)

    def finish(self, latest: Screen | None, shown: Screen | None = None) -> Screen:
        """After Stop: what was answered stays, and where nothing was, what was `shown` before."""
        kept = worth_keeping(latest, shown)
        if kept is None:
            return Screen(empty(NOT_ANSWERED))
        return self.ended(kept, "Stopped.") if kept is latest else self.beside(kept, html.said(NOT_ANSWERED))

    def failed(self, words: str, latest: Screen | None, shown: Screen | None = None) -> Screen:
        """A sentence; what was answered stays, and where nothing was, what was `shown` before."""
        kept = worth_keeping(latest, shown)
        return Screen(problem(words)) if kept is None else self.beside(kept, problem(words))

    def beside(self, kept: Screen, words: str) -> Screen:
        """A set as far as it was answered, with a sentence, as HTML, above it."""
        ended = self.ended(kept) if kept.running else kept
        return replace(ended, status=words + html.status(kept.progress, running=False))

    def look(self, screen: Screen, wanted: str, page: int) -> Screen:
        """Other rows of a set that does not run."""
        return screen if screen.running or screen.progress is None else self.shown(screen, "", wanted, page)

    def prompt_of(self, screen: Screen, index: object) -> tuple[str, str]:
        """A prompt of the set as (prompt, template) for another tab; ConfigError."""
        prompts = screen.progress.prompts if screen.progress else ()
        if not isinstance(index, str) or not index.isdecimal() or int(index) >= len(prompts):
            raise ConfigError("This prompt is not in the set any more; run the set again.")
        return prompts[int(index)].prompt, screen.progress.settings.template

    def saved(self, screen: Screen, form: str) -> str:
        """The rows as a file, `csv` or JSON Lines; ConfigError where there is none."""
        if screen.progress is None or not screen.progress.rows:
            raise ConfigError(NOTHING_TO_SAVE)
        rows = rows_in_order(screen.progress.rows)
        return csv_text(rows) if form == "csv" else json_lines(screen.progress.facts, rows)


class GoingOn(SetHandlers):
    """Go on with a set that was stopped: what `shown` says."""

    def announce(self, shown: Screen) -> Screen:
        if shown.progress is None:
            return Screen(empty("There is no set to go on with."), running=True)
        # Only what is there already: this is called on the event loop, and a summary takes its time to count.
        status = html.status(shown.progress, running=True)
        return Screen(status, shown.summary, shown.rows, True, shown.progress)

    def begin(self, shown: Screen) -> Iterator[Begun]:
        if shown.progress is None:
            raise ConfigError("There is no set to go on with; press Run.")
        progress = shown.progress
        batches = self.planned(progress, list(progress.views))
        if self.facts(progress) != progress.facts:
            raise ConfigError("What is loaded here is not what gave the answers so far; press Run to begin anew.")
        yield Begun(self.running(progress), batches)


def worth_keeping(latest: Screen | None, shown: Screen | None) -> Screen | None:
    """Which screen stays where a set ends before its end: the one with answers, the `latest` if both have some, or one that can be gone on
    with; None without any."""
    sets = [screen for screen in (latest, shown) if screen is not None and screen.progress is not None]
    return next((screen for screen in sets if screen.progress.rows), sets[0] if sets and sets[0] is latest else None)


def parse_or_none(text: str) -> tuple[SetPrompt, ...] | None:
    """The prompts of a text as it would be read without a name; None where it could not."""
    try:
        return parse_set(text)
    except DataError:
        return None
