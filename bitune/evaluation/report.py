"""What an evaluation found: a prediction for every item and variant, accuracy with its interval, paired differences.

Knows examples and the scores of evaluation.py; knows no page.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from bitune.adapters.manager import AdapterManager
from bitune.data.examples import Example
from bitune.errors import ConfigError, DataError
from bitune.evaluation.scores import answer, by_mean, by_sum, question, score
from bitune.model.generation_config import end_tokens
from bitune.schema.variants import Variant

RESAMPLES = 10_000
_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_TOLERANCE = 1e-3  # MAWPS answers are rounded


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval of it over items drawn anew."""

    mean: float
    low: float
    high: float


def bootstrap(*groups: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile bootstrap of a mean of values, one an item; of several groups (tasks, say), of the average of their means.

    For the difference between two variants subtract item by item first: then it is paired. ConfigError for a group without values.
    """
    if not groups or not all(map(len, groups)):
        raise ConfigError("There is no item, so there is no accuracy; give at least one.")
    generator = np.random.default_rng(seed)
    drawn = np.mean([_resampled(np.asarray(values, np.float64), generator, resamples) for values in groups], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.mean([np.mean(values) for values in groups])), float(low), float(high))


def _resampled(values: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    # Few distinct values: how often each is drawn is all that counts, so a million items cost what ten do.
    levels, counts = np.unique(values, return_counts=True)
    return generator.multinomial(values.size, counts / values.size, size=resamples) @ levels / values.size


@dataclass(frozen=True)
class Item:
    """What was asked: `id` is of the prompt's text (see `item_id`), `right` the index of the right choice or the right answer."""

    task: str
    id: str
    right: int | str


@dataclass(frozen=True)
class Report:
    """Predictions on the items of one set, by measure and variant: `predictions[measure][variant][item]`, `hits` alike.

    Measures: `sum` and `mean` (index of the choice with the highest log-likelihood, in all or a token) where the items have
    choices, `answer` (text) where they have not.
    """

    items: tuple[Item, ...]
    predictions: Mapping[str, Mapping[str, tuple[int | str, ...]]]
    hits: Mapping[str, Mapping[str, tuple[bool, ...]]]

    def accuracy(self, measure: str, variant: str) -> Interval:
        """Share of right predictions."""
        return bootstrap(self.hits[measure][variant])

    def difference(self, measure: str, variant: str, other: str) -> Interval:
        """Accuracy of `variant` minus that of `other`, paired by item."""
        return bootstrap(self.paired(measure, variant, other))

    def paired(self, measure: str, variant: str, other: str) -> list[float]:
        """For each item 1 where only `variant` is right, -1 where only `other` is, else 0."""
        pairs = zip(self.hits[measure][variant], self.hits[measure][other], strict=True)
        return [float(a) - float(b) for a, b in pairs]

    def to_dict(self) -> dict:
        """Plain JSON values: items, and by measure and variant the predictions, hits, accuracy and paired differences."""
        measures = {}
        for measure, by_variant in self.predictions.items():
            measures[measure] = {
                name: _plain(compared)
                | {"predictions": list(by_variant[name]), "hits": [int(hit) for hit in self.hits[measure][name]]}
                for name, compared in comparison(measure, [self]).items()
            }
        return {"items": [vars(item) for item in self.items], "measures": measures}


@dataclass(frozen=True)
class Compared:
    """A variant's accuracy, and by name of each other variant how much it is ahead of it, paired by item."""

    accuracy: Interval
    minus: Mapping[str, Interval]


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
    found = {}
    for measure in dict.fromkeys(measure for report in reports for measure in report.hits):
        shared = [report for report in reports if measure in report.hits]
        if len(shared) > 1:
            found[measure, len(shared)] = comparison(measure, shared)
    return found


def lines_of(name: str, report: Report) -> list[str]:
    """The report as text: a line a measure and variant, in percent with intervals, and the differences to the variants before it."""
    return [line for measure in report.hits for line in _lines(name, measure, comparison(measure, [report]))]


def average_lines(reports: Sequence[Report]) -> list[str]:
    """Likewise the averages."""
    found = averages(reports).items()
    return [line for (measure, sets), compared in found for line in _lines(f"average of {sets}", measure, compared)]


def _lines(name: str, measure: str, compared: Mapping[str, Compared]) -> list[str]:
    lines, before = [], []
    for variant, found in compared.items():
        line = f"{name:28} {measure:6} {variant:24} {_percent(found.accuracy)}"
        lines.append(line + "".join(f"   minus {other}: {_percent(found.minus[other], sign='+')}" for other in before))
        before.append(variant)
    return lines


def _plain(compared: Compared) -> dict:
    return {"accuracy": vars(compared.accuracy), "minus": {other: vars(found) for other, found in compared.minus.items()}}


def _percent(interval: Interval, sign: str = "") -> str:
    values = (100 * value for value in (interval.mean, interval.low, interval.high))
    return "{:{s}5.1f} ({:{s}.1f} to {:{s}.1f})".format(*values, s=sign)


def write_reports(file: str | os.PathLike, settings: Mapping[str, object], reports: Mapping[str, Report]) -> None:
    """One JSON file {"settings", "sets": {source: Report.to_dict()}, "averages": {measure: {"sets": how many, "variants": ...}}}, whole or
    not at all."""
    over = {
        measure: {"sets": sets, "variants": {name: _plain(found) for name, found in compared.items()}}
        for (measure, sets), compared in averages(list(reports.values())).items()
    }
    sets = {source: report.to_dict() for source, report in reports.items()}
    write_json(file, {"settings": settings, "sets": sets, "averages": over})


def write_json(file: str | os.PathLike, content: Mapping[str, object]) -> None:
    """One line of JSON, whole or not at all."""
    beside = Path(f"{os.fspath(file)}.part")
    beside.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(file)


def item_id(prompt: str) -> str:
    """The first 12 hex digits of the SHA-256 of a prompt: names an item where its text may not be passed on."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]


def have_choices(examples: Sequence[Example], where: str = "The set") -> bool:
    """Whether they are all questions with choices, or all open ones; DataError, which names `where`, for both kinds or none."""
    kinds = {example.choices is not None for example in examples}
    if not kinds:
        raise DataError(f"{where} holds no item to evaluate on; name another, or allow longer prompts.")
    if len(kinds) > 1:
        raise DataError(f"{where} holds questions with choices and open ones; split it in two files.")
    return kinds.pop()


def evaluate(
    manager: AdapterManager,
    variants: Mapping[str, Variant],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 8,
    max_new_tokens: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Run every variant on every example: choices by log-likelihood, open answers by greedy generation.

    Examples must be of one kind; DataError if some have choices and some have not. Processes share the work, see evaluation.
    """
    if have_choices(examples):
        return _by_choice(manager, variants, examples, tokenizer, batch_size, progress)
    return _by_answer(manager, variants, examples, tokenizer, batch_size, max_new_tokens, progress)


def _by_choice(manager, variants, examples, tokenizer, batch_size, progress) -> Report:
    questions = [question(example, tokenizer) for example in examples]
    scores = score(manager, variants, questions, batch_size, progress)
    items = tuple(Item(e.task, item_id(e.prompt), e.label) for e in examples)
    predictions: dict = {"sum": {}, "mean": {}}
    for name, rows in scores.items():
        predictions["sum"][name] = tuple(by_sum(row) for row in rows)
        predictions["mean"][name] = tuple(by_mean(row, q.choices) for row, q in zip(rows, questions, strict=True))
    return _report(items, predictions, lambda item, predicted: predicted == item.right)


def _by_answer(manager, variants, examples, tokenizer, batch_size, max_new_tokens, progress) -> Report:
    prompts = [tokenizer(example.prompt).input_ids for example in examples]
    ends = end_tokens(manager.model, tokenizer)
    answers = answer(manager, variants, prompts, max_new_tokens, batch_size, progress, ends=ends)
    items = tuple(Item(e.task, item_id(e.prompt), e.answer.strip()) for e in examples)
    texts = {name: tuple(tokenizer.decode(ids).strip() for ids in rows) for name, rows in answers.items()}
    return _report(items, {"answer": texts}, lambda item, predicted: same_answer(predicted, item.right))


def _report(items: tuple[Item, ...], predictions: dict, right: Callable[[Item, int | str], bool]) -> Report:
    hits = {
        measure: {name: tuple(right(i, p) for i, p in zip(items, row, strict=True)) for name, row in by_variant.items()}
        for measure, by_variant in predictions.items()
    }
    return Report(items, predictions, hits)


def same_answer(predicted: str, right: str) -> bool:
    """Whether an open answer is right.

    Where the right one is a number, or ends in `#### number` as worked solutions of GSM8K do, the last number of the prediction
    counts (in its own `####` line if it has one); else the texts must agree but for case and white space.
    """
    wanted = number_of(right) if "####" in right or _NUMBER.fullmatch(right.strip()) else None
    if wanted is not None:
        found = number_of(predicted)
        return found is not None and abs(found - wanted) <= _TOLERANCE
    return " ".join(predicted.split()).casefold() == " ".join(right.split()).casefold()


def number_of(text: str) -> float | None:
    """The last number of a text, or the first after its last `####`; None without one. Thousands may have commas."""
    _, marked, tail = text.rpartition("####")
    found = _NUMBER.findall(tail)
    return float((found[0] if marked else found[-1]).replace(",", "")) if found else None
