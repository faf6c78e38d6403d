"""A set and its comparison as HTML."""

from collections.abc import Sequence

from app.sets.progress import Progress
from app.ui.differences import difference
from app.ui.pace import spoken
from app.ui.templates import count, render
from bitune.evaluation.intervals import RESAMPLES
from bitune.sets.compared import compare
from bitune.sets.lines import interval, percent, points
from bitune.sets.rows import Row

SILENT = "ended at once"


def status(progress: Progress, *, running: bool, words: str = "") -> str:
    """How far a set is, and how long the rest will take."""
    done, left = len(progress.rows), progress.seconds_left
    what = "prompts" if progress.settings.samples == 1 else "answers of each variant"
    parts = [f"{done:,} of {progress.total:,} {what}"]
    if running and left:
        parts.append(f"about {spoken(left)} left")
    elif not running and done < progress.total:
        parts.append("Go on answers the others")
    return render("sets/status.html", words=words, done=done, total=progress.total, facts=parts, running=running)


def said(words: str) -> str:
    """A sentence above the figures."""
    return render("sets/note.html", words=words)


def summary(progress: Progress, resamples: int = RESAMPLES) -> str:
    """What the rows say together, a line a variant, each held against the first; `resamples` of each interval."""
    compared = compare(progress.rows, resamples)
    if compared is None:
        return ""
    first, *others = compared.variants
    rest = [pair for pair in compared.pairs if pair[0] != first]
    words = {"interval": interval, "percent": percent, "points": points}
    return render("sets/summary.html", compared=compared, views=progress.views, first=first, others=others, rest=rest, **words)


def rows(progress: Progress, shown: Sequence[Row]) -> str:
    """Rows with their answers: what in them the first variant's does not have is marked."""
    articles = [(row, answers_of(row), sample_of(row, progress)) for row in shown]
    return render("sets/rows.html", articles=articles, views=progress.views)


def answers_of(row: Row) -> list[tuple[str, object, Sequence[tuple], str]]:
    """Of each variant its name, its answer, the answer in pieces (text, mark, ...), and words where there is none."""
    first = next(iter(row.answers.values()))
    return [
        (name, one, difference(first.text, one.text).pieces, "" if one.text.strip() else SILENT)
        for name, one in row.answers.items()
    ]


def sample_of(row: Row, progress: Progress) -> str:
    """Which of several answers a row has."""
    return f"sample {row.sample + 1} of {progress.settings.samples}" if progress.settings.samples > 1 else ""


def read_words(prompts: int, judged: int) -> str:
    """What a file or a text holds."""
    right = f", {judged:,} of them with a right answer" if judged else ""
    return f"{count(prompts, 'prompt')}{right}."
