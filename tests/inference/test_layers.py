"""Effects of mixing and the layer lens on an engine: what is measured while it is, and what is refused."""

import threading
from contextlib import closing

import pytest

from bitune import ConfigError, Engine, MixingRatios, PromptError, UnknownNameError
from bitune.cancellation import Cancelled, cancellable
from bitune.data.encoding import text_ids
from bitune.inference.layers import layer_lens, stream_mixing_effects
from bitune.model import effects as measuring
from bitune.schema.conversation import Turn
from bitune.schema.variants import WhatIf
from tests.closeness import assert_close
from tests.tiny import bitune_on, tiny_base
from tests.unharmed import hooks

PROMPT = "Which way does it read?"
ANSWER = "both"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    base, folder = tiny_base(), tmp_path_factory.mktemp("checkpoints")
    for seed, method in enumerate(("lora", "bitune"), 1):
        model = bitune_on(base, method, seed=seed, prompt_template="Q: {prompt}\nA:")
        model.save_pretrained(folder / method)
        model.release()
    engine = Engine(base)
    for method in ("lora", "bitune"):
        engine.add_checkpoint(folder / method)
    return engine


@pytest.fixture
def answer(engine):
    (ids,) = text_ids([ANSWER], engine.base.tokenizer)
    return ids


def test_effects_are_differences_of_the_engines_own_log_probabilities(engine, answer):
    """Of what-ifs with one layer changed; the changes of tokens are tested beside the model."""
    *_, found = stream_mixing_effects(engine, PROMPT, "bitune", answer)
    learned = engine.mixing("bitune")

    def with_layer(kind: str, layer: int, alpha: float) -> MixingRatios:
        ratios = {"keys": list(learned.keys), "values": list(learned.values)}
        ratios[kind][layer] = alpha
        return MixingRatios(**{name: tuple(values) for name, values in ratios.items()})

    what_ifs = {
        f"{word}_{kind} {layer}": WhatIf("bitune", with_layer(kind, layer, alpha))
        for word, alpha in (("undone", 0.0), ("completed", 1.0))
        for kind in ("keys", "values")
        for layer in range(learned.layers)
    }
    scores = engine.log_probabilities(PROMPT, ["bitune", *what_ifs], answer, what_ifs=what_ifs)
    assert_close(found.log_probability, scores["bitune"])
    for name in ("undone_keys", "undone_values", "completed_keys", "completed_values"):
        expected = [scores[f"{name} {layer}"] - scores["bitune"] for layer in range(learned.layers)]
        assert_close(getattr(found.layers, name), expected, name, size=abs(scores["bitune"]))
    assert len(found.tokens) == len(found.prompt) - 1
    assert "".join(found.prompt) == f"Q: {PROMPT}\nA:"
    assert "".join(found.answer) == ANSWER


def test_what_is_known_grows_until_all_is(engine, answer, monkeypatch):
    monkeypatch.setattr(measuring, "_TOKENS_A_TURN", 4 * len(answer))
    steps = list(stream_mixing_effects(engine, PROMPT, "bitune", answer))
    whole = 2 + 4 * 4 + len(steps[0].prompt) - 1
    assert [step.measured for step in steps] == [(min(3 * turn, whole), whole) for turn in range(len(steps))]
    assert steps[0].undone is None
    assert steps[1].undone == steps[-1].undone
    assert steps[1].layers.undone_keys[0] is not None
    assert steps[1].layers.undone_values[0] is None


def test_a_what_if_is_measured_from_its_own_ratios(engine, answer):
    what_ifs = {"causal": WhatIf("bitune", MixingRatios.constant(4, 0.0))}
    *_, found = stream_mixing_effects(engine, PROMPT, "causal", answer, what_ifs=what_ifs)
    *_, learned = stream_mixing_effects(engine, PROMPT, "bitune", answer)
    assert found.undone == 0.0
    assert set(found.layers.undone_keys) == set(found.tokens) == {0.0}
    assert_close(found.log_probability, learned.log_probability + learned.undone, size=abs(learned.log_probability))


def test_a_prompt_that_was_answered_is_not_read_again(engine, answer, monkeypatch):
    list(stream_mixing_effects(engine, PROMPT, "bitune", answer))
    monkeypatch.setattr("bitune.model.passes.run_passes", lambda *_: pytest.fail("a pass ran again"))
    list(stream_mixing_effects(engine, PROMPT, "bitune", answer))
    layer_lens(engine, PROMPT, ["bitune"])


def test_cancelled_between_turns(engine, answer, monkeypatch):
    monkeypatch.setattr(measuring, "_TOKENS_A_TURN", 4 * len(answer))
    before, stop = hooks(engine.base.model), threading.Event()
    with cancellable(stop), closing(stream_mixing_effects(engine, PROMPT, "bitune", answer)) as steps:
        next(steps)
        next(steps)
        stop.set()
        with pytest.raises(Cancelled):
            next(steps)
    assert hooks(engine.base.model) == before
    assert not engine.manager._turns.is_mine


def test_the_lens_has_a_row_for_every_cache_and_ends_in_what_is_said(engine, answer):
    readings = layer_lens(engine, PROMPT, ["base", "lora", "bitune"], answer, 2)
    assert [(one.variant, one.cache) for one in readings] == [
        ("base", "own"),
        ("lora", "own"),
        ("bitune", "own"),
        ("bitune", "first_pass"),
    ]
    assert {one.token for one in readings} == {ANSWER[2]}
    for one in readings:
        assert len(one.probabilities) == len(one.guesses) == 4
        assert all(guesses[0].probability == max(guess.probability for guess in guesses) for guesses in one.guesses)
    before, after = (engine.log_probabilities(PROMPT, ["base", "lora", "bitune"], answer[:length]) for length in (2, 3))
    own = {one.variant: one.probabilities[-1] for one in readings if one.cache == "own"}
    for name, probability in own.items():
        assert probability == pytest.approx(2.718281828459045 ** (after[name] - before[name]), rel=1e-4)


def test_without_an_answer_the_lens_follows_what_each_variant_says(engine):
    update = list(engine.stream(PROMPT, ["base", "bitune"], max_new_tokens=1))[-1]
    readings = layer_lens(engine, PROMPT, ["base", "bitune"])
    said = {name: engine.base.tokenizer.decode(completion.token_ids) for name, completion in update.completions.items()}
    for one in readings:
        assert one.token == said[one.variant]
        if one.cache == "own":
            assert one.guesses[-1][0].text == one.token
            assert one.guesses[-1][0].probability == one.probabilities[-1]


def test_what_cannot_be_measured_is_refused_in_a_sentence(engine, answer):
    def first(*given, **options):
        return next(stream_mixing_effects(engine, *given, **options))

    with pytest.raises(ConfigError, match="'lora' reads the prompt once and mixes nothing"):
        first(PROMPT, "lora", answer)
    with pytest.raises(ConfigError, match="There is no answer"):
        first(PROMPT, "bitune", [])
    with pytest.raises(PromptError, match="one token long"):
        first("W", "bitune", answer, template="none")
    with pytest.raises(ConfigError, match="no token of this base"):
        first(PROMPT, "bitune", [10**6])
    with pytest.raises(UnknownNameError, match="bitume"):
        first(PROMPT, "bitume", answer)
    with pytest.raises(ConfigError, match="There is no position 5 in an answer of 4 tokens"):
        layer_lens(engine, PROMPT, ["base"], answer, 5)


def test_a_conversation_that_is_read_turn_by_turn_is_refused(engine, answer):
    history = [Turn("Hello.", {"bitune": "Hi."})]
    for run in (
        lambda **options: next(stream_mixing_effects(engine, PROMPT, "bitune", answer, history=history, **options)),
        lambda **options: layer_lens(engine, PROMPT, ["bitune"], history=history, **options),
    ):
        run(earlier="recompute")
        with pytest.raises(ConfigError, match="turn by turn"):
            run(earlier="alternating")
