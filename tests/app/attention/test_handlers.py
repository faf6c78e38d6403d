"""The tab Attention without a browser: what crosses to it, what is kept, what programs get, and what is said when it fails."""

import json
from base64 import b64decode
from functools import partial

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from safetensors.numpy import load

from app.attention import handlers as attention_handlers
from app.attention import maps
from app.attention.handlers import AttentionHandlers
from app.attention.request import FrameQuestion, HeadQuestion, LayerQuestion
from app.attention.store import FORGOTTEN
from app.compare.handlers import CompareHandlers, Screen
from app.ui.frame import browser_function
from tests.app.attention.test_maps import unpacked
from tests.app.ui import visiting
from tests.browser.served import served, tiny_engine
from tests.closeness import assert_close

LAYERS, HEADS = 4, 4  # of the tiny base
LEVEL = 1 / 255  # a picture has 8 bits, and weights are at most 1
BITUNE = ("hello", "bitune", "own", "good day")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def handlers(engine):
    return AttentionHandlers(engine)


def read(handlers: AttentionHandlers, prompt, variant, template, answer, what_ifs=None) -> dict:
    """What the browser gets after Read."""
    fields = {"prompt": prompt, "variant": variant, "template": template, "answer": answer, "what_ifs": what_ifs}
    *_, last = visiting.run(handlers, **fields)
    assert not last.running
    return last.value


def asked(method, question: dict) -> dict:
    """What the browser gets when it asks by itself."""
    handlers = method.__self__
    kinds = {handlers.picture: HeadQuestion, handlers.arrays: LayerQuestion, handlers.frame: FrameQuestion}
    return visiting.called(browser_function(method, handlers, partial(handlers.work_of_question, kinds[method])), question)


def test_a_reading_opens_on_the_head_that_looks_ahead_most(handlers, engine):
    value = read(handlers, *BITUNE)
    whole = engine.attention("hello", "bitune", range(LAYERS), answer="good day")
    ahead = whole.summaries["bidirectional"].look_ahead
    assert ahead[value["opened"]["layer"], value["opened"]["head"]] == ahead.max()
    assert value["tokens"] == list(whole.tokens)
    assert np.shape(value["measures"]["entropy"]) == (2, LAYERS, HEADS)
    assert value["rows"] == whole.prompt_tokens - 1 + len("good day")
    assert json.loads(json.dumps(value)) == value
    square = maps.squares(whole, 2, 3)[1]
    picture = asked(handlers.picture, {"key": value["key"], "layer": 2, "head": 3})
    assert_close(unpacked(picture["maps"][1], value["rows"]), square, allowed=3 * LEVEL / 2)


@pytest.mark.parametrize("variant", ["base", "lora"])
def test_one_reading_is_one_map(handlers, variant):
    value = read(handlers, "hello", variant, "own", "")
    assert len(value["passes"]) == len(value["picture"]["maps"]) == 1
    assert value["rows"] == value["prompt_rows"] + 1, "the last prompt token begins the answer"


def test_an_answer_may_hold_what_no_prompt_may(handlers):
    value = read(handlers, "hello", "bitune", "own", "a\x00\ufffd")
    assert value["labels"][value["prompt_rows"] + 1 :][:2] == ["a", "␀"]


def test_the_model_runs_once_for_all_layers_and_heads(handlers, engine, monkeypatch):
    value = read(handlers, *BITUNE)
    monkeypatch.setattr(engine, "attention", None)
    for layer in range(LAYERS):
        for head in (None, *range(HEADS)):
            assert "maps" in asked(handlers.picture, {"key": value["key"], "layer": layer, "head": head})


def test_a_long_prompt_keeps_only_the_layers_that_were_opened(handlers, monkeypatch):
    short = read(handlers, *BITUNE)
    monkeypatch.setattr(attention_handlers, "RESULT_BYTES", 0)
    long = read(handlers, *BITUNE)
    result = handlers.store.get(long["key"])
    assert result.maps.layers == (long["opened"]["layer"],) and not result.layers
    questions = [{"key": value["key"], "layer": 1.0, "head": 2.0} for value in (short, long)]
    assert asked(handlers.picture, questions[0]) == asked(handlers.picture, questions[1])
    assert list(result.layers) == [1]


def test_a_mean_over_layers_is_the_mean_of_their_means(handlers, engine, monkeypatch):
    whole = engine.attention("hello", "bitune", range(LAYERS), answer="good day")
    expected = np.mean([maps.squares(whole, layer, None)[1] for layer in (1, 2, 3)], axis=0)
    short = read(handlers, *BITUNE)
    monkeypatch.setattr(attention_handlers, "RESULT_BYTES", 0)
    long = read(handlers, *BITUNE)  # keeps the layer that it opened, and no other
    size = maps.size(handlers.store.get(long["key"]).maps)
    monkeypatch.setattr(attention_handlers, "RESULT_BYTES", 3 * size)
    for value in (short, long):
        picture = asked(handlers.picture, {"key": value["key"], "layer": 1, "until": 3, "head": None})
        assert (picture["layer"], picture["until"], picture["head"]) == (1, 3, None)
        assert_close(unpacked(picture["maps"][1], value["rows"]), expected, allowed=3 * LEVEL / 2)
    monkeypatch.setattr(attention_handlers, "RESULT_BYTES", size)
    question = {"key": long["key"], "layer": 0, "until": 3, "head": None}
    assert "choose up to 1" in asked(handlers.picture, question)["problem"]


@pytest.mark.parametrize("wrong", [{"until": 0}, {"until": LAYERS}, {"until": 3, "head": 0}, {"until": "x"}])
def test_a_mean_is_over_layers_that_there_are(handlers, wrong):
    key = read(handlers, *BITUNE)["key"]
    assert asked(handlers.picture, {"key": key, "layer": 1, "head": None, **wrong})["problem"]


def test_two_variants_read_the_same_beside_each_other(handlers, engine):
    fields = {"prompt": "hello", "variant": "lora", "template": "own", "answer": "good day", "what_ifs": None}
    *_, last = visiting.run(handlers, **fields, beside="bitune")
    value, other = last.value, last.value["beside"]
    alone = read(handlers, *BITUNE)
    assert value["tokens"] == other["tokens"] and value["key"] != other["key"]
    assert (value["variant"]["name"], other["variant"]["name"]) == ("lora", "bitune")
    assert other["passes"] == alone["passes"] and other["measures"] == alone["measures"]
    opened = value["opened"]
    assert other["picture"] == asked(handlers.picture, {"key": alone["key"], **opened})
    assert handlers.work(**fields, beside="bitune").passes == handlers.work(**fields).passes + 3


def test_two_variants_with_one_name_or_other_texts(handlers, engine, monkeypatch):
    fields = {"prompt": "hello", "variant": "lora", "template": "own", "answer": "", "what_ifs": None}
    *_, last = visiting.run(handlers, **fields, beside="lora")
    assert "beside" not in last.value
    *_, last = visiting.run(handlers, **fields, beside="ghost")
    assert "no variant called 'ghost'" in last.value["problem"]
    ids = engine.prompt_ids
    monkeypatch.setattr(engine, "prompt_ids", lambda prompt, name, **how: ids(prompt + (name == "lora") * "!", name, **how))
    *_, last = visiting.run(handlers, **fields, beside="bitune")
    assert "choose one template for both" in last.value["problem"]


def test_pieces_of_a_character_carry_it(handlers):
    value = read(handlers, "\u4f60!", "base", "none", "\u597d")
    assert value["labels"][:4] == ["\u4f60 1/3", "\u4f60 2/3", "\u4f60 3/3", "!"]
    assert value["labels"][-3:] == ["\u597d 1/3", "\u597d 2/3", "\u597d 3/3"]
    assert value["pieces"]["1"] == ["\u4f60", 2] and "3" not in value["pieces"]
    frame = asked(
        handlers.frame, {"key": value["key"], "layer": 0, "head": None, "view": "head", "pass_name": value["passes"][0]["name"]}
    )
    assert "\\u4f60 2/3" in frame["html"]


def test_the_oldest_reading_is_forgotten_in_words(engine):
    handlers = AttentionHandlers(engine, max_bytes=1)
    first, second = read(handlers, *BITUNE), read(handlers, *BITUNE)
    assert asked(handlers.picture, {"key": first["key"], "layer": 0, "head": 0}) == {"problem": FORGOTTEN}
    assert "maps" in asked(handlers.picture, {"key": second["key"], "layer": 0, "head": 0})


BAD = [
    (("", "bitune", "own", ""), "empty"),
    (("hi", "ghost", "own", ""), "no variant called 'ghost'"),
    (("hi", 3, "own", ""), "variant must be text"),
    (("hi", "bitune", "mine", ""), "no template called 'mine'"),
    (("hi", "bitune", "own", 3), "answer must be text"),
    (("hi", "bitune", "own", "x" * 600), "512"),
    (("hi", "bitune", "own", "a\ud800"), "surrogate"),
    (("hi", "bitune", "own", "x" * 1_000_000), "1,000,000 characters"),
    (("x" * 500, "bitune", "none", "y" * 100), "512"),
    (("hi", "bitune", "own", "", {"what": 1}), "what-if"),
]


def test_read_before_a_variant_could_be_chosen_takes_the_one_to_begin_with(handlers):
    assert read(handlers, "hi", None, "own", "")["variant"] == read(handlers, "hi", "bitune", "own", "")["variant"]


@pytest.mark.parametrize(("fields", "words"), BAD)
def test_bad_requests_are_a_sentence(handlers, fields, words):
    value = read(handlers, *fields)
    assert list(value) == ["problem"]
    assert words in value["problem"]


def test_what_is_too_long_to_draw_is_refused_before_the_model_runs(handlers, engine, monkeypatch):
    monkeypatch.setattr(attention_handlers, "MAX_TOKENS", 8)
    monkeypatch.setattr(engine, "attention", None)
    assert "maps are drawn for up to 8" in read(handlers, "hi", "base", "none", "long enough")["problem"]


@pytest.mark.parametrize(
    "question",
    [{"layer": 99, "head": 0}, {"layer": "x", "head": 0}, {"layer": True, "head": 0}, {"layer": 0, "head": 99}, {"layer": 0}],
)
def test_what_the_browser_would_not_ask_is_answered_all_the_same(handlers, question):
    key = read(handlers, *BITUNE)["key"]
    assert asked(handlers.picture, {"key": key, **question})["problem"]
    assert asked(handlers.picture, {"key": None, **question})["problem"]


def test_the_arrays_are_the_recorded_ones(handlers, engine):
    key = read(handlers, *BITUNE)["key"]
    file = asked(handlers.arrays, {"key": key, "layer": 1})
    assert file["name"] == "attention-layer-1.safetensors"
    content = b64decode(file["data"])
    arrays = load(content)
    whole = engine.attention("hello", "bitune", range(LAYERS), answer="good day")
    np.testing.assert_array_equal(arrays["pass.bidirectional"], whole.passes["bidirectional"][1])
    np.testing.assert_array_equal(arrays["answer.mixed"], whole.answer.mixed[1])
    np.testing.assert_array_equal(arrays["summary.causal.entropy"], whole.summaries["causal"].entropy)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["tokens"]) == list(whole.tokens)


def test_what_ifs_can_be_read_too(handlers):
    question = {"of": "bitune", "keys": [0.0] * LAYERS, "values": [0.0] * LAYERS, "colour": 0}
    value = read(handlers, "hello", "causal only", "own", "good", {"causal only": question})
    assert value["variant"]["name"] == "causal only"
    first, second = (unpacked(packed, value["rows"]) for packed in value["picture"]["maps"])
    assert_close(first[value["prompt_rows"] :], second[value["prompt_rows"] :], allowed=3 * LEVEL)


def test_compares_latest_run_comes_along(handlers, engine):
    assert Screen("").latest_run is None
    options = {"template": "chat", "max_new_tokens": 8, "temperature": 0, "top_p": 1, "seed": 0}
    *_, last = CompareHandlers(engine, {}).run("hello", ["base", "lora", "bitune"], **options)
    run = last.latest_run
    first = handlers.chosen_first(run)
    assert (run.prompt, run.template, first) == ("hello", "chat", "bitune")
    assert run.answers == {name: completion.text for name, completion in last.update.completions.items()}
    assert handlers.answer_beside(run, "lora", "hello", run.answers[first]) == last.update["lora"].text
    assert handlers.answer_beside(run, "lora", "hello", "my own") == "my own"
    assert handlers.answer_beside(run, "lora", "my own", run.answers[first]) == run.answers[first]
    assert handlers.answer_beside(None, "lora", "hello", "") == ""


@pytest.fixture(scope="module")
def client(engine):
    with served(engine) as address:
        yield Client(address, verbose=False, analytics_enabled=False)


def test_programs_get_plain_arrays(client, engine):
    answer = client.predict("hello", "bitune", layer=2, answer="day", api_name="/attention")
    whole = engine.attention("hello", "bitune", [2], answer="day")
    assert_close(answer["passes"]["bidirectional"], np.round(whole.passes["bidirectional"][0].astype(np.float64), 4))
    assert_close(answer["answer"]["mixed"], np.round(whole.answer.mixed[0].astype(np.float64), 4))
    assert answer["tokens"] == list(whole.tokens)
    assert (answer["layer"], answer["heads"], answer["base"]) == (2, [0, 1, 2, 3], "tiny-llama")
    one = client.predict("hello", "bitune", layer=2, head=1, answer="day", api_name="/attention")
    assert one["heads"] == [1]
    assert one["passes"]["causal"] == answer["passes"]["causal"][1:2]
    what_ifs = {"other": {"of": "bitune", "keys": [1] * LAYERS, "values": [1] * LAYERS}}
    other = client.predict("hello", "other", layer=2, answer="day", what_ifs=what_ifs, api_name="/attention")
    assert other["passes"] == answer["passes"]
    assert other["answer"]["mixed"] != answer["answer"]["mixed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "", "variant": "base"}, "The prompt is empty"),
        ({"prompt": "hi", "variant": "ghost"}, "no variant called 'ghost'"),
        ({"prompt": "hi", "variant": "base", "layer": 9}, "There is no layer 9"),
        ({"prompt": "hi", "variant": "base", "layer": "deep"}, "There is no layer 'deep'"),
        ({"prompt": "hi", "variant": "base", "head": -1}, "There is no head -1"),
        ({"prompt": "hi", "variant": "base", "what_ifs": {"a": 1}}, "what-if"),
        ({"prompt": "hi", "variant": "base", "template": "x"}, "no template called 'x'"),
        ({"prompt": "x" * 400, "variant": "base", "template": "none"}, "ask for one head"),
    ],
)
def test_programs_get_sentences(client, arguments, words):
    with pytest.raises(AppError, match=words) as caught:
        client.predict(**arguments, api_name="/attention")
    assert "Traceback" not in str(caught.value)
