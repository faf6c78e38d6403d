"""Scores against a brute force that re-reads every prompt for every choice; answers against generate, one at a time."""

import pytest
import torch

from bitune import Engine
from bitune.data.examples import Example
from bitune.errors import DataError
from bitune.evaluation.scores import (
    Likelihood,
    Question,
    acc_norm_prediction,
    acc_prediction,
    acc_token_prediction,
    answer,
    question,
    score,
)
from bitune.model.likelihoods import tokens_to_read
from tests.closeness import assert_clear, assert_close
from tests.greedy import greedy
from tests.tiny import bitune_on, ids, tiny_base


@pytest.fixture(scope="module")
def setting():
    base = tiny_base()
    models = {"qa": bitune_on(base, seed=1), "dora": bitune_on(base, "no_mixing", "dora", seed=2)}
    engine = Engine(base)
    questions = [
        Question(prompt[0].tolist(), [choice[0].tolist() for choice in ids(3, 1, 5, seed=10 + i)], i % 3)
        for i, prompt in enumerate(ids(9, 1, 4, 17, 2))
    ]
    variants = {**engine.variants, **{name: model.variant for name, model in models.items()}}
    return engine.manager, variants, models, questions


def reread(manager, model, prompt, choice) -> torch.Tensor:
    """Logits [choice, vocabulary] of a choice after its prompt, read by itself; `model` None is the base."""
    with torch.no_grad():
        if model is not None:
            return model(torch.tensor([prompt]), torch.tensor([choice])).logits[0]
        return manager.model(torch.tensor([[*prompt, *choice]])).logits[0, len(prompt) - 1 : -1]


def test_scores_equal_a_brute_force(setting):
    manager, variants, models, questions = setting
    scores = score(manager, variants, questions, batch_size=2)
    for name in variants:
        for q, row in zip(questions, scores[name], strict=True):
            for choice, likelihood in zip(q.choices, row, strict=True):
                logits = reread(manager, models.get(name), q.prompt_ids, choice)
                log = logits.log_softmax(-1)[range(len(choice)), choice]
                assert_close(likelihood.sum, log.sum().item())
                assert_clear(logits)
                assert likelihood.greedy == (logits.argmax(-1).tolist() == list(choice))


def test_what_greedy_decoding_says_is_greedy(setting):
    """Of two choices, the one that the model itself would say is marked, the other is not."""
    manager, variants, models, questions = setting
    for name in variants:
        greedy = []
        for _ in range(3):
            logits = reread(manager, models.get(name), questions[1].prompt_ids, [*greedy, 0])
            greedy.append(int(logits[-1].argmax()))
        other = [greedy[0], greedy[1], (greedy[2] + 1) % 200]
        ((row,),) = score(manager, {name: variants[name]}, [Question(questions[1].prompt_ids, [greedy, other])]).values()
        assert [likelihood.greedy for likelihood in row] == [True, False]


def test_what_choices_begin_with_alike_is_read_once(setting):
    """Of three choices that begin alike, and one that another goes on from, each has the scores of itself alone; one forward reads
    every distinct beginning of a question once, and the head runs on these alone."""
    manager, variants, _, _ = setting
    prompt, shared = ids(7, 2, seed=30)
    prompt, shared = prompt[0].tolist(), shared[0].tolist()
    choices = [[*shared, 5], [*shared, 6, 7], shared, [9], [*shared, 6, 8]]
    asked = [Question(prompt, choices), Question(prompt[:4], [[3], [4]])]
    assert [tokens_to_read(one.choices) for one in asked] == [4, 1]
    shapes = []
    hook = manager.model.get_output_embeddings().register_forward_hook(lambda _, given, out: shapes.append(tuple(out.shape[:2])))
    try:
        together = score(manager, {"base": variants["base"]}, asked)["base"]
    finally:
        hook.remove()
    assert shapes == [(1, 5)]
    for name in variants:
        together = score(manager, variants, asked)[name]
        for one, row in zip(asked, together, strict=True):
            for choice, value in zip(one.choices, row, strict=True):
                ((alone,),) = score(manager, {name: variants[name]}, [Question(one.prompt_ids, [choice])])[name]
                assert_close(value.sum, alone.sum)
                assert value.greedy == alone.greedy


def test_batches_do_not_change_scores(setting):
    manager, variants, _, questions = setting
    one, many = score(manager, variants, questions, batch_size=1), score(manager, variants, questions, batch_size=5)
    for name in variants:
        for a, b in zip(one[name], many[name], strict=True):
            assert_close([x.sum for x in a], [x.sum for x in b])


def test_answers_are_those_of_generate(setting):
    """Batched, padded and beside other variants as each model alone; the end token and what follows are not in them."""
    manager, variants, models, questions = setting
    prompts = [q.prompt_ids for q in questions]
    answers = answer(manager, variants, prompts, max_new_tokens=6, batch_size=3, ends=[257])
    end = manager.model.generation_config.eos_token_id
    assert end == 257
    for name in variants:
        for prompt, tokens in zip(prompts, answers[name], strict=True):
            model = models.get(name, manager.model)
            alone = greedy(model, torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=end)[
                0, len(prompt) :
            ].tolist()
            assert tokens == (alone[: alone.index(end)] if end in alone else alone)
    assert any(answers["qa"])


def test_a_base_that_wants_no_cache_answers_from_the_mixed_one(setting, caplog):
    """`use_cache: false` in a base's generation_config.json would read the prompt anew, past what was mixed."""
    manager, variants, models, questions = setting
    prompts = [question.prompt_ids for question in questions]
    expected = answer(manager, variants, prompts, max_new_tokens=6, ends=[257])
    ids_of_one = torch.tensor([prompts[0]])
    tokens = models["qa"].generate(ids_of_one, max_new_tokens=6, do_sample=False)
    defaults = manager.model.generation_config
    defaults.use_cache = False
    try:
        assert answer(manager, variants, prompts, max_new_tokens=6, ends=[257]) == expected
        assert torch.equal(models["qa"].generate(ids_of_one, max_new_tokens=6, do_sample=False), tokens)
    finally:
        defaults.use_cache = True
    assert "deprecated" not in caplog.text


def lm_evals(folder, likelihoods: list[Likelihood], choices: list[str]) -> dict[str, int]:
    """The choice that lm-eval itself predicts, by measure: the one that is right when it is the target."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.api.task import ConfigurableTask

    predicted, file = {}, folder / "one.jsonl"
    file.write_text('{"question": "x"}\n')
    for target in range(len(choices)):
        task = ConfigurableTask(
            config={
                "task": "t",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder)},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "x",
                "doc_to_choice": choices,
                "doc_to_target": target,
                "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
            }
        )
        result = task.process_results({"question": "x"}, [tuple(likelihood) for likelihood in likelihoods])
        predicted |= {measure: target for measure in ("acc", "acc_norm") if result[measure] == 1.0}
    return predicted


@pytest.mark.parametrize(
    ("sums", "choices"),
    [
        ([-2.0, -4.0], ["a", "long one"]),
        ([-3.0, -3.0, -3.0], ["ab", "ba", "cc"]),
        ([-6.0, -4.0], ["äöüß", "abc"]),  # per byte the first would win
        ([-1.0, -8.0, -2.5], ["x", "eight letters and more", "dog"]),
    ],
)
def test_acc_and_acc_norm_are_lm_evals(sums, choices, tmp_path):
    scores = [Likelihood(value, False) for value in sums]
    texts = [f" {choice}" for choice in choices]  # as they follow a prompt
    assert {"acc": acc_prediction(scores), "acc_norm": acc_norm_prediction(scores, texts)} == lm_evals(tmp_path, scores, choices)


def test_best_per_token_and_no_number():
    # By the sum the short choice wins (-2 > -4), by the mean per token the long one (-1 > -2).
    scores = [Likelihood(-2.0, False), Likelihood(-4.0, True)]
    assert acc_token_prediction(scores, [[1], [1, 1, 1, 1]]) == 1
    for best in (acc_prediction, lambda scores: acc_norm_prediction(scores, ["a", "b"])):
        with pytest.raises(DataError, match="no number"):
            best([Likelihood(-2.0, False), Likelihood(float("nan"), False)])


def test_questions_hold_the_choices_as_trained(setting):
    tokenizer = tiny_base().tokenizer
    q = question(Example("t", "Q:", " yes", (" yes", " no"), 0), tokenizer)
    assert tokenizer.decode(q.choices[1]) == " no"
    assert tokenizer.decode(q.prompt_ids) == "Q:"
