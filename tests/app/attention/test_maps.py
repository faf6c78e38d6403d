"""Attention maps on their way to the browser: 8 bits, rows, labels, names of the passes."""

import json
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest

from app.attention import maps
from bitune.errors import ConfigError
from bitune.schema.results import AnswerMaps, AttentionMaps, HeadSummary
from tests.closeness import assert_close


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
    maps_of_one_layer = made()
    for packed, square in zip(
        maps.picture(maps_of_one_layer, 0, head)["maps"], maps.squares(maps_of_one_layer, 0, head), strict=True
    ):
        error = np.abs(unpacked(packed, 7) - square)
        assert error[:, 0].max() <= square[:, 0].max() / 510 * 1.001
        assert error[:, 1:].max() <= square[:, 1:].max() / 510 * 1.001


def test_rows_are_the_prompt_and_then_the_answer():
    maps_of_one_layer = made()
    first, second = maps.squares(maps_of_one_layer, 0, 1)
    np.testing.assert_array_equal(first[:5, :5], maps_of_one_layer.passes["causal"][0, 1])
    np.testing.assert_array_equal(first[5:], maps_of_one_layer.answer.first_pass[0, 1])
    np.testing.assert_array_equal(second[5:], maps_of_one_layer.answer.mixed[0, 1])
    assert not second[:5, 5:].any(), "the prompt was read before the answer"
    mean = maps.squares(maps_of_one_layer, 0, None)[0]
    assert_close(mean[:5, :5], maps_of_one_layer.passes["causal"][0].astype(np.float32).mean(0))


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


def test_passes_are_named_by_what_they_see():
    maps_of_one_layer = made()
    assert [r["attention"] for r in maps.described_passes(maps_of_one_layer)] == ["causal", "bidirectional"]
    twice = replace(
        maps_of_one_layer,
        passes={"causal": maps_of_one_layer.passes["causal"], "second causal": maps_of_one_layer.passes["causal"]},
    )
    assert [r["attention"] for r in maps.described_passes(twice)] == ["causal", "causal"]
    back = replace(maps_of_one_layer, passes={"anticausal": maps_of_one_layer.passes["causal"]})
    assert [(r["attention"], r["title"]) for r in maps.described_passes(back)] == [("anticausal", "The one reading")]


def test_a_head_is_a_whole_number():
    for head in (True, 1.5, "1"):
        with pytest.raises(ConfigError, match="no head"):
            maps.check_head(head, 4)
