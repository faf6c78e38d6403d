"""Reports as lines of text, for the command line."""

from collections.abc import Mapping, Sequence

from bitune.evaluation.intervals import Interval
from bitune.evaluation.report import Compared, Report, averages, comparison


def report_lines(name: str, report: Report) -> list[str]:
    """A line a measure and variant, in percent with intervals, and the differences to the variants before it."""
    return [line for measure in report.hits for line in _lines(name, measure, comparison(measure, [report]))]


def average_lines(reports: Sequence[Report]) -> list[str]:
    """Likewise the averages over the sets that share a measure; no line where there is one set alone."""
    compared = averages(reports).items()
    return [line for (measure, sets), variants in compared for line in _lines(f"average of {sets}", measure, variants)]


def _lines(name: str, measure: str, variants: Mapping[str, Compared]) -> list[str]:
    lines, before = [], []
    for variant, compared in variants.items():
        line = f"{name:28} {measure:8} {variant:24} {_percent(compared.accuracy)}"
        lines.append(line + "".join(f"   minus {other}: {_percent(compared.minus[other], sign='+')}" for other in before))
        before.append(variant)
    return lines


def _percent(interval: Interval, sign: str = "") -> str:
    values = (100 * value for value in (interval.mean, interval.low, interval.high))
    return "{:{s}5.1f} ({:{s}.1f} to {:{s}.1f})".format(*values, s=sign)
