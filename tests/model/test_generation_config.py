"""A base's generation_config.json beside plain transformers: what of it `BituneModel.generate` takes, and that nothing of it measures."""

import json

import pytest
import torch
from transformers import GenerationConfig, TextStreamer

from bitune import BituneError, Engine, load_base
from bitune.data.examples import Example
from bitune.evaluation.run import evaluate
from bitune.model.decoding import generate, read_variants
from bitune.model.generation_config import _FROM_THE_BASE, end_tokens, eval_generation_config
from tests.closeness import assert_clear, assert_close
from tests.tiny import END, bitune_on, ids, saved_base

# What transformers says where nobody says how long an answer is.
pytestmark = pytest.mark.filterwarnings("ignore:Using the model-agnostic default")

NEW = 8
# As plain transformers takes them.
OBEYED = {
    "eos": {"eos_token_id": [139, 253, END]},
    "pad": {"pad_token_id": 7, "eos_token_id": list(range(100))},
    "sampling": {"do_sample": True, "temperature": 0.7},
    "top_k": {"do_sample": True, "top_k": 3},
    "top_p": {"do_sample": True, "top_p": 0.3},
    "min_p": {"do_sample": True, "min_p": 0.3},
    "typical_p": {"do_sample": True, "typical_p": 0.3},
    "epsilon_cutoff": {"do_sample": True, "epsilon_cutoff": 0.01},
    "repetition_penalty": {"repetition_penalty": 3.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[token] for token in range(100)]},
    "suppress_tokens": {"suppress_tokens": list(range(150))},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(150))},
    "sequence_bias": {"sequence_bias": [[[9], 8.0]]},
    "forced_eos_token_id": {"forced_eos_token_id": 9},
    "max_length": {"max_length": 12},
    "max_new_tokens": {"max_new_tokens": 3},
    "min_new_tokens": {"min_new_tokens": NEW, "eos_token_id": list(range(100))},
    "num_beams": {"num_beams": 3, "length_penalty": 2.0},
    "num_return_sequences": {"do_sample": True, "num_return_sequences": 2},
}
# Never taken: past the mixed cache, a second prompt, the form of the result, code from the Hub.
NEVER = {
    "use_cache": False,
    "cache_implementation": "static",
    "cache_config": {"backend": "quanto"},
    "prompt_lookup_num_tokens": 2,
    "assistant_early_exit": 1,
    "use_mtp": True,
    "is_assistant": True,
    "guidance_scale": 2.0,
    "prefill_chunk_size": 2,
    "token_healing": True,
    "return_dict_in_generate": True,
    "output_hidden_states": True,
    "stop_strings": ["a"],  # transformers itself needs a tokenizer for them
    "dola_layers": "low",
    "num_beam_groups": 2,
    "force_words_ids": [[9]],
    "unknown_to_anybody": 3,
}
# What a measurement takes least of all.
CHANGES_MEASURES = {**{name: {name: value} for name, value in NEVER.items()}, **OBEYED}
for tokens_are_taken in ("eos", "pad"):
    del CHANGES_MEASURES[tokens_are_taken]
CHANGES_MEASURES["min_new_tokens"] = {"min_new_tokens": NEW}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    saved_base(folder)
    return folder


@pytest.fixture
def base_with(folder):
    """A base whose generation_config.json has these values besides its token ids."""
    path = folder / "generation_config.json"
    before = path.read_text()

    def load(**values):
        path.write_text(json.dumps(json.loads(before) | values))
        return load_base(folder, device="cpu")

    yield load
    path.write_text(before)


def model_on(base, method: str = "bitune"):
    """The same random adapters on every base."""
    torch.manual_seed(0)
    return bitune_on(base, method)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two prompts, one of them padded, and their mask."""
    long, short = ids(9, 6)
    padding = torch.full((1, 3), 258)
    return torch.cat([long, torch.cat([padding, short], 1)]), torch.tensor([[1] * 9, [0] * 3 + [1] * 6])


def by_transformers(model, **arguments):
    """What plain transformers generates on the base with this model's one adapter; a greedy choice of it is clear."""
    prompts, mask = batch()
    form = {"return_dict_in_generate": True, "output_scores": True}
    with model.manager.turn(), model.manager.active_adapter(model.names["causal"]):
        answer = model.base.generate(prompts, attention_mask=mask, **{**arguments, **form})
    given = {**model.base.generation_config.to_dict(), **arguments}
    if "generation_config" in arguments:
        given |= {name: value for name, value in vars(arguments["generation_config"]).items() if value is not None}
    if not (given.get("do_sample") or (given.get("num_beams") or 1) > 1 or "prefix_allowed_tokens_fn" in given):
        for scores in answer.scores:
            assert_clear(scores)
    return answer


def drawn(call):
    torch.manual_seed(7)
    return call()


@pytest.mark.parametrize("arguments", [{}, {"max_new_tokens": NEW}, {"generation_config": GenerationConfig(max_new_tokens=NEW)}])
@pytest.mark.parametrize("name", OBEYED)
def test_generate_answers_as_transformers_does_on_the_same_base(base_with, name, arguments):
    model = model_on(base_with(**OBEYED[name]), "lora")
    answer, expected = drawn(lambda: model.generate(*batch(), **arguments)), drawn(lambda: by_transformers(model, **arguments))
    assert torch.equal(answer, expected.sequences)
    if not arguments:  # and it changes something
        clean = drawn(lambda: model_on(base_with(), "lora").generate(*batch()))
        assert not torch.equal(answer, clean)


@pytest.mark.parametrize("kind", ["lora", "bitune"])
@pytest.mark.parametrize("name", NEVER)
def test_what_passes_by_the_cache_or_changes_the_form_is_never_taken(base_with, name, kind):
    expected = model_on(base_with(), kind).generate(*batch(), max_new_tokens=NEW)
    base = base_with(**{name: NEVER[name]})
    model, before = model_on(base, kind), base.model.generation_config
    values = before.to_dict()
    assert torch.equal(model.generate(*batch(), max_new_tokens=NEW), expected)
    assert torch.equal(model.generate(*batch(), generation_config=GenerationConfig(max_new_tokens=NEW)), expected)
    assert base.model.generation_config is before and before.to_dict() == values


def test_stop_strings_of_the_base_count_where_a_tokenizer_is_given(base_with):
    plain = model_on(base_with(), "lora")
    tokens = plain.generate(*batch(), max_new_tokens=NEW)[0, 9:]
    base = base_with(stop_strings=[plain.tokenizer.decode(tokens[2:3])])
    model, how = model_on(base, "lora"), {"max_new_tokens": NEW, "tokenizer": base.tokenizer}
    assert torch.equal(model.generate(*batch(), **how), by_transformers(model, **how).sequences)


@pytest.mark.parametrize("name", CHANGES_MEASURES)
def test_nothing_but_token_ids_reaches_a_measurement(base_with, name):
    """The answers of an engine and of an evaluation, and of `decoding.generate` with a config of ours, are those on a clean base."""

    def measured(base):
        model, examples = model_on(base, "bitune"), [Example("t", text, "4") for text in ("One and", "Two")]
        engine = Engine(base)
        engine.add_variant("qa", model.variant)
        *_, last = engine.stream("What is it?", ["base", "qa"], template="none", max_new_tokens=NEW)
        report = evaluate(engine.manager, engine.variants, examples, base.tokenizer, max_new_tokens=NEW)
        config = eval_generation_config(end_tokens(base.model, None), max_new_tokens=NEW)
        with model.manager.eval_turn(), torch.no_grad():
            ((_, tokens),) = generate(read_variants(model.manager, [[5, 6, 7]], [(model.variant, 0)]), generation_config=config)
        return {name: answer.token_ids for name, answer in last.completions.items()}, report.predictions, tokens.tolist()

    assert measured(base_with(**CHANGES_MEASURES[name])) == measured(base_with())


def test_a_pad_token_that_is_none_is_a_sentence_where_load_base_has_not_replaced_it(base_with, monkeypatch):
    base = base_with()
    monkeypatch.setattr(base.model.generation_config, "pad_token_id", -1)
    with pytest.raises(BituneError, match="pad_token_id -1, which is no token: this base's are 0 to 259"):
        model_on(base).generate(*batch())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"eos_token_id": "</s>"}, "eos_token_id '</s>', which is no token"),
        ({"eos_token_id": [END, None]}, r"eos_token_id \[257, None\], which is no token"),
        ({"eos_token_id": 999}, "eos_token_id 999, which is no token: this base's are 0 to 259"),
        ({"eos_token_id": []}, r"eos_token_id \[\]"),
        ({"temperature": "hot", "do_sample": True}, "temperature 'hot', which transformers cannot use"),
        ({"num_beams": True}, "num_beams True, which"),
        ({"top_p": -1.0, "do_sample": True}, "transformers' generate refuses these settings .*top_p"),
        ({"max_length": 4}, "transformers' generate refuses these settings .*max_length"),
        ({"num_beams": 0}, "num_beams is 0; give a whole number of at least 1"),
        ({"num_beams": 3, "num_return_sequences": 0}, "num_return_sequences is 0; give"),
        ({"exponential_decay_length_penalty": [1]}, r"exponential_decay_length_penalty is \[1\]; give two numbers"),
        ({"bad_words_ids": [[5, 99999]]}, "bad_words_ids holds 99999, which is no token of this base: it has 0 to 259"),
        ({"sequence_bias": [[[99999], 2.0]]}, "sequence_bias holds 99999, which is no token"),
        ({"forced_eos_token_id": 99999}, "forced_eos_token_id holds 99999, which is no token"),
        ({"forced_bos_token_id": -1}, "forced_bos_token_id holds -1, which is no token"),
    ],
)
def test_a_base_whose_settings_make_no_sense_is_a_sentence(base_with, values, words):
    base = base_with(**values)
    model = model_on(base)
    before = base.model.generation_config
    with pytest.raises(BituneError, match=words):
        model.generate(*batch())
    assert base.model.generation_config is before
    if "eos_token_id" in values:
        with pytest.raises(BituneError, match=words):
            Engine(base).stream("What?", ["base"])
    given = {"eos_token_id": END, "pad_token_id": 258, "temperature": 1.0, "num_beams": 1, "top_p": 1.0, "max_new_tokens": NEW}
    given |= {"num_return_sequences": 1, "exponential_decay_length_penalty": (1, 1.0), "bad_words_ids": [[5]]}
    given |= {"sequence_bias": {(5,): 2.0}, "forced_eos_token_id": END, "forced_bos_token_id": 5}
    assert model.generate(*batch(), **given).shape == (2, 9 + NEW)


@pytest.mark.parametrize(
    "values",
    [
        {"pad_token_id": "a"},
        {"max_new_tokens": 0},
        {"early_stopping": []},
        {"cache_implementation": "no"},
        {"watermarking_config": 3},
    ],
)
def test_what_transformers_refuses_at_loading_is_a_sentence(base_with, values):
    with pytest.raises(
        BituneError, match="generation_config.json holds a value that transformers refuses .*correct it there, or remove"
    ):
        base_with(**values)


ASKED = {
    "beams": {"num_beams": 3},
    "several": {"num_beams": 3, "num_return_sequences": 2},
    "drawn": {"do_sample": True, "num_return_sequences": 2, "top_k": 9},
    "penalty": {"repetition_penalty": 2.0},
    "time": {"max_time": 0.0},
    "scores": {"return_dict_in_generate": True, "output_scores": True},
    "processor": {"logits_processor": [lambda ids, scores: -scores]},
    "stopping": {"stopping_criteria": [lambda ids, scores: torch.ones(len(ids), dtype=torch.bool)]},
    "prefix": {"prefix_allowed_tokens_fn": lambda row, ids: [5, 6, 7]},
    "neutral": {"use_cache": True, "guidance_scale": 1.0, "num_beam_groups": 1, "cache_implementation": None},
}


@pytest.mark.parametrize("where", ["arguments", "generation_config"])
@pytest.mark.parametrize("name", ASKED)
def test_what_a_person_asks_for_works_as_in_transformers(base_with, name, where):
    model = model_on(base_with(), "lora")
    settings = {name: value for name, value in ASKED[name].items() if name in vars(GenerationConfig())}
    arguments = {"max_new_tokens": NEW} | ASKED[name]
    if where == "generation_config":
        others = {name: value for name, value in ASKED[name].items() if name not in settings}
        arguments = {"generation_config": GenerationConfig(max_new_tokens=NEW, **settings), **others}
    answer, expected = drawn(lambda: model.generate(*batch(), **arguments)), drawn(lambda: by_transformers(model, **arguments))
    if name == "scores":
        assert_close(torch.stack(answer.scores), torch.stack(expected.scores))
        answer = answer.sequences
    assert torch.equal(answer, expected.sequences)


def test_a_streamer_and_stop_strings_work_as_in_transformers(base_with, capsys):
    model = model_on(base_with(), "lora")
    tokenizer, (prompt, _) = model.tokenizer, ids(9, 6)
    tokens = model.generate(prompt, max_new_tokens=NEW)[0, 9:]
    how = {"max_new_tokens": NEW, "stop_strings": tokenizer.decode(tokens[2:3]), "tokenizer": tokenizer}
    shown = [(model.generate(prompt, **how, streamer=TextStreamer(tokenizer)).tolist(), capsys.readouterr().out)]
    with model.manager.turn(), model.manager.active_adapter(model.names["causal"]):
        expected = model.base.generate(prompt, **how, streamer=TextStreamer(tokenizer)).tolist()
    shown.append((expected, capsys.readouterr().out))
    assert shown[0] == shown[1] and shown[0][1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stop_strings": ["a"]}, r"stop_strings is \['a'\]; .*give tokenizer too"),
        ({"guidance_scale": 1.5}, "guidance_scale is 1.5; .*mixed cache"),
        ({"negative_prompt_ids": torch.ones(2, 3)}, "negative_prompt_ids is .*mixed cache"),
        ({"generation_config": GenerationConfig(use_cache=False)}, "use_cache is False; .*mixed cache"),
        ({"generation_config": {"max_new_tokens": 3}}, "generation_config is .*must be a transformers.GenerationConfig"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha is 0.6; transformers fetches Python code"),
        ({"attention_mask": torch.ones(2, 9)}, "attention_mask is given; Bitune sets it from prompt_ids and prompt_mask"),
        ({"max_new_token": 3}, "refuses these settings .*max_new_token"),
        ({"temperature": -1.0, "do_sample": True}, "refuses these settings .*temperature"),
        ({"num_beams": 2, "streamer": object()}, "A streamer is given and num_beams is 2"),
        ({"num_beams": 0}, "num_beams is 0; give a whole number of at least 1"),
        ({"num_beams": "3"}, "num_beams is '3'; give a whole number"),
        ({"max_new_tokens": "3"}, "max_new_tokens is the text '3', which transformers cannot use"),
        ({"bad_words_ids": [[99999]]}, "bad_words_ids holds 99999, which is no token"),
        ({"sequence_bias": {(99999,): 2.0}}, "sequence_bias holds 99999, which is no token"),
        ({"forced_eos_token_id": [9, 99999]}, "forced_eos_token_id holds 99999, which is no token"),
    ],
)
def test_what_a_person_cannot_ask_for_is_refused_before_anything_runs(base_with, arguments, words, monkeypatch):
    model = model_on(base_with())
    monkeypatch.setattr(model.base.model, "forward", lambda *a, **k: pytest.fail("the model was run"))
    with pytest.raises(BituneError, match=f"(?s){words}"):
        model.generate(*batch(), **arguments)


@pytest.mark.parametrize("padding", [99999, -100])
def test_padding_that_is_no_token_counts_only_where_it_is_read(base_with, padding):
    model, (prompts, mask) = model_on(base_with()), batch()
    other = prompts.masked_fill(mask == 0, padding)
    for how in ({}, {"encoder_repetition_penalty": 1.0}):
        answers = [model.generate(ids, mask, max_new_tokens=NEW, **how)[:, 9:] for ids in (prompts, other)]
        assert torch.equal(*answers)
    with pytest.raises(
        BituneError, match=f"encoder_repetition_penalty, which reads padding too, prompt_ids holds {padding}, which"
    ):
        model.generate(other, mask, max_new_tokens=NEW, encoder_repetition_penalty=1.5)


def test_a_generation_that_fails_leaves_the_bases_settings(base_with):
    base = base_with(use_cache=False)
    model, before = model_on(base), base.model.generation_config

    def fail(ids, scores):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(*batch(), max_new_tokens=NEW, logits_processor=[fail])
    assert base.model.generation_config is before


def test_transformers_knows_every_setting_that_is_taken():
    assert set(_FROM_THE_BASE) <= set(vars(GenerationConfig()))
