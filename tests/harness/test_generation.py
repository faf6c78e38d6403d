"""Answers for lm-eval: stop strings, settings of tasks, sampling."""

import pytest
import torch

from bitune.errors import BituneError
from tests.harness.items import END
from tests.harness.tasks import ask, model


def generate(lm, contexts: list[str], **settings: object) -> list[str]:
    return lm.generate_until(ask("generate_until", *((context, settings) for context in contexts)), disable_tqdm=True)


def test_answers_end_before_the_first_stop_string(work):
    """Of a batch each row for itself; the whole answer without one is known."""
    lm = model(work)
    contexts = ["One", "And two", "A third, longer", "4"]
    whole = generate(lm, contexts, max_gen_toks=24, until=END)
    # As lm-eval's own models, it looks for them in the names of special tokens too, which are not in the answer.
    names = "".join(lm.tokenizer.all_special_tokens)
    stops = [next(c for c in text[3:] if c.isascii() and c.isprintable() and c not in names) for text in whole[:2]]
    stopped = generate(lm, contexts, max_gen_toks=24, until=stops)
    for text, full in zip(stopped, whole, strict=True):
        cut = min([full.find(stop) for stop in stops if stop in full], default=len(full))
        assert text == full[:cut]
    assert sum(a != b for a, b in zip(stopped, whole, strict=True)) >= 2


def test_stopping_saves_steps(work, monkeypatch):
    lm = model(work)
    whole = generate(lm, ["One"], max_gen_toks=12)[0]
    steps = []
    forward = lm._manager.model.forward
    monkeypatch.setattr(lm._manager.model, "forward", lambda *a, **k: steps.append(1) or forward(*a, **k))
    stop = next(c for c in whole if c.isascii())
    assert generate(lm, ["One"], max_gen_toks=12, until=[stop]) == [whole[: whole.index(stop)]]
    assert len(steps) < 12 - 1


def test_settings_of_several_tasks_and_sampling(work):
    lm = model(work, batch_size=2)
    greedy = generate(lm, ["One", "Two"], max_gen_toks=4)
    mixed = [("One", {"max_gen_toks": 4}), ("Two", {"max_gen_toks": 2}), ("Two", {"max_gen_toks": 4})]
    assert lm.generate_until(ask("generate_until", *mixed), disable_tqdm=True)[::2] == greedy
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(generate(lm, ["One", "Two"], max_gen_toks=9, do_sample=True, temperature=1.5))
    assert drawn[0] == drawn[1] != drawn[2]
    assert generate(lm, ["One", "Two"], max_gen_toks=4, do_sample=False, temperature=0.0, num_beams=1) == greedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 3}, "num_beams is 3"),
        ({"top_kk": 3}, "Did you mean 'top_k'"),
        ({"do_sample": True, "temperature": 0}, "temperature is 0"),
        ({"max_gen_toks": 512}, "An answer of 512 tokens leaves no room"),
    ],
)
def test_what_generation_cannot_do_is_refused(work, settings, words):
    with pytest.raises(BituneError, match=words):
        generate(model(work), ["One"], **settings)
