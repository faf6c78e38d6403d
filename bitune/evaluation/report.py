"""What an evaluation says: a prediction for every item and variant, accuracy with its interval, paired differences.

Knows items and predictions as plain values; knows no model and no page.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitune.errors import ConfigError
from bitune.evaluation.intervals import Interval, bootstrap
from bitune.files import read_object
from bitune.outputs import check_file, write_whole

# The measures; `acc` and `acc_norm` are those of lm-evaluation-harness.
ACC = "acc"
ACC_NORM = "acc_norm"
ACC_TOKEN = "acc_token"
ANSWER = "answer"

_KEYS = {"settings", "sets"}  # that every report has
_REPORT_BYTES = 1024**3  # it holds every answer


@dataclass(frozen=True)
class Item:
    """One question: `id` is of the prompt's text (see `item_id`), `label` the index of the correct choice or the correct answer."""

    task: str
    id: str
    label: int | str


@dataclass(frozen=True)
class Report:
    """Predictions on the items of one set, by measure and variant: `predictions[measure][variant][item]`, `hits` alike.

    Measures: where the items have choices `acc` (a prediction is the index of the choice with the highest log-likelihood), `acc_norm`
    (with the highest per character) and `acc_token` (per token), where they have none `answer` (the generated text).
    """

    items: tuple[Item, ...]
    predictions: Mapping[str, Mapping[str, tuple[int | str, ...]]]
    hits: Mapping[str, Mapping[str, tuple[bool, ...]]]

    @classmethod
    def of(
        cls,
        items: tuple[Item, ...],
        predictions: Mapping[str, Mapping[str, tuple[int | str, ...]]],
        is_correct: Callable[[int | str, int | str], bool],
    ) -> "Report":
        """The report of these predictions, of which `is_correct(label, prediction)` says which are hits."""
        hits = {
            measure: {
                name: tuple(is_correct(item.label, predicted) for item, predicted in zip(items, row, strict=True))
                for name, row in by_variant.items()
            }
            for measure, by_variant in predictions.items()
        }
        return cls(items, predictions, hits)

    def accuracy(self, measure: str, variant: str) -> Interval:
        """Share of correct predictions."""
        return bootstrap(self.hits[measure][variant])

    def difference(self, measure: str, variant: str, other: str) -> Interval:
        """Accuracy of `variant` minus that of `other`, paired by item."""
        return bootstrap(self.paired(measure, variant, other))

    def paired(self, measure: str, variant: str, other: str) -> list[float]:
        """For each item 1 where only `variant` is correct, -1 where only `other` is, else 0."""
        pairs = zip(self.hits[measure][variant], self.hits[measure][other], strict=True)
        return [float(a) - float(b) for a, b in pairs]

    def to_dict(self) -> dict:
        """Plain JSON values: items, and by measure and variant the predictions, hits, accuracy and paired differences."""
        measures = {}
        for measure, by_variant in self.predictions.items():
            measures[measure] = {
                name: compared.to_dict()
                | {"predictions": list(by_variant[name]), "hits": [int(hit) for hit in self.hits[measure][name]]}
                for name, compared in comparison(measure, [self]).items()
            }
        items = [{"task": item.task, "id": item.id, "right": item.label} for item in self.items]
        return {"items": items, "measures": measures}


@dataclass(frozen=True)
class Compared:
    """A variant's accuracy, and by name of each other variant how much it is ahead of it, paired by item."""

    accuracy: Interval
    minus: Mapping[str, Interval]

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return {"accuracy": vars(self.accuracy), "minus": {other: vars(ahead) for other, ahead in self.minus.items()}}


def comparison(measure: str, reports: Sequence[Report]) -> dict[str, Compared]:
    """Every variant by name; of several sets their average, sets weighing alike."""
    names = list(reports[0].hits[measure])
    return {
        name: Compared(
            bootstrap(*(r.hits[measure][name] for r in reports)),
            {other: bootstrap(*(r.paired(measure, name, other) for r in reports)) for other in names if other != name},
        )
        for name in names
    }


def averages(reports: Sequence[Report]) -> dict[tuple[str, int], dict[str, Compared]]:
    """The comparison over all sets that share a measure, by measure and number of sets; nothing for a measure of one set alone."""
    compared = {}
    for measure in dict.fromkeys(measure for report in reports for measure in report.hits):
        shared = [report for report in reports if measure in report.hits]
        if len(shared) > 1:
            compared[measure, len(shared)] = comparison(measure, shared)
    return compared


def write_reports(file: str | os.PathLike, settings: Mapping[str, object], reports: Mapping[str, Report]) -> None:
    """One JSON file {"settings", "sets": {source: Report.to_dict()}, "averages": {measure: {"sets": how many, "variants": ...}}}, whole or
    not at all."""
    by_measure = {
        measure: {"sets": sets, "variants": {name: compared.to_dict() for name, compared in variants.items()}}
        for (measure, sets), variants in averages(list(reports.values())).items()
    }
    sets = {source: report.to_dict() for source, report in reports.items()}
    write_json(file, {"settings": settings, "sets": sets, "averages": by_measure})


def write_json(file: str | os.PathLike, content: Mapping[str, object]) -> None:
    """One line of JSON, whole or not at all."""
    write_whole(Path(file), json.dumps(content, ensure_ascii=False) + "\n")


def check_report_file(file: Path) -> None:
    """ConfigError unless a report can be written to `file`: it is new, empty, or an older report."""
    check_file(file)
    if not file.exists() or not file.stat().st_size:
        return
    try:
        is_report = read_object(file, ConfigError, _REPORT_BYTES).keys() >= _KEYS
    except ConfigError:  # no JSON object
        is_report = False
    if not is_report:
        raise ConfigError(f"{str(file)!r} is no report of an evaluation, and one would replace it; name a new file.")


def item_id(prompt: str) -> str:
    """The first 12 hex digits of the SHA-256 of a prompt: names an item where its text may not be passed on."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]
