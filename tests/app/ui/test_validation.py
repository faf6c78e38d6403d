"""What pydantic refuses becomes one sentence with the field, the value and the cause."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from app.ui.checks import names, shown, whole
from app.ui.validation import checked
from bitune.errors import ConfigError


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    number: float = 0.0
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"name": "x", "number": "hot"}, "The link says number='hot', which is not a number."),
        ({"name": 3}, "The link says name=3, which is not text."),
        ({"name": "x", "kind": "c"}, "The link says kind='c', which is not among 'a' or 'b'."),
        ({}, "The link must be an object with exactly the fields name; name is missing."),
        ({"name": "x", "more": 1}, "The link must be an object with exactly the fields name; more is none of them."),
        ("x", "The link must be an object with exactly the fields name; this is none."),
    ],
)
def test_what_is_refused_is_a_sentence(value, sentence):
    with pytest.raises(ConfigError) as caught:
        checked(Fields, value, "The link")
    assert str(caught.value) == sentence


def test_long_values_are_cut():
    assert len(shown("x" * 1_000_000)) <= 42


def test_whole_numbers_and_names():
    assert [whole(value) for value in (64.0, 1.5, "x", True)] == [64, 1.5, "x", True]
    assert names(["a"]) == ("a",)
    with pytest.raises(ConfigError, match="checkpoints must be a list of names"):
        names("a", "checkpoints")
