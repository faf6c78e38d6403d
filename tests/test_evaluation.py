"""Scores against a brute force that re-reads every prompt for every choice."""

import pytest
import torch

from bitune import Engine
from bitune.data import Example
from bitune.evaluation import Question, accuracy, question, score
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
    return engine.host, variants, models, questions


def test_scores_equal_a_brute_force(setting):
    host, variants, models, questions = setting
    scores = score(host, variants, questions, batch_size=2)
    for name, model in models.items():
        for q, row in zip(questions, scores[name], strict=True):
            for choice, found in zip(q.choices, row, strict=True):
                with torch.no_grad():
                    loss = model(torch.tensor([q.prompt_ids]), torch.tensor([choice])).loss
                assert found == pytest.approx(-loss.item() * len(choice), abs=1e-3)
    for q, row in zip(questions, scores["base"], strict=True):
        for choice, found in zip(q.choices, row, strict=True):
            whole = torch.tensor([[*q.prompt_ids, *choice]])
            with torch.no_grad():
                log = host.model(whole).logits.log_softmax(-1)[0, len(q.prompt_ids) - 1 : -1]
            assert found == pytest.approx(log.gather(-1, whole[0, len(q.prompt_ids) :, None]).sum().item(), abs=1e-3)


def test_batches_do_not_change_scores(setting):
    host, variants, _, questions = setting
    one, many = score(host, variants, questions, batch_size=1), score(host, variants, questions, batch_size=5)
    for name in variants:
        for a, b in zip(one[name], many[name], strict=True):
            assert a == pytest.approx(b, abs=1e-3)


def test_accuracy_by_sum_and_by_mean():
    questions = [Question([1], [[1], [1, 1, 1, 1]], label) for label in (0, 1)]
    # By sum the short choice wins (-2 > -4), by mean a token the long one (-1 > -2).
    result = accuracy(questions, [[-2.0, -4.0], [-2.0, -4.0]])
    assert (result.questions, result.by_sum, result.by_mean) == (2, 0.5, 0.5)
    assert accuracy(questions[:1], [[-2.0, -4.0]]).by_sum == 1.0
    assert accuracy(questions[:1], [[-2.0, -4.0]]).by_mean == 0.0


def test_questions_hold_the_choices_as_trained(setting):
    tokenizer = tiny_base().tokenizer
    q = question(Example("t", "Q:", " yes", (" yes", " no"), 0), tokenizer)
    assert tokenizer.decode(q.choices[1]) == " no"
    assert tokenizer.decode(q.prompt_ids) == "Q:"
