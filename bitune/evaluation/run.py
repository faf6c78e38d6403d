"""Run variants on examples and report what they predict: choices by log-likelihood, open answers by greedy generation."""

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from bitune.adapters.manager import AdapterManager
from bitune.data.encoding import prompt_ids
from bitune.data.examples import Example, have_choices
from bitune.evaluation.answers import same_answer
from bitune.evaluation.report import ACC, ACC_NORM, ACC_TOKEN, ANSWER, Item, Report, item_id
from bitune.evaluation.scores import acc_norm_prediction, acc_prediction, acc_token_prediction, answer, question, score
from bitune.model.generation_config import end_tokens
from bitune.schema.variants import Variant


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
    """Run every variant on every example. Under `accelerate launch` the processes share the work, and each has the whole report.

    Args:
        manager: of the base that the variants run on.
        variants: what is compared, by name.
        examples: all with choices, or all without.
        tokenizer: the base's.
        batch_size: prompts at a time.
        max_new_tokens: of an open answer.
        progress: called with the number of examples that were done since the last call.

    Raises:
        DataError: no example, both kinds of them, or one that does not fit into the model's context or holds no token.
    """
    if have_choices(examples):
        return _score_choices(manager, variants, examples, tokenizer, batch_size, progress)
    return _generate_answers(manager, variants, examples, tokenizer, batch_size, max_new_tokens, progress)


def _score_choices(manager, variants, examples, tokenizer, batch_size, progress) -> Report:
    questions = [question(example, tokenizer) for example in examples]
    scores = score(manager, variants, questions, batch_size, progress)
    items = tuple(Item(e.task, item_id(e.prompt), e.label) for e in examples)
    rules = {
        ACC: lambda values, example, asked: acc_prediction(values),
        ACC_NORM: lambda values, example, asked: acc_norm_prediction(values, example.choices),
        ACC_TOKEN: lambda values, example, asked: acc_token_prediction(values, asked.choices),
    }
    predictions = {
        measure: {
            name: tuple(rule(*row) for row in zip(by_question, examples, questions, strict=True))
            for name, by_question in scores.items()
        }
        for measure, rule in rules.items()
    }
    return Report.of(items, predictions, lambda label, predicted: predicted == label)


def _generate_answers(manager, variants, examples, tokenizer, batch_size, max_new_tokens, progress) -> Report:
    prompts = prompt_ids([example.prompt for example in examples], tokenizer)
    ends = end_tokens(manager.model, tokenizer)
    answers = answer(manager, variants, prompts, max_new_tokens, batch_size, progress, ends=ends)
    items = tuple(Item(e.task, item_id(e.prompt), e.answer.strip()) for e in examples)
    texts = {
        name: tuple(tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in by_prompt)
        for name, by_prompt in answers.items()
    }
    return Report.of(items, {ANSWER: texts}, lambda label, predicted: same_answer(predicted, label))
