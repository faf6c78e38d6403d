"""Named sources -> whole data sets: what is trained on and validated with, and what is scored. Knows tokenizers; knows no model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

from bitune.data.examples import Example, content_of, have_choices, load_examples, split_of, split_validation
from bitune.data.tokens import Tokenized, to_measure, tokenize_all
from bitune.errors import ConfigError, DataError


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on and validated with, and the names of the sources it comes from."""

    sources: tuple[str, ...]
    train: Tokenized
    validation: Tokenized

    def facts(self) -> dict[str, object]:
        """What a checkpoint keeps about its data, as plain JSON values."""
        return {"sources": list(self.sources), "examples": len(self.train.pairs), "validation": len(self.validation.pairs)}


def load_training_data(
    sources: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    max_answer_tokens: int,
    validation: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
) -> TrainingData:
    """Read sources, hold some of their examples out, and tokenize both parts.

    Args:
        sources: JSON Lines files, or Hub data sets as `id` or `id:config`, whose split `train` is read.
        tokenizer: the base's.
        max_prompt_tokens, max_answer_tokens: as in `tokenize_all`.
        validation: examples held out, a share below 1 or a number from 1 on.
        limit: use only so many examples, drawn by the seed; None: all.
        seed: the same one draws the same examples.

    Raises:
        DataError: no answer is short enough to train on.
    """
    examples = [example for source in sources for example in load_examples(source)]
    if limit:
        examples, _ = split_validation(examples, max(0, len(examples) - limit), seed)
    if validation >= 1 and validation % 1:
        raise ConfigError(
            f"A validation part of {validation} is no share below 1 and no whole number of examples; give one of them."
        )
    parts = split_validation(examples, validation if validation < 1 else int(validation), seed)
    train, held_out = (tokenize_all(part, tokenizer, max_prompt_tokens, max_answer_tokens) for part in parts)
    if not train.pairs:
        raise DataError(
            f"None of the {train.dropped:,} examples to train on has an answer of at most {max_answer_tokens} tokens, its end token "
            "included; give a larger --max-answer-tokens."
        )
    return TrainingData(tuple(Path(source).name for source in sources), train, held_out)


def load_evaluation_sets(sources: Sequence[str], split: str) -> dict[str, list[Example]]:
    """The examples of each source by its name: a file's, or those of a split of a Hub data set. ConfigError for a source given twice."""
    repeated = next((source for source in sources if sources.count(source) > 1), None)
    if repeated:
        raise ConfigError(f"--data {repeated} is given twice; give it once.")
    return {source: load_examples(source, split_of(source, split)) for source in sources}


def trained_prompts(sources: Sequence[str]) -> dict[str, set[tuple[str, ...]]]:
    """By source `content_of` all its prompts: of a file, or of the part of a Hub data set that is for training."""
    return {source: {content_of(example.prompt) for example in load_examples(source)} for source in sources}


def select_items(
    sets: Mapping[str, Sequence[Example]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int | None = None,
    max_answer_tokens: int | None = None,
    limit: int | None = None,
    trained_on: Mapping[str, Collection[tuple[str, ...]]] = MappingProxyType({}),
) -> dict[str, list[Example]]:
    """What of each set is scored.

    Args:
        sets: examples by source, as `load_evaluation_sets` returns them.
        tokenizer: the base's.
        max_prompt_tokens, max_answer_tokens, limit: as in `to_measure`.
        trained_on: prompts that are left out, as `trained_prompts` returns them.

    Raises:
        DataError: a set of which nothing is left, or that holds questions with choices and open ones.
    """
    limits = (max_prompt_tokens, max_answer_tokens, limit)
    left_out = set().union(*trained_on.values())
    selected = {source: to_measure(examples, tokenizer, *limits, left_out) for source, examples in sets.items()}
    for source, examples in selected.items():
        if not examples:
            flags = [f"--max-{what}-tokens {most}" for what, most in zip(("prompt", "answer"), limits, strict=False) if most]
            flags += [f"--leave-out {name}" for name in trained_on]
            raise DataError(f"{source} holds {len(sets[source])} records, and {' and '.join(flags)} leave none; leave out less.")
        have_choices(examples, source)
    return selected
