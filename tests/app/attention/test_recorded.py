"""The recorded map: made by a real run, small, honest about what it is, and refused in words where it is broken."""

import json
from importlib.metadata import version

import pytest

from app.attention import recorded
from app.attention.handlers import AttentionHandlers
from app.ui.examples import EXAMPLES
from bitune.errors import DataError
from tests.app.attention.test_maps import unpacked
from tests.browser.served import tiny_engine
from tests.closeness import assert_close


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


def test_it_comes_back_as_what_a_reading_shows(engine, tmp_path):
    made = recorded.record(engine)
    path = tmp_path / "attention.json"
    path.write_text(recorded.to_json(made), encoding="utf-8")
    value = recorded.load(path).screen
    assert value["variant"]["name"] == "bitune" and "key" not in value
    assert "".join(value["tokens"]).startswith(f"Question: {EXAMPLES[0].prompt}")
    *_, last = engine.stream(EXAMPLES[0].prompt, ["bitune"], max_new_tokens=24)
    answer = last["bitune"].text
    (screen,) = AttentionHandlers(engine).run("bitune", prompt=EXAMPLES[0].prompt, template="own", answer=answer)
    for name in ("tokens", "passes", "rows"):
        assert screen.value[name] == value[name]
    for name in ("tiny-llama", "bitune", "computed earlier"):
        assert name in value["recorded"]
    assert made.libraries["torch"] == version("torch")


def test_the_shipped_one_is_small_and_of_the_first_example():
    value = recorded.load().screen
    assert recorded.PATH.stat().st_size < 60_000
    assert EXAMPLES[0].prompt in "".join(value["tokens"])
    assert len(value["passes"]) == 2 and value["opened"]["layer"] == value["picture"]["layer"]
    for square in value["picture"]["maps"]:
        rows = unpacked(square, value["rows"]).sum(1)
        assert_close(rows, [1.0] * value["rows"], allowed=value["rows"] / 510 * square["rest"]["most"] + 0.02)


def test_without_the_file_there_is_none_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "attention.json"
    assert recorded.load(path) is None
    path.write_text(json.dumps({"format": "something else"}))
    with pytest.raises(DataError, match="attention.json is not a recorded map"):
        recorded.load(path)
