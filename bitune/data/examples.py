"""Records -> prompt and answer texts, and which of them are for training. Knows no tokenizer and no model.

One record a line, in one of three shapes: a question with `choices` and the `label` of the right one; a question with an
`answer`; a complete `prompt` with an `answer`. The prompt texts are those of Bitune (arXiv 2405.14862); `choices_first`, in which the
choices stand before the question, is ours.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

from bitune.data.records import load_records
from bitune.errors import ConfigError, DataError
from bitune.files import local_path


@dataclass(frozen=True)
class Example:
    """What the model reads and what it should answer, as text. The end token follows as a token, not as text.

    `choices` are all possible answers in the very form of `answer`, so that `choices[label] == answer`; None with an open answer.
    """

    task: str
    prompt: str
    answer: str
    choices: tuple[str, ...] | None = None
    label: int | None = None


def load_examples(source: str | os.PathLike, split: str | None = None) -> list[Example]:
    """The examples of a JSON Lines file or of a Hub data set `id` or `id:config`; arguments and errors as in `load_records`."""
    return [example_of(record) for record in load_records(source, split)]


def split_of(source: str | os.PathLike, hub_split: str) -> str | None:
    """The `split` to give to `load_examples`: None for a file, which holds one split alone, and `hub_split` for a Hub data set."""
    return None if local_path(source, DataError).is_file() else hub_split


def example_of(record: dict) -> Example:
    """The texts of one record as `load_records` returns it."""
    if "prompt" in record:
        return Example(record["task"], record["prompt"], joined(record["prompt"], record["answer"]))
    if "choices" not in record:
        prompt = f"Question: {record['question']}\n\nAnswer:"
        return Example(record["task"], prompt, joined(prompt, record["answer"]))
    listed = "\n".join(record["choices"])
    parts = [f"Question: {record['question']}", f"Choices:\n{listed}"]
    if record.get("choices_first"):
        parts.reverse()
    prompt = "\n\n".join([*parts, "Answer:"])
    choices = tuple(joined(prompt, choice) for choice in record["choices"])
    return Example(record["task"], prompt, choices[record["label"]], choices, record["label"])


def joined(prompt: str, answer: str) -> str:
    """The answer as it follows the prompt: after a space, unless the prompt ends in white space or the answer begins with it.

    The space belongs to the answer because a tokenizer reads it as the beginning of the next word.
    """
    return answer if prompt[-1:].isspace() or answer[:1].isspace() else " " + answer


def content_of(prompt: str) -> tuple[str, ...]:
    """A prompt's lines but for case, white space and order: a question with its choices in another order is the same question."""
    return tuple(sorted(" ".join(line.split()).casefold() for line in prompt.splitlines() if line.strip()))


def have_choices(examples: Sequence[Example], source: str = "The set") -> bool:
    """Whether they are all questions with choices, or all open ones; DataError, which names `source`, for both kinds or none."""
    kinds = {example.choices is not None for example in examples}
    if not kinds:
        raise DataError(f"{source} holds no item to evaluate on; name another, or allow longer prompts.")
    if len(kinds) > 1:
        raise DataError(f"{source} holds questions with choices and open ones; split it in two files.")
    return kinds.pop()


def split_validation(examples: Sequence[Example], part: float | int, seed: int) -> tuple[list[Example], list[Example]]:
    """Draw validation examples out of the training data.

    Args:
        examples: what is split; both parts keep its order.
        part: how many are for validation: a count (int), or a share below 1 (float).
        seed: the same one draws the same examples.

    Returns:
        Examples to train on, examples to validate with.

    Raises:
        ConfigError: nothing would be left to train on, or `part` is negative.
    """
    count = round(part * len(examples)) if isinstance(part, float) else part
    if part < 0 or (isinstance(part, float) and part >= 1) or (count >= len(examples) and count > 0):
        raise ConfigError(f"A validation part of {part} out of {len(examples)} examples leaves nothing to train on; choose less.")
    drawn = set(random.Random(seed).sample(range(len(examples)), count))
    train = [example for i, example in enumerate(examples) if i not in drawn]
    return train, [examples[i] for i in sorted(drawn)]
