"""What-ifs as plain values: what is refused, how they are called, and that one removed leaves the others as they were."""

import pytest

from app.compare.request import CompareRequest
from app.ui.variants import VariantView, with_what_ifs
from app.ui.what_ifs import MAX_WHAT_IFS, add, free_name, label, plain, read
from bitune.errors import ConfigError
from bitune.schema.variants import PRESETS, MixingRatios, WhatIf

LEARNED = MixingRatios((0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8))
GOOD = {"of": "qa", "keys": [0.0, 1, 0.5], "values": [0.25, 0.5, 1.0]}


def test_plain_values_and_back():
    questions = read({"if": GOOD})
    assert questions == {"if": WhatIf("qa", MixingRatios((0.0, 1.0, 0.5), (0.25, 0.5, 1.0)))}
    assert plain(questions["if"]) == GOOD
    assert read(None) == read({}) == {}
    assert read({"if": {**GOOD, "colour": 2}}) == questions, "the page's own colour is no part of the question"


@pytest.mark.parametrize(
    "value",
    [
        "if",
        ["if"],
        {"": GOOD},
        {"if": None},
        {"if": {"of": "qa", "keys": [0.5]}},
        {"if": {**GOOD, "more": 1}},
        {"if": {**GOOD, "of": ["qa"]}},
        {"if": {**GOOD, "keys": "0.5"}},
        {"if": {**GOOD, "keys": [0.5, "0.5", 0.5]}},
        {"if": {**GOOD, "keys": [0.5, True, 0.5]}},
        {"if": {**GOOD, "keys": [0.5]}},
        {"if": {**GOOD, "keys": [0.5, 1.5, 0.5]}},
        {"if": {**GOOD, "keys": [0.5, float("nan"), 0.5]}},
        {str(i): GOOD for i in range(MAX_WHAT_IFS + 1)},
    ],
)
def test_what_is_no_what_if_is_a_sentence(value):
    with pytest.raises(ConfigError):
        CompareRequest(prompt="hi", variants=["qa"], what_ifs=value)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_go_by_their_name(preset):
    assert label(PRESETS[preset](LEARNED), LEARNED) == preset


def test_other_ratios_are_named_by_what_they_change():
    assert label(LEARNED.with_layers(1, 2, 0.0), LEARNED) == "layers 1 to 2 at 0.00"
    assert label(LEARNED.with_layers(3, 3, 0.9), LEARNED) == "layer 3 at 0.90"
    assert label(MixingRatios((0.9, 0.2, 0.3, 0.4), LEARNED.values), LEARNED) == "own curve"


def test_names_are_new_and_colours_stay():
    what_ifs: dict = {}
    for alpha in (0.0, 1.0, 0.5):
        what_ifs, _ = add(what_ifs, WhatIf("qa", MixingRatios.constant(4, alpha)), LEARNED, ["base", "qa"])
    assert list(what_ifs) == ["qa: causal only", "qa: bidirectional only", "qa: half and half"]
    again, name = add(what_ifs, WhatIf("qa", MixingRatios.constant(4, 1.0)), LEARNED, [])
    assert (again, name) == (what_ifs, "qa: bidirectional only"), "the same ratios are not added twice"
    del what_ifs["qa: causal only"]
    views = with_what_ifs({"base": VariantView("base", "", (), 0), "qa": VariantView("qa", "", (), 1)}, what_ifs)
    assert [(view.colour, view.pattern) for view in views.values()] == [(0, 1), (1, 1), (1, 2), (1, 3)]
    assert [view.what_if for view in views.values()] == [False, False, True, True]
    more, name = add(what_ifs, WhatIf("qa", MixingRatios.constant(4, 0.2)), LEARNED, ["qa: every layer at 0.20"])
    assert (name, more[name]["colour"]) == ("qa: every layer at 0.20 2", 0), "a free colour, a free name"


def test_there_is_an_end_to_them():
    what_ifs: dict = {}
    for step in range(MAX_WHAT_IFS):
        what_ifs, _ = add(what_ifs, WhatIf("qa", MixingRatios.constant(4, step / 10)), LEARNED, [])
    with pytest.raises(ConfigError, match="remove one"):
        add(what_ifs, WhatIf("qa", MixingRatios.constant(4, 0.99)), LEARNED, [])
    with pytest.raises(ConfigError, match="4 ratios"):
        add({}, WhatIf("qa", MixingRatios.constant(3, 0.5)), LEARNED, [])
    assert free_name("a", ["a", "a 2", "a 3"]) == "a 4"


def test_a_name_that_is_long_is_refused_in_few_words():
    with pytest.raises(ConfigError) as refused:
        read({"n" * 100_000: {"of": "bitune", "keys": [0.5], "values": [0.5]}})
    assert "100,000 characters" in str(refused.value) and len(str(refused.value)) < 200
