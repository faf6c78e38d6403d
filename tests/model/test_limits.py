"""Lengths at which a rotary embedding switches, beside plain transformers; and ids that are no tokens."""

from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from bitune import Base, BituneError, ConfigError, Engine, PromptError
from bitune.data.examples import Example
from bitune.errors import DataError
from bitune.evaluation.run import evaluate
from bitune.evaluation.scores import Question, answer, score
from bitune.inference.sweep import sweep
from tests.closeness import assert_close
from tests.greedy import greedy
from tests.tiny import END, GROUPED, bitune_on, ids, longrope_settings, tiny_base, tiny_tokenizer

SWITCH, CONTEXT, NEW = 24, 64, 6
LONGROPE = longrope_settings(SWITCH, [4.0, 3.0, 2.0, 8.0])
SMALL = GROUPED | {"max_position_embeddings": CONTEXT}
CONFIGS = {
    "phi3": lambda: Phi3Config(**SMALL, original_max_position_embeddings=SWITCH, rope_parameters=LONGROPE),
    "llama": lambda: LlamaConfig(**SMALL, rope_parameters=LONGROPE),
}
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
SHORT, LONGEST_SHORT, SHORTEST_LONG, LONG = 7, SWITCH - NEW + 1, SWITCH + 2, 40
CROSSING = (LONGEST_SHORT + 1, SWITCH, SWITCH + 1)


def base_of(config) -> Base:
    torch.manual_seed(0)
    return Base(AutoModelForCausalLM.from_config(config).eval(), tiny_tokenizer(), "tiny-scaled", None, None)


@pytest.fixture(params=CONFIGS)
def base(request) -> Base:
    return base_of(CONFIGS[request.param]())


def plain(model, call):
    """What plain transformers computes with this model's one adapter."""
    with torch.no_grad(), model.manager.turn(), model.manager.active_adapter(model.names["causal"]):
        return call(model.base)


@pytest.mark.parametrize("tokens", [1, SHORT, LONGEST_SHORT, SHORTEST_LONG, LONG])
def test_on_either_side_the_numbers_are_those_of_transformers(base, tokens):
    model, (prompt, given) = bitune_on(base, "lora"), ids(tokens, NEW)
    assert torch.equal(model.generate(prompt, **GREEDY), plain(model, lambda one: greedy(one, prompt, **GREEDY)))
    read = torch.cat([prompt, given[:, :-1]], 1)  # nobody reads the last token of an answer
    expected = plain(model, lambda one: one(input_ids=read).logits[:, tokens - 1 :])
    with torch.no_grad():
        assert_close(model(prompt, given).logits, expected)


@pytest.mark.parametrize("tokens", CROSSING)
def test_what_would_cross_is_refused_before_anything_runs(base, tokens, monkeypatch):
    """In one sentence, which says how long an answer may be."""
    model, (prompt, given) = bitune_on(base), ids(tokens, NEW)
    engine = Engine(base)
    engine.add_variant("qa", model.variant)
    text, question = "x" * tokens, Question(prompt[0].tolist(), [given[0].tolist(), [5]])
    monkeypatch.setattr(base.model.model, "forward", lambda *a, **k: pytest.fail("the model was run"))
    room = SWITCH - tokens + 1
    remedy = f"allow at most {room} for the answer, or shorten the prompt" if room else "; shorten the prompt"
    words = f"A prompt of {tokens} tokens with an answer of up to {NEW} passes {SWITCH}, .*rotary embedding.*{remedy}"
    how = {"template": "none"}
    examples = [Example("t", text, "4")]
    for call, error in (
        (lambda: model.generate(prompt, **GREEDY), PromptError),
        (lambda: model(prompt, given), PromptError),
        (lambda: engine.stream(text, ["base", "qa"], max_new_tokens=NEW, **how), PromptError),
        (lambda: engine.attention(text, "qa", answer="y" * NEW, **how), PromptError),
        (lambda: engine.log_probabilities(text, ["qa"], given[0].tolist(), **how), PromptError),
        (lambda: sweep(engine, text, "qa", max_new_tokens=NEW, **how), PromptError),
        (lambda: score(engine.manager, engine.variants, [question]), DataError),
        (lambda: answer(engine.manager, engine.variants, question_ids(7, tokens), NEW, ends=[END]), DataError),
        (lambda: evaluate(engine.manager, engine.variants, examples, base.tokenizer, max_new_tokens=NEW), DataError),
    ):
        with pytest.raises(error, match=words):
            call()


def question_ids(*lengths: int) -> list[list[int]]:
    return [prompt[0].tolist() for prompt in ids(*lengths)]


def test_just_before_the_switch_everything_runs(base):
    model, engine = bitune_on(base), Engine(base)
    engine.add_variant("qa", model.variant)
    text, how = "x" * LONGEST_SHORT, {"template": "none"}
    *_, last = engine.stream(text, ["base", "qa"], max_new_tokens=NEW, **how)
    tokens = list(last["qa"].token_ids)
    assert 0 < len(tokens) <= NEW
    prompt = torch.tensor([base.tokenizer(text).input_ids])
    whole = {**GREEDY, "eos_token_id": END}
    assert model.generate(prompt, **whole)[0, prompt.shape[1] :].tolist()[: len(tokens)] == tokens
    assert engine.attention(text, "qa", answer="y" * NEW, **how).prompt_tokens == LONGEST_SHORT
    assert engine.log_probabilities(text, ["qa"], tokens, **how)["qa"] < 0
    assert len(sweep(engine, text, "qa", [0.0, 1.0], max_new_tokens=NEW, **how)) == 2


@pytest.mark.parametrize("method", ["lora", "bitune"])
def test_a_short_prompt_beside_a_long_one_equals_itself_alone(base, method):
    """Scores and answers of a batch that could hold both sides; of plain LoRA those of transformers."""
    model = bitune_on(base, method)
    prompts, choices = question_ids(LONG, SHORT, SHORTEST_LONG, LONGEST_SHORT, 1), question_ids(NEW, NEW, 3, 2, NEW)
    questions = [Question(prompt, [choice]) for prompt, choice in zip(prompts, choices, strict=True)]
    variants = {"it": model.variant}
    together = score(model.manager, variants, questions)["it"]
    answers = answer(model.manager, variants, prompts, NEW, ends=[END])["it"]
    for question, (value,), tokens in zip(questions, together, answers, strict=True):
        ((alone,),) = score(model.manager, variants, [question])["it"]
        assert_close(value.sum, alone.sum)
        assert answer(model.manager, variants, [question.prompt_ids], NEW, ends=[END])["it"] == [tokens]
        if method == "lora":
            whole, start = torch.tensor([[*question.prompt_ids, *question.choices[0]]]), len(question.prompt_ids)
            logits = plain(model, lambda one, whole=whole: one(input_ids=whole).logits[0, :-1])
            chosen = logits.log_softmax(-1).gather(-1, whole[0, 1:, None])[start - 1 :].sum()
            assert_close(value.sum, float(chosen))


def test_a_batch_on_both_sides_is_refused(base):
    """Of tensors that a person padded: one row would choose the frequencies of the other."""
    model, lengths = bitune_on(base), (LONG, SHORT)
    prompts = torch.zeros(2, LONG, dtype=torch.long)
    mask = torch.tensor([[0] * (LONG - length) + [1] * length for length in lengths])
    given = ids(NEW, NEW)
    for call in (lambda: model(prompts, torch.cat(given), mask), lambda: model.generate(prompts, mask, **GREEDY)):
        with pytest.raises(PromptError, match="Prompts of 7 and of 40 tokens are in one batch|A prompt of 7 tokens .* passes 24"):
            call()


def test_one_document_after_one_token_is_read_in_one_forward(base):
    """As lm-eval's rolling likelihoods are: nothing was read before, so nothing is lost at the switch."""
    model, (document,) = bitune_on(base), question_ids(LONG)
    ((value,),) = score(model.manager, {"it": model.variant}, [Question(document[:1], [document[1:]])])["it"]
    with torch.no_grad(), model.manager.turn(), model.manager.active_adapter(model.names["causal"]):
        logits = base.model(input_ids=torch.tensor([document])).logits[0, :-1].log_softmax(-1)
    expected = sum(float(row[token]) for row, (_, token) in zip(logits, pairwise(document), strict=True))
    assert_close(value.sum, expected)


def test_a_dynamic_embedding_is_not_read_beyond_its_limit():
    """There every further token changes all keys. Up to it the numbers are those of transformers."""
    base = base_of(LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}))
    model, (prompt, beyond) = bitune_on(base, "lora"), ids(CONTEXT - NEW + 1, CONTEXT - NEW + 2)
    assert torch.equal(model.generate(prompt, **GREEDY), plain(model, lambda one: greedy(one, prompt, **GREEDY)))
    for call in (lambda: model.generate(beyond, **GREEDY), lambda: model(beyond, beyond[:, :NEW])):
        with pytest.raises(PromptError, match=f"passes {CONTEXT}, .*allow at most {NEW - 1} for the answer"):
            call()
    *_, last = Engine(base).stream("x" * (CONTEXT - 3), ["base"], template="none", max_new_tokens=NEW)
    assert last["base"].tokens <= 3


def test_ids_that_are_no_tokens_are_a_sentence():
    base = tiny_base()
    model, engine, (prompt, given) = bitune_on(base), Engine(base), ids(5, 3)
    words = "which is no token of this base: it has 0 to 259"
    for wrong in (-1, 260, 10**12, 1.5, True):
        with pytest.raises(ConfigError, match=f"The answer holds {wrong}, {words}"):
            engine.log_probabilities("What?", ["base"], [5, wrong])
    for wrong in (-100, 260):
        for call in (
            lambda wrong=wrong: model(prompt, given.masked_fill(given > 0, wrong)),
            lambda wrong=wrong: model(prompt.masked_fill(prompt > 0, wrong), given),
            lambda wrong=wrong: model.generate(prompt.masked_fill(prompt > 0, wrong), **GREEDY),
            lambda wrong=wrong: answer(engine.manager, engine.variants, [[5, wrong]], 2, ends=[END]),
            lambda wrong=wrong: score(engine.manager, engine.variants, [Question([5, 6], [[wrong]])]),
        ):
            with pytest.raises(BituneError, match=f"holds {wrong}, {words}"):
                call()


@pytest.mark.parametrize("padding", [-100, 999])
def test_padding_may_hold_what_is_no_token(padding):
    """A tokenizer's pad token may lie outside of a model's embedding, and labels are padded with -100: nobody reads it."""
    model, prompts, given = bitune_on(tiny_base()), ids(9, 9), ids(4, 4)
    prompts, given = torch.cat(prompts), torch.cat(given)
    masks = [torch.ones_like(prompts), torch.ones_like(given)]
    masks[0][1, :3] = masks[1][1, 2:] = 0
    with torch.no_grad():
        expected = model(prompts, given, *masks)
        found = model(prompts.masked_fill(masks[0] == 0, padding), given.masked_fill(masks[1] == 0, padding), *masks)
    assert_close(found.loss, expected.loss)
    answers = [model.generate(one, masks[0], **GREEDY)[:, 9:] for one in (prompts, prompts.masked_fill(masks[0] == 0, padding))]
    assert torch.equal(*answers)
