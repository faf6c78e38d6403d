"""The tables of README.md and docs/results.md, made from assets/results: python -m benchmarks.table writes them.

README has the figures with a bound, of the default base; docs/results.md has all of it, and of other bases what was measured.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import FIGURES, GROUPS, Figure
from benchmarks.measures import Measured
from benchmarks.record import RESULTS, ROOT, Results, read
from bitune.base.default import EMBEDDED
from bitune.flags import Flags, status_of

DEFAULT = RESULTS / f"{EMBEDDED.name}.json"
BEGIN, END = "<!-- python -m benchmarks.table writes from here -->", "<!-- to here -->"
HEAD = "| what | against | measured | at most |\n|---|---|---|---|"


def number(value: float) -> str:
    """Three digits, as a person writes them."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def measured(figure: Measured | None) -> str:
    """The median with its spread."""
    if figure is None:
        return "not measured"
    unit = f" {figure.unit}" if figure.unit else ""
    spread = f" ({number(figure.least)} to {number(figure.most)})" if figure.rounds > 1 else ""
    return f"{number(figure.median)}{unit}{spread}"


def bound(figure: Figure, value: Measured | None) -> str:
    """The bound, and whether it is missed."""
    if figure.bound is None:
        return ""
    if value is None:
        return f"{figure.bound:g}"
    return f"{figure.bound:g} {value.unit}".rstrip() + (", missed" if value.median > figure.bound else "")


def row(figure: Figure, value: Measured | None) -> str:
    """A line of the table."""
    return f"| {figure.over} | {figure.under} | {measured(value)} | {bound(figure, value)} |"


def runs_of(results: Results) -> str:
    """On what the figures were measured, a line for each machine, setting and day."""
    lines: dict[str, None] = {}
    for run in results.runs.values():
        place = run["processor"] if run["device"] == "cpu" else run["device"]
        lines[
            f"{run['base']}, {run['dtype']}; {place}, {run['threads']} threads; torch {run['torch']}, transformers "
            f"{run['transformers']}, PEFT {run['peft']}; {run['date']}, commit {run['commit']}."
        ] = None
    return "\n".join(lines)


def table(results: Results, figures: Iterable[Figure]) -> str:
    """Rows in the order of `figures.GROUPS`, below them the machine."""
    rows = [row(figure, results.figures.get(figure.name)) for figure in figures]
    return "\n".join([HEAD, *rows, "", runs_of(results)]).strip()


def readme() -> str:
    """What is promised, on the default base."""
    return table(read(DEFAULT), [figure for group in GROUPS if group.by_default for figure in group.figures if figure.bound])


def everything() -> str:
    """The default base with all figures, then each other base with those that were measured."""
    default = [figure for group in GROUPS if group.by_default for figure in group.figures]
    tables = [table(read(DEFAULT), default)]
    for path in sorted(RESULTS.glob("*.json")):
        results = read(path)
        if path != DEFAULT:
            tables.append(table(results, [figure for name, figure in FIGURES.items() if name in results.figures]))
    return "\n\n".join(tables)


TABLES = {ROOT / "README.md": readme, ROOT / "docs" / "results.md": everything}


def with_table(page: str, text: str) -> str:
    """The page with this text between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def write() -> None:
    """Write the tables into their pages."""
    for path, text in TABLES.items():
        path.write_text(with_table(Path(path).read_text("utf-8"), text()), "utf-8")
        print(f"The table of {path.name} is written.")


if __name__ == "__main__":
    Flags(prog="python -m benchmarks.table", description="Write the tables of speed and memory.").parse_args()
    sys.exit(status_of("benchmarks", write))
