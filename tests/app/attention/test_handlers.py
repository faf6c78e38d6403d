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
