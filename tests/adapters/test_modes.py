"""Dropout is for training alone, whatever was loaded and when; and adapters of many settings answer together as each alone in PEFT."""

import json

import pytest
import torch

from bitune import Base, BituneModel, Engine
from bitune.evaluation.scores import Question, answer, score
from bitune.model.maps import attention_maps
from tests.adapters.peft_folders import (
    ANSWER,
    EQUAL,
    GREEDY,
    PROMPT,
    base_of,
    peft_answer,
    peft_scores,
    read_peft,
    write_peft,
)
from tests.tiny import tiny_tokenizer
from tests.unharmed import refused

DROPPING = ["dropout", "dora dropout", "embeddings, dropout"]
TEXT = "Which way?"


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def engine_on(base, **folders) -> Engine:
    engine = Engine(Base(base, tiny_tokenizer(), "tiny", None, None))
    for name, folder in folders.items():
        engine.add_checkpoint(folder, name=name)
    return engine


def texts(engine: Engine) -> dict[str, str]:
    *_, last = engine.stream(TEXT, list(engine.variants), template="none", max_new_tokens=8)
    return {name: completion.text for name, completion in last.completions.items()}


def text_of_peft(model) -> str:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    mask = torch.ones_like(ids)
    tokens = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=258)
    return tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(params=DROPPING)
def dropping(request, tmp_path):
    """A base, a PEFT folder with dropout for it, and what PEFT gives for it in eval mode."""
    family, config = EQUAL[request.param]
    base = base_of(family)
    folder = write_peft(tmp_path / "peft", base, config())
    assert json.loads((folder / "adapter_config.json").read_text())["lora_dropout"] == 0.5
    return base, folder, read_peft(folder, base)


BEFORE = {
    "a base in eval mode": lambda base: base.eval(),
    "a base in train mode": lambda base: base.train(),
    "a base that was trained": lambda base: base.train().eval(),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("trainable", [True, False])
def test_a_model_answers_as_in_peft_s_eval_mode(before, trainable, dropping):
    base, folder, peft = dropping
    expected, tokens = peft_scores(peft), peft_answer(peft)
    BEFORE[before](base)
    model = BituneModel.from_pretrained(folder, base=base, trainable=trainable)
    for _ in range(2):
        assert torch.equal(model.generate(PROMPT, **GREEDY), tokens)
    if trainable:
        model.eval()
    for _ in range(2):
        with torch.no_grad():
            near(model(PROMPT, ANSWER).logits, expected)
    with torch.no_grad():
        dropped = model.train()(PROMPT, ANSWER).logits
        assert torch.equal(model.generate(PROMPT, **GREEDY), tokens), "also between two steps of a training"
        assert not torch.equal(model(PROMPT, ANSWER).logits, dropped), "which drops, and goes on to"
        near(model.eval()(PROMPT, ANSWER).logits, expected)


@pytest.mark.parametrize("before", BEFORE)
def test_all_that_measures_runs_in_eval_mode(before, dropping):
    base, folder, peft = dropping
    expected = peft_scores(peft).log_softmax(-1).gather(-1, ANSWER[..., None]).sum()
    text, tokens = text_of_peft(peft), peft_answer(peft)[0, PROMPT.shape[1] :].tolist()
    BEFORE[before](base)
    engine = engine_on(base, qa=folder)
    BEFORE[before](base)  # loading has put it in eval mode
    modes = [module.training for module in base.modules()]
    variants = {"qa": engine.variants["qa"]}
    maps = []
    for _ in range(2):
        assert texts(engine)["qa"] == text
        ((likelihood,),) = score(engine.manager, variants, [Question(PROMPT[0].tolist(), [ANSWER[0].tolist()])])["qa"]
        assert likelihood.sum == pytest.approx(float(expected), rel=1e-4)
        assert answer(engine.manager, variants, PROMPT.tolist(), 6, ends=[])["qa"] == [tokens]
        maps.append(attention_maps(engine.manager, variants["qa"], PROMPT[0].tolist(), ANSWER[0].tolist(), [0, 3]))
    for name, found in maps[0].passes.items():
        assert (found == maps[1].passes[name]).all()
    assert [module.training for module in base.modules()] == modes, "as it was before"


def test_a_model_that_does_not_learn_leaves_a_training_its_dropout(dropping):
    base, folder, _ = dropping
    learner = BituneModel.from_pretrained(folder, base=base).train()
    BituneModel.from_pretrained(folder, base=base, trainable=False)
    assert base.training
    with torch.no_grad():
        assert not torch.equal(learner(PROMPT, ANSWER).logits, learner(PROMPT, ANSWER).logits)


@pytest.mark.parametrize(
    "names",
    [
        ["embeddings", "rank pattern", "dora, embeddings", "head", "rslora", "dropout"],
        ["adapters tied", "tied embeddings", "tied, head", "tied, input", "tied, dora"],
        ["ia3", "ia3, head", "ia3, expressions"],
        ["gpt2", "gpt2, dora", "gpt2, embeddings", "gpt2, positions"],
    ],
)
def test_together_each_answers_as_alone_in_peft(names, tmp_path):
    family = EQUAL[names[0]][0]
    base = base_of(family)
    folders = {f"n{i}": write_peft(tmp_path / f"n{i}", base, EQUAL[name][1](), seed=i + 1) for i, name in enumerate(names)}
    expected = {name: text_of_peft(read_peft(folder, base)) for name, folder in folders.items()}
    expected["base"] = text_of_peft(base)
    engine = engine_on(base, **folders)
    assert texts(engine) == expected
    engine.remove_checkpoint("n0")
    del expected["n0"]
    assert texts(engine) == expected


def test_an_adapter_that_ties_its_embeddings_comes_before_others_on_them(tmp_path):
    base = base_of("gemma")
    tied = write_peft(tmp_path / "tied", base, EQUAL["adapters tied"][1]())
    other = write_peft(tmp_path / "other", base, EQUAL["tied, head"][1]())
    linear = write_peft(tmp_path / "linear", base, EQUAL["lora"][1]())
    expected = text_of_peft(read_peft(tied, base))
    assert texts(engine_on(base, linear=linear, tied=tied))["tied"] == expected
    base = base_of("gemma")
    engine = engine_on(base, other=other)
    with refused(base, "ensure_weight_tying", "load it first"):
        engine.add_checkpoint(tied)
