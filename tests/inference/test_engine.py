"""The engine: several variants from one batch, the same as one at a time; draws shared; cancel; bad input."""

import threading

import pytest
import torch
from peft import LoraConfig

from bitune import BituneModel, ConfigError, Engine, MixingRatios, PromptError, PromptPass, UnknownNameError, Variant
from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.model.decoding import Decoder
from bitune.modeling.interface import attention_modules
from tests.closeness import assert_close
from tests.tiny import bitune_on, ids, randomized, tiny_base

PROMPT = "Which way does it read?"
SETTINGS = {"max_new_tokens": 12, "template": "none"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Base, Bitune, LoRA with a template, and a DoRA Bitune, all on one tiny base."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = tiny_base()
    for seed, (name, method, kind, template) in enumerate(
        [("qa", "bitune", "lora", None), ("plain", "lora", "lora", "Q: {prompt}\nA:"), ("dora", "bitune", "dora", None)], 1
    ):
        model = bitune_on(base, method, kind, seed, prompt_template=template)
        model.save_pretrained(folder / name)
        model.release()
    engine = Engine(base)
    for name in ("qa", "plain", "dora"):
        engine.add_checkpoint(folder / name)
    engine.folder = folder
    return engine


def final(engine, prompt, names, **settings):
    updates = list(engine.stream(prompt, names, **SETTINGS | settings))
    assert [u.done for u in updates] == [False] * (len(updates) - 1) + [True]
    return updates[-1]


def texts(update):
    return {name: completion.text for name, completion in update.completions.items()}


@pytest.mark.usefixtures("clear_choices")
def test_together_equals_one_at_a_time(engine):
    names = list(engine.variants)
    together = texts(final(engine, PROMPT, names))
    assert together == {name: final(engine, PROMPT, [name])[name].text for name in names}
    assert len(set(together.values())) == len(names), "every variant has its own answer"


def test_all_variants_are_one_batch_dora_among_them(engine, monkeypatch):
    batches = []
    forward = Decoder.next_logits
    monkeypatch.setattr(Decoder, "next_logits", lambda self: batches.append(len(self.rows)) or forward(self))
    final(engine, PROMPT, ["base", "dora", "qa", "plain"])
    assert batches == [4] * 12


@pytest.mark.usefixtures("clear_choices")
def test_the_same_prompt_comes_from_memory_and_says_so(engine):
    names = ["base", "qa", "dora"]
    engine.manager.passes.clear()
    first = final(engine, "Where does it come from?", names[:2])
    again = final(engine, "Where does it come from?", names, seed=1)
    assert {name: one.from_memory for name, one in first.completions.items()} == {"base": False, "qa": False}
    assert {name: one.from_memory for name, one in again.completions.items()} == {"base": True, "qa": True, "dora": False}
    assert texts(again)["qa"] == texts(first)["qa"]


def test_one_adapter_at_a_time_gives_the_same(engine, monkeypatch):
    names = ["base", "qa", "plain"]
    greedy, sampled = texts(final(engine, PROMPT, names)), texts(final(engine, PROMPT, names, temperature=1.0, seed=3))
    monkeypatch.setattr(AdapterManager, "can_mix", lambda self, adapters: False)
    assert texts(final(engine, PROMPT, names)) == greedy
    assert texts(final(engine, PROMPT, names, temperature=1.0, seed=3)) == sampled


def test_what_is_loaded_cannot_be_changed_from_outside(engine):
    for mapping in (engine.variants, engine.checkpoints):
        with pytest.raises(TypeError):
            mapping["mine"] = mapping["qa"]
        with pytest.raises(TypeError):
            del mapping["qa"]
    with pytest.raises(ConfigError, match="already there"):
        engine.add_variant("qa", engine.variants["base"])
    with pytest.raises(UnknownNameError, match="nobody"):
        engine.add_variant("mine", Variant((PromptPass("nobody", "causal"),), None, None))
    for name in ("base", "qa"):
        with pytest.raises(UnknownNameError, match="of your own"):
            engine.remove_variant(name)


@pytest.mark.usefixtures("clear_choices")
def test_base_answers_as_plain_transformers(engine):
    ids = engine.base.tokenizer(PROMPT, return_tensors="pt").input_ids
    plain = engine.base.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=258
    )
    assert final(engine, PROMPT, ["base"])["base"].text == engine.base.tokenizer.decode(
        plain[0, ids.shape[1] :], skip_special_tokens=True
    )


@pytest.mark.usefixtures("clear_choices")
def test_a_checkpoint_answers_as_its_model(engine):
    other = tiny_base()
    model = BituneModel.from_pretrained(engine.folder / "qa", base=other)
    ids = other.tokenizer(PROMPT, return_tensors="pt").input_ids
    tokens = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=258)
    assert final(engine, PROMPT, ["base", "qa"])["qa"].text == other.tokenizer.decode(
        tokens[0, ids.shape[1] :], skip_special_tokens=True
    )


def test_dropout_is_for_training_alone(tmp_path):
    """PEFT makes its layers in train mode; a checkpoint with dropout, as most have, must answer as in PEFT's eval mode."""
    base = tiny_base()
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.5, task_type="CAUSAL_LM")
    model = randomized(BituneModel.create(base, peft_config=config))
    model.save_pretrained(tmp_path / "dropped")
    expected = model.generate(torch.tensor([[5, 6, 7, 8]]), max_new_tokens=8, do_sample=False, pad_token_id=258)
    model.release()
    again = BituneModel.from_pretrained(tmp_path / "dropped", base=base, trainable=False)
    for _ in range(3):
        answer = again.generate(torch.tensor([[5, 6, 7, 8]]), max_new_tokens=8, do_sample=False, pad_token_id=258)
        assert torch.equal(answer, expected)
    assert not torch.equal(again.train()(*ids(9, 4)).logits, again(*ids(9, 4)).logits), "in training it drops"


@pytest.mark.usefixtures("clear_choices")
def test_variants_share_the_random_draws(engine):
    """A copy of a variant draws the same; alone or in company, a variant draws the same; another seed draws another."""
    engine.add_variant("copy", engine.variants["qa"])
    try:
        first = texts(final(engine, PROMPT, ["base", "qa", "copy"], temperature=1.3, seed=11))
    finally:
        engine.remove_variant("copy")
    assert first["qa"] == first["copy"] != first["base"]
    assert final(engine, PROMPT, ["qa"], temperature=1.3, seed=11)["qa"].text == first["qa"]
    assert final(engine, PROMPT, ["qa"], temperature=1.3, seed=12)["qa"].text != first["qa"]


def test_shared_draws_follow_the_models_distribution():
    """Greedy after Gumbel noise is a draw from softmax(scores / temperature): frequencies over many steps."""
    from bitune.inference.sampling import GenerationSettings, sampling

    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    processors = sampling(GenerationSettings(temperature=0.7, seed=5))
    drawn = torch.cat([processors(torch.zeros(1, 1), scores.clone()).argmax(-1) for _ in range(4000)])
    expected = (scores / 0.7).softmax(-1)[0]
    assert_close(drawn.bincount(minlength=4) / 4000, expected, allowed=0.05)  # 4,000 draws: three standard deviations are 0.024
    nucleus = sampling(GenerationSettings(temperature=0.7, top_p=0.5, seed=5))
    assert {int(nucleus(torch.zeros(1, 1), scores.clone()).argmax()) for _ in range(200)} == {0}


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-39, 1e-30, 1e-12, 1.1e-6])
def test_a_temperature_near_zero_is_greedy(engine, temperature):
    names = ["base", "qa", "plain"]
    greedy = texts(final(engine, PROMPT, names))
    assert texts(final(engine, PROMPT, names, temperature=temperature, top_p=0.9, seed=5)) == greedy


def test_templates(engine):
    own = final(engine, PROMPT, ["base", "plain"], template="own")
    assert own.prompts == {"base": PROMPT, "plain": f"Q: {PROMPT}\nA:"}, "the base reads as the first checkpoint, which has none"
    chat = final(engine, PROMPT, ["base", "plain"], template="chat")
    assert set(chat.prompts.values()) == {f"<user>{PROMPT}<answer>"}
    for names in (["base"], ["base", "plain"], ["plain", "base"], list(engine.variants)):
        assert final(engine, PROMPT, names, template="own").prompts["base"] == PROMPT, "whatever is asked beside it"
    assert final(Engine(tiny_base()), PROMPT, ["base"], template="own").prompts == {"base": f"<user>{PROMPT}<answer>"}
    plain = final(engine, PROMPT, ["base", "plain"], template="none")
    assert set(plain.prompts.values()) == {PROMPT}
    assert plain.prompt_tokens == {"base": len(PROMPT), "plain": len(PROMPT)}


@pytest.mark.usefixtures("clear_choices")
def test_variants_with_prompts_of_different_length_in_one_batch(engine):
    """qa has no template and reads the text as it is; plain wraps it: rows of different length, each as if alone."""
    together = final(engine, PROMPT, ["qa", "plain"], template="own")
    assert together.prompt_tokens["plain"] > together.prompt_tokens["qa"]
    for name in ("qa", "plain"):
        assert final(engine, PROMPT, [name], template="own")[name].text == together[name].text


def test_what_if_runs_like_any_variant(engine):
    learned = engine.variants["qa"]
    engine.add_variant("causal only", learned.with_mixing(MixingRatios.constant(4, 0.0)))
    try:
        result = texts(final(engine, PROMPT, ["qa", "causal only"]))
    finally:
        engine.remove_variant("causal only")
    assert result["qa"] != result["causal only"]


@pytest.mark.usefixtures("clear_choices")
def test_why_an_answer_stopped(engine):
    free = final(engine, PROMPT, ["base", "qa"])
    assert {c.finish_reason for c in free.completions.values()} == {"length"}
    assert {c.tokens for c in free.completions.values()} == {12}
    # The template stays; a stop string out of the base's own answer ends it there, and is left out.
    stop = next(c for c in free["base"].text if c.isprintable() and c != "\ufffd")
    stopped = final(engine, PROMPT, ["base", "qa"], stop=[stop])
    assert stopped["base"].finish_reason == "stop"
    assert stopped["base"].text == free["base"].text[: free["base"].text.index(stop)]
    config = engine.base.model.generation_config
    token = engine.base.tokenizer(stop).input_ids[0]
    before, config.eos_token_id = config.eos_token_id, [token, 257]
    try:
        ended = final(engine, PROMPT, ["base", "qa"])["base"]
    finally:
        config.eos_token_id = before
    assert ended.finish_reason == "eos"
    assert ended.tokens == stopped["base"].tokens


def test_timings_are_told(engine):
    for completion in final(engine, PROMPT, ["base", "qa"]).completions.values():
        assert completion.seconds_to_first_token > 0
        assert completion.tokens_per_second > 0


def test_closing_cancels_and_frees_the_model(engine):
    stream = engine.stream(PROMPT, ["base", "qa"], template="none", max_new_tokens=400)
    first = next(stream)
    assert not first.done
    stream.close()
    assert first["base"].tokens < 400
    assert not [t for t in threading.enumerate() if t.name == "bitune request"]
    assert texts(final(engine, PROMPT, ["base"]))


def test_cancelling_does_not_wait_for_a_long_prompt(engine, monkeypatch):
    """Cancelled in the first layer: no later layer runs, no token is written, and the base is free and whole."""
    ran = []
    layers = attention_modules(engine.base.model.modules())
    forward = type(layers[0]).forward
    session = engine.stream("y" * 300, ["base", "qa"], template="none")

    def cancelling(self, *args, **kwargs):
        ran.append(self.layer_idx)
        session.cancel()
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(layers[0]), "forward", cancelling)
        *_, last = session
    assert ran == [0]
    assert {(c.tokens, c.finish_reason) for c in last.completions.values()} == {(0, "cancelled")}
    assert texts(final(engine, PROMPT, ["base", "qa"]))


def test_an_error_while_running_reaches_the_caller(engine, monkeypatch):
    def broken(self):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(Decoder, "next_logits", broken)
        final(engine, PROMPT, ["base", "qa"])
    assert texts(final(engine, PROMPT, ["base", "qa"])), "the engine goes on"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("x" * 600, "600 tokens"),
        ("x" * 1_000_000, "1,000,000 characters"),
        ("a\x00b", "U\\+0000"),
        ("a\x1b[31m", "U\\+001B"),
        ("half \ud83d", "surrogate"),
        (None, "empty"),
    ],
)
def test_prompts_that_cannot_be_read(engine, prompt, words):
    with pytest.raises(PromptError, match=words):
        engine.stream(prompt, ["base"], template="none")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": "end"}, "stop"),
        ({"stop": None}, "stop is None; it must be a list"),
    ],
)
def test_settings_that_make_no_sense(engine, settings, words):
    with pytest.raises(ConfigError, match=words):
        engine.stream(PROMPT, ["base"], **settings)


def test_names_that_are_not_there(engine):
    with pytest.raises(UnknownNameError, match="Did you mean 'plain'"):
        engine.stream(PROMPT, ["base", "plan"])
    with pytest.raises(UnknownNameError, match="template"):
        engine.stream(PROMPT, ["base"], template="mine")
    with pytest.raises(ConfigError, match="No variant"):
        engine.stream(PROMPT, [])


def test_an_answer_ends_where_the_context_ends(engine):
    update = final(engine, "y" * 505, ["base", "qa"], max_new_tokens=100)
    assert {c.tokens for c in update.completions.values()} == {7}


def test_names_of_checkpoints(engine):
    with pytest.raises(ConfigError, match="already there"):
        engine.add_checkpoint(engine.folder / "qa")
    with pytest.raises(ConfigError, match="already there"):
        engine.add_checkpoint(engine.folder / "qa", name="base")
    facts = engine.add_checkpoint(engine.folder / "qa", name="again")
    assert (facts.method, facts.peft_kind) == ("bitune", "lora")
    assert facts.trainable_parameters == 2 * sum(p.numel() for p in _lora_parameters()) + 8
    assert final(engine, PROMPT, ["qa", "again"])["qa"].text == final(engine, PROMPT, ["again"])["again"].text
    engine.remove_checkpoint("again")
    assert "again" not in engine.variants
    with pytest.raises(UnknownNameError):
        engine.remove_checkpoint("again")


def _lora_parameters():
    base = tiny_base()
    model = BituneModel.create(base, "lora", new_peft_config(base.model, rank=4))
    return [p for p in model.parameters() if p.requires_grad]


def test_what_is_loaded(engine):
    facts = engine.base_facts
    assert facts.parameters == sum(p.numel() for p in tiny_base().model.parameters())
    assert (facts.layers, facts.context, facts.device, facts.dtype, facts.has_chat_template) == (4, 512, "cpu", "float32", True)


def test_a_base_without_tokenizer_is_refused():
    base = tiny_base()
    base.tokenizer = None
    with pytest.raises(ConfigError, match="tokenizer"):
        Engine(base)
