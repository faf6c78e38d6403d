"""Conversations through the engine: recompute is a prompt of the same text, alternating goes on from what was kept; errors in words."""

import pytest
import torch
from transformers import DynamicCache

from bitune import ConfigError, Engine, MixingRatios, PromptError, Turn, UnknownNameError
from bitune.modeling.interface import cache_input
from bitune.schema.conversation import EARLIER
from bitune.schema.variants import WhatIf
from tests.greedy import greedy
from tests.tiny import END, bitune_on, tiny_base

FIRST, SECOND, THIRD = "Which way does it read?", "And why?", "Since when?"
SETTINGS = {"max_new_tokens": 10}
CHATML = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Base, Bitune and LoRA, each checkpoint with a template of its own."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = tiny_base()
    base.tokenizer.chat_template = CHATML
    for seed, method in enumerate(["bitune", "lora"], 1):
        model = bitune_on(base, method, "lora", seed, prompt_template=f"{method}: {{prompt}}\nA:")
        model.save_pretrained(folder / method)
        model.release()
    engine = Engine(base)
    for method in ("bitune", "lora"):
        engine.add_checkpoint(folder / method)
    engine.manager.passes.limit = 2**22
    return engine


def last(engine, prompt, names, **settings):
    *_, update = engine.stream(prompt, names, **SETTINGS | settings)
    return update


@pytest.fixture(scope="module")
def history(engine):
    """Two turns of all three variants, each with its own answers."""
    return [Turn(prompt, {name: f" {name} says so." for name in engine.variants}) for prompt in (FIRST, SECOND)]


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("template", ["own", "chat", "none"])
def test_recompute_is_a_fresh_prompt_of_the_same_text(engine, history, template):
    names = list(engine.variants)
    found = last(engine, THIRD, names, template=template, history=history)
    assert len(set(found.prompts.values())) == 3, "each variant goes on from its own answers"
    for name in names:
        fresh = last(engine, found.prompts[name], [name], template="none")
        assert found[name].token_ids == fresh[name].token_ids
        assert found.prompt_tokens[name] == fresh.prompt_tokens[name]
        assert found.prompts[name] == fresh.prompts[name]
        assert len(engine.prompt_ids(THIRD, name, template=template, history=history)) == found.prompt_tokens[name]


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("template", ["own", "chat", "none"])
def test_both_ways_read_the_same_text_and_differ_where_a_variant_reads_twice(engine, history, template):
    names = list(engine.variants)
    ask = {"template": template, "history": history, "max_new_tokens": 4}
    recomputed, alternated = (last(engine, "Who says so?", names, **ask, earlier=way) for way in EARLIER)
    assert recomputed.prompts == alternated.prompts
    assert recomputed.prompt_tokens == alternated.prompt_tokens
    same = {name: recomputed[name].token_ids == alternated[name].token_ids for name in names}
    assert same == {"base": True, "bitune": False, "lora": True}


def test_without_turns_before_both_ways_are_the_same(engine):
    first, second = (last(engine, FIRST, ["bitune"], earlier=way, seed=3)["bitune"].token_ids for way in EARLIER)
    assert first == second


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("way", EARLIER)
def test_one_causal_pass_goes_on_as_a_chat_of_transformers(engine, way):
    """transformers' generate on its own cache of the turn before, which holds the answer but not the token that closed it."""
    model, tokenizer, answer = engine.base.model, engine.base.tokenizer, "It reads both ways."
    before = tokenizer(f"[user]{FIRST}</s>[assistant]{answer}", return_tensors="pt").input_ids
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=before, **cache_input(cache))
    more = tokenizer(f"</s>[user]{SECOND}</s>[assistant]", return_tensors="pt").input_ids
    whole = torch.cat([before, more], dim=1)
    arguments = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 258, "eos_token_id": END}
    expected = greedy(model, whole, attention_mask=torch.ones_like(whole), **arguments, **cache_input(cache))
    found = last(engine, SECOND, ["base"], template="chat", history=[Turn(FIRST, {"base": answer})], earlier=way)
    assert list(found["base"].token_ids) == expected[0, whole.shape[1] :].tolist()
    assert found.prompt_tokens["base"] == whole.shape[1]


def test_what_was_kept_is_used_and_what_is_gone_is_made_again(engine, history):
    names, engine_passes = list(engine.variants), engine.manager.passes
    engine_passes.clear()
    ask = {"history": history, "earlier": "alternating"}
    first, again = last(engine, THIRD, names, **ask), last(engine, THIRD, names, **ask, seed=5)
    assert not any(one.from_memory for one in first.completions.values())
    assert all(one.from_memory for one in again.completions.values())
    engine_passes.clear()
    anew = last(engine, THIRD, names, **ask)
    for name in names:
        assert first[name].token_ids == again[name].token_ids == anew[name].token_ids


def test_what_is_kept_is_bounded(engine, history, monkeypatch):
    passes = engine.manager.passes
    passes.clear()
    last(engine, THIRD, ["bitune"], history=history, earlier="alternating")
    room = passes.nbytes // 2
    monkeypatch.setattr(passes, "limit", room)
    for number in range(5):
        last(engine, f"{THIRD} {number}", ["bitune"], history=history, earlier="alternating")
        assert passes.nbytes <= room


@pytest.mark.parametrize("way", EARLIER)
def test_a_what_if_has_its_own_conversation(engine, history, way):
    ratios = engine.mixing("bitune")
    what_ifs = {"same": WhatIf("bitune", ratios), "other": WhatIf("bitune", MixingRatios.constant(ratios.layers, 1.0))}
    turns = [Turn(turn.prompt, {**turn.answers, "same": turn.answers["bitune"], "other": "Hm."}) for turn in history]
    update = last(engine, THIRD, ["bitune", "same", "other"], history=turns, earlier=way, what_ifs=what_ifs)
    assert update["bitune"].token_ids == update["same"].token_ids != update["other"].token_ids
    assert "Hm." in update.prompts["other"]


@pytest.mark.parametrize("way", EARLIER)
def test_a_conversation_can_be_cancelled(engine, history, way):
    engine.manager.passes.clear()
    with engine.manager.turn(), engine.stream(THIRD, ["bitune"], history=history, earlier=way, max_new_tokens=400) as session:
        assert next(session).phase == "waiting"
        session.cancel()
        *_, update = session
    assert update["bitune"].finish_reason == "cancelled"


@pytest.mark.parametrize("way", EARLIER)
def test_a_checkpoint_that_was_removed_is_a_sentence(engine, history, way, tmp_path):
    model = bitune_on(engine.base, "bitune", prompt_template=None)
    model.save_pretrained(tmp_path / "gone")
    model.release()
    engine.add_checkpoint(tmp_path / "gone")
    turns = [Turn(turn.prompt, {"gone": "yes"}) for turn in history]
    session = engine.stream(THIRD, ["gone"], history=turns, earlier=way)
    engine.remove_checkpoint("gone")
    with pytest.raises(UnknownNameError, match="no variant called 'gone'"):
        list(session)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (
            {"earlier": "sometimes"},
            UnknownNameError,
            "no way to read the turns before called 'sometimes'.*'alternating', 'recompute'",
        ),
        ({"history": [Turn("a", {"base": "b"})]}, ConfigError, "Turn 1 of the history has no answer of 'bitune'"),
        ({"history": [Turn("a", {"bitune": 7})]}, PromptError, "The answer of 'bitune' in turn 1 is 7, which is no text"),
        ({"history": [Turn("a", {"bitune": "\ud800"})]}, PromptError, "no text"),
        ({"history": [Turn("", {"bitune": "b"})]}, PromptError, "The prompt is empty"),
        ({"history": [Turn("a", {"bitune": "b" * 600})]}, PromptError, "The conversation has .* tokens and the model reads 512"),
    ],
)
def test_what_cannot_go_on_is_a_sentence(engine, settings, error, words):
    with pytest.raises(error, match=words):
        engine.stream(THIRD, ["bitune"], **settings)
