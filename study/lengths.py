"""Where a row of the table is ahead: its difference by length of prompt. Needs the questions' texts, which results do not hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from bitune.data.encoding import prompt_ids
from bitune.data.examples import load_examples
from bitune.errors import DataError
from bitune.evaluation.intervals import Interval
from bitune.evaluation.report import item_id
from study.plan import Setting
from study.table import Row, difference, measure_of, shown

PARTS = 3


@dataclass(frozen=True)
class Part:
    """The items whose prompts have `low` to `high` tokens: how many, and the difference on them."""

    low: int
    high: int
    items: int
    difference: Interval


def prompt_lengths(setting: Setting, data: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Tokens of every prompt in the test files of the averaged tasks, by item id."""
    prompts = sorted({e.prompt for task in setting.averaged for e in load_examples(data / f"{task}.test.jsonl")})
    return {item_id(prompt): len(ids) for prompt, ids in zip(prompts, prompt_ids(prompts, tokenizer), strict=True)}


def by_length(setting: Setting, row: Row, against: Row, lengths: Mapping[str, int]) -> list[Part]:
    """`row` minus `against` on the shortest, middle and longest third of the items of the averaged tasks, all tasks in one.

    DataError where the length of an item is not known.
    """
    tasks = row.results[0]["measured"]
    unknown = sum(key not in lengths for task in setting.averaged for key in tasks[task]["ids"])
    if unknown:
        raise DataError(f"{unknown:,} of the measured questions are not in the data; name the folder that the study ran with.")
    tokens = np.array([lengths[key] for task in setting.averaged for key in tasks[task]["ids"]])
    edges = np.quantile(tokens, np.linspace(0, 1, PARTS + 1)[1:-1])
    third = np.searchsorted(edges, tokens, side="right")

    def hits(side: Row, items: np.ndarray) -> list[np.ndarray]:
        return [np.concatenate([side.hits(task, measure_of(tasks[task])) for task in setting.averaged], axis=1)[:, items]]

    parts = []
    for items in (third == number for number in range(PARTS) if number in third):
        ahead = difference(row, against, lambda side, items=items: hits(side, items))
        parts.append(Part(int(tokens[items].min()), int(tokens[items].max()), int(items.sum()), ahead))
    return parts


def markdown(setting: Setting, row: Row, against: Row, parts: Sequence[Part]) -> str:
    """The parts as a table."""
    lines = [f"| {setting.title}: tokens of the prompt | items | {row.name} minus {against.name} |", "|---|---|---|"]
    lines += [f"| {part.low} to {part.high} | {part.items} | {shown(vars(part.difference))} |" for part in parts]
    return "\n".join(lines)
