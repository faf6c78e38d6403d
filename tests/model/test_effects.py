"""Answers scored on many mixes of one prompt's readings, against a cache mixed number by number under PEFT in float64."""

import pytest

from bitune.model import effects
from bitune.model.effects import Mix, changes_by_mix
from bitune.model.prefill import run_passes
from bitune.schema.variants import MixingRatios
from tests.closeness import assert_apart, assert_close
from tests.families.by_hand import ByHand
from tests.families.subjects import Subject, tiny_model
from tests.tiny import ids

PROMPT = ids(14)[0][0].tolist()  # longer than a sliding window
ANSWER = ids(5, seed=5)[0][0].tolist()
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns about the name lora, some families about settings of their own

FAMILIES = ("llama", "gemma3_text", "gpt2", "phi")


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request):
    return Subject.of(tiny_model(request.param))


def mixes_of(ratios: MixingRatios) -> list[Mix]:
    """All layers and each layer undone and completed, keys and values apart, and each token undone."""
    found = [Mix(MixingRatios.constant(ratios.layers, alpha)) for alpha in (0.0, 1.0)]
    for layer in range(ratios.layers):
        for alpha in (0.0, 1.0):
            changed = ratios.with_layers(layer, layer, alpha)
            found += [Mix(MixingRatios(changed.keys, ratios.values)), Mix(MixingRatios(ratios.keys, changed.values))]
    return found + [Mix(ratios, undone=token) for token in range(len(PROMPT) - 1)]


def test_every_change_is_that_of_a_cache_mixed_by_hand(subject):
    variant, by_hand = subject.variants["bitune"], ByHand(subject, PROMPT)
    mixes = mixes_of(variant.mixing)
    (own,), *changes = changes_by_mix(subject.manager, variant, PROMPT, ANSWER, mixes)
    expected = by_hand.log_probability(by_hand.cache(variant.mixing), ANSWER)
    assert_close(own, expected)
    wanted = [by_hand.log_probability(by_hand.cache(mix.ratios, mix.undone), ANSWER) - expected for mix in mixes]
    found = [value for batch in changes for value in batch]
    assert_close(found, wanted, size=abs(expected))
    layers = 2 + 4 * variant.mixing.layers
    assert_apart(found[2:layers], [0.0] * (layers - 2), "one layer", size=abs(expected))
    assert_apart(found[layers:], [0.0] * (len(PROMPT) - 1), "one token", size=abs(expected))


def test_turns_of_any_size_give_the_same(subject, monkeypatch):
    variant = subject.variants["bitune"]
    mixes = mixes_of(variant.mixing)[:9]
    (own,), at_once = changes_by_mix(subject.manager, variant, PROMPT, ANSWER, mixes)
    monkeypatch.setattr(effects, "_TOKENS_A_TURN", 3 * len(ANSWER))
    (_,), *apart = changes_by_mix(subject.manager, variant, PROMPT, ANSWER, mixes)
    assert [len(batch) for batch in apart] == [2, 2, 2, 2, 1]
    assert_close([value for batch in apart for value in batch], at_once, size=abs(own))


def test_memory_bounds_a_turn(subject, monkeypatch):
    variant = subject.variants["bitune"]
    monkeypatch.setattr(effects, "_BYTES_A_TURN", 1)
    (_,), *apart = changes_by_mix(subject.manager, variant, PROMPT, ANSWER, mixes_of(variant.mixing)[:3])
    assert [len(batch) for batch in apart] == [1, 1, 1]


def test_what_changes_nothing_is_a_change_of_exactly_nothing(subject):
    """A layer that takes none of the second reading, undone: both sides of the change are rows of one forward."""
    ratios = subject.variants["bitune"].mixing.with_layers(1, 1, 0.0)
    variant = subject.variants["bitune"].with_mixing(ratios)
    (_,), changes = changes_by_mix(subject.manager, variant, PROMPT, ANSWER, [Mix(ratios), Mix(ratios.with_layers(1, 1, 0.0))])
    assert changes == [0.0, 0.0]


def test_the_passes_run_once(subject, monkeypatch):
    ran = []
    subject.manager.passes.clear()
    monkeypatch.setattr("bitune.model.passes.run_passes", lambda *given: ran.append(given[3]) or run_passes(*given))
    variant, mixes = subject.variants["bitune"], mixes_of(subject.variants["bitune"].mixing)
    monkeypatch.setattr(effects, "_TOKENS_A_TURN", 4 * len(ANSWER))
    list(changes_by_mix(subject.manager, variant, PROMPT, ANSWER, mixes))
    assert [len(wanted) for wanted in ran] == [2]
