"""The tab Attention without a browser: what crosses to it, what is kept, what programs get, and what is said when it fails."""

import json
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from safetensors.numpy import load

from app.attention import handlers as attention_handlers
from app.attention import maps
from app.attention.handlers import FORGOTTEN, AttentionHandlers, Readings
from app.compare.handlers import CompareHandlers, Screen
from bitune.errors import ConfigError
from bitune.schema.results import AnswerMaps, AttentionMaps, HeadSummary
from tests.browser.served import served, tiny_engine

LAYERS, HEADS = 4, 4  # of the tiny base
BITUNE = ("hello", "bitune", "own", "good day")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def handlers(engine):
    return AttentionHandlers(engine)


def made(size: int = 5, answered: int = 2, tokens: tuple[str, ...] = ()) -> AttentionMaps:
    """Random maps of one layer and two heads, prompt of size + 1 tokens."""
    generator = np.random.default_rng(0)

    def rows(*shape: int) -> np.ndarray:
        weights = generator.random(shape)
        return (weights / weights.sum(-1, keepdims=True)).astype(np.float16)

    passes = {"causal": rows(1, 2, size, size), "bidirectional": rows(1, 2, size, size)}
    answer = AnswerMaps(rows(1, 2, answered, size + answered), rows(1, 2, answered, size + answered))
    moved = np.zeros((1, size), np.float32)
    names = tokens or tuple("abcdefghijklmnopqrstuvwxyz"[: size + answered])
    summaries = {name: HeadSummary.empty(1, 2) for name in passes}
    return AttentionMaps((0,), passes, summaries, answer, moved, moved, names, size + 1)


def unpacked(packed: dict, rows: int) -> np.ndarray:
    """As paint.js does it."""

    def part(levels: dict, columns: int) -> np.ndarray:
        bytes_ = np.frombuffer(b64decode(levels["data"]), np.uint8).reshape(rows, columns)
        return bytes_ * levels["most"] / 255

    return np.concatenate([part(packed["first"], 1), part(packed["rest"], rows - 1)], axis=1)


@pytest.mark.parametrize("head", [0, 1, None])
def test_a_picture_comes_back_to_half_a_step_of_its_own_maximum(head):
    found = made()
    for packed, square in zip(maps.picture(found, 0, head)["maps"], maps.squares(found, 0, head), strict=True):
        error = np.abs(unpacked(packed, 7) - square)
        assert error[:, 0].max() <= square[:, 0].max() / 510 + 1e-6
        assert error[:, 1:].max() <= square[:, 1:].max() / 510 + 1e-6


def test_rows_are_the_prompt_and_then_the_answer():
    found = made()
    first, second = maps.squares(found, 0, 1)
    np.testing.assert_array_equal(first[:5, :5], found.passes["causal"][0, 1])
    np.testing.assert_array_equal(first[5:], found.answer.first_pass[0, 1])
    np.testing.assert_array_equal(second[5:], found.answer.mixed[0, 1])
    assert not second[:5, 5:].any(), "the prompt was read before the answer"
    mean = maps.squares(found, 0, None)[0]
    np.testing.assert_allclose(mean[:5, :5], found.passes["causal"][0].astype(np.float32).mean(0), atol=1e-6)


def test_a_map_of_128_tokens_is_small():
    picture = maps.picture(made(127, 1), 0, 0)
    assert max(len(json.dumps(packed)) for packed in picture["maps"]) < 150_000


def test_a_map_of_nothing_but_zeros_and_one_of_a_single_token():
    assert not unpacked(maps.packed(np.zeros((3, 3), np.float32)), 3).any()
    assert unpacked(maps.packed(np.ones((1, 1), np.float32)), 1).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("token", "label"),
    [(" the", "the"), ("\n", "↵"), ("  ", "␣␣"), ("\t\x00", "→␀"), ("</script>", "</script>"), ("${1+1}", "${1+1}"), ("", "")],
)
def test_labels_show_what_is_there(token, label):
    assert maps.label(token) == label


def test_readings_are_named_by_what_they_see():
    found = made()
    assert [r["attention"] for r in maps.readings(found)] == ["causal", "bidirectional"]
    twice = replace(found, passes={"causal": found.passes["causal"], "second causal": found.passes["causal"]})
    assert [r["attention"] for r in maps.readings(twice)] == ["causal", "causal"]
    back = replace(found, passes={"anticausal": found.passes["causal"]})
    assert [(r["attention"], r["title"]) for r in maps.readings(back)] == [("anticausal", "The one reading")]


def test_a_reading_opens_on_the_head_that_looks_ahead_most(handlers, engine):
    value = handlers.read(*BITUNE)
    whole = engine.attention("hello", "bitune", range(LAYERS), answer="good day")
    ahead = whole.summaries["bidirectional"].look_ahead
    assert ahead[value["opened"]["layer"], value["opened"]["head"]] == ahead.max()
    assert value["tokens"] == list(whole.tokens)
    assert np.shape(value["measures"]["entropy"]) == (2, LAYERS, HEADS)
    assert value["rows"] == whole.prompt_tokens - 1 + len("good day")
    assert json.loads(json.dumps(value)) == value
    square = maps.squares(whole, 2, 3)[1]
    picture = handlers.picture({"key": value["key"], "layer": 2, "head": 3})
    np.testing.assert_allclose(unpacked(picture["maps"][1], value["rows"]), square, atol=1 / 500)


@pytest.mark.parametrize("variant", ["base", "lora"])
def test_one_reading_is_one_map(handlers, variant):
    value = handlers.read("hello", variant, "own", "")
    assert len(value["readings"]) == len(value["picture"]["maps"]) == 1
    assert value["rows"] == value["prompt_rows"] + 1, "the last prompt token begins the answer"


def test_an_answer_may_hold_what_no_prompt_may(handlers):
    value = handlers.read("hello", "bitune", "own", "a\x00\ufffd")
    assert value["labels"][value["prompt_rows"] + 1 :][:2] == ["a", "␀"]


def test_the_model_runs_once_for_all_layers_and_heads(handlers, engine, monkeypatch):
    value = handlers.read(*BITUNE)
    monkeypatch.setattr(engine, "attention", None)
    for layer in range(LAYERS):
        for head in (None, *range(HEADS)):
            assert "maps" in handlers.picture({"key": value["key"], "layer": layer, "head": head})


def test_a_long_prompt_keeps_only_the_layers_that_were_opened(handlers, monkeypatch):
    short = handlers.read(*BITUNE)
    monkeypatch.setattr(attention_handlers, "KEPT_BYTES", 0)
    long = handlers.read(*BITUNE)
    reading = handlers.readings.get(long["key"])
    assert list(reading.more) == [long["opened"]["layer"]]
    questions = [{"key": value["key"], "layer": 1.0, "head": 2.0} for value in (short, long)]
    assert handlers.picture(questions[0]) == handlers.picture(questions[1])
    assert len(reading.more) == 2


def test_the_oldest_reading_is_forgotten_in_words(engine):
    handlers = AttentionHandlers(engine, Readings(most_bytes=1))
    first, second = handlers.read(*BITUNE), handlers.read(*BITUNE)
    assert handlers.picture({"key": first["key"], "layer": 0, "head": 0}) == {"problem": FORGOTTEN}
    assert "maps" in handlers.picture({"key": second["key"], "layer": 0, "head": 0})


BAD = [
    (("", "bitune", "own", ""), "empty"),
    (("hi", "ghost", "own", ""), "no variant called 'ghost'"),
    (("hi", None, "own", ""), "variant must be text"),
    (("hi", "bitune", "mine", ""), "no template called 'mine'"),
    (("hi", "bitune", "own", 3), "answer must be text"),
    (("hi", "bitune", "own", "x" * 600), "512"),
    (("hi", "bitune", "own", "a\ud800"), "surrogate"),
    (("hi", "bitune", "own", "x" * 1_000_000), "1,000,000 characters"),
    (("x" * 500, "bitune", "none", "y" * 100), "512"),
    (("hi", "bitune", "own", "", {"what": 1}), "what-if"),
]


@pytest.mark.parametrize(("asked", "words"), BAD)
def test_bad_requests_are_a_sentence(handlers, asked, words):
    value = handlers.read(*asked)
    assert list(value) == ["problem"]
    assert words in value["problem"]


def test_what_is_too_long_to_draw_is_refused_before_the_model_runs(handlers, engine, monkeypatch):
    monkeypatch.setattr(attention_handlers, "MAX_TOKENS", 8)
    monkeypatch.setattr(engine, "attention", None)
    assert "maps are drawn for up to 8" in handlers.read("hi", "base", "none", "long enough")["problem"]


@pytest.mark.parametrize(
    "question",
    [{"layer": 99, "head": 0}, {"layer": "x", "head": 0}, {"layer": True, "head": 0}, {"layer": 0, "head": 99}, {"layer": 0}],
)
def test_what_the_browser_would_not_ask_is_answered_all_the_same(handlers, question):
    key = handlers.read(*BITUNE)["key"]
    assert handlers.picture({"key": key, **question})["problem"]
    assert handlers.picture({"key": None, **question})["problem"]


def test_the_arrays_are_the_recorded_ones(handlers, engine):
    key = handlers.read(*BITUNE)["key"]
    file = handlers.arrays({"key": key, "layer": 1})
    assert file["name"] == "attention-layer-1.safetensors"
    content = b64decode(file["data"])
    found = load(content)
    whole = engine.attention("hello", "bitune", range(LAYERS), answer="good day")
    np.testing.assert_array_equal(found["pass.bidirectional"], whole.passes["bidirectional"][1])
    np.testing.assert_array_equal(found["answer.mixed"], whole.answer.mixed[1])
    np.testing.assert_array_equal(found["summary.causal.entropy"], whole.summaries["causal"].entropy)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["tokens"]) == list(whole.tokens)


def test_what_ifs_can_be_read_too(handlers):
    question = {"of": "bitune", "keys": [0.0] * LAYERS, "values": [0.0] * LAYERS, "colour": 0}
    value = handlers.read("hello", "causal only", "own", "good", {"causal only": question})
    assert value["variant"]["name"] == "causal only"
    first, second = (unpacked(packed, value["rows"]) for packed in value["picture"]["maps"])
    np.testing.assert_allclose(first[value["prompt_rows"] :], second[value["prompt_rows"] :], atol=0.01)


def test_compares_latest_run_is_offered(handlers, engine):
    assert handlers.offer(Screen("")) is None
    *_, last = CompareHandlers(engine, {}).run("hello", ["base", "lora", "bitune"], "chat", 8, 0, 1, 0)
    offer = handlers.offer(last)
    assert (offer.prompt, offer.template, offer.variant) == ("hello", "chat", "bitune")
    assert offer.answer == last.update["bitune"].text
    assert handlers.answer_of(offer, "lora", "hello", offer.answer) == last.update["lora"].text
    assert handlers.answer_of(offer, "lora", "hello", "my own") == "my own"
    assert handlers.answer_of(offer, "lora", "my own", offer.answer) == offer.answer
    assert handlers.answer_of(None, "lora", "hello", "") == ""


@pytest.fixture(scope="module")
def client(engine):
    with served(engine) as address:
        yield Client(address, verbose=False, analytics_enabled=False)


def test_programs_get_plain_arrays(client, engine):
    answer = client.predict("hello", "bitune", layer=2, answer="day", api_name="/attention")
    whole = engine.attention("hello", "bitune", [2], answer="day")
    np.testing.assert_allclose(answer["passes"]["bidirectional"], whole.passes["bidirectional"][0], atol=1e-4)
    np.testing.assert_allclose(answer["answer"]["mixed"], whole.answer.mixed[0], atol=1e-4)
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


def test_a_head_is_a_whole_number():
    for head in (True, 1.5, "1"):
        with pytest.raises(ConfigError, match="no head"):
            maps.check_head(head, 4)
