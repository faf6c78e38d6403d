"""Attention maps against the definition of attention, summaries against plain loops, what-ifs against rows of the table."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitune import BituneModel, ConfigError, Engine, MixingRatios, UnknownNameError
from bitune.inference.sweep import stream_sweep, sweep
from bitune.model.maps import attention_maps, moved_cache, summarize
from bitune.model.prefill import run_passes
from bitune.modeling.interface import attention_modules, before_each_layer
from bitune.modeling.recorder import recording
from bitune.schema.variants import PRESETS, WhatIf
from tests.closeness import assert_apart, assert_close
from tests.tiny import FAMILIES, GEMMA3_LAYERS, WINDOW, bitune_on, ids, tiny_base, tiny_model

HALF = 2**-11  # maps are kept as float16: a weight is at most 1, so rounding moves it by this and less
families = pytest.mark.parametrize("family", sorted(FAMILIES))


class Call(NamedTuple):
    """What one layer attended with: queries [rows, heads, tokens, dim], keys of as many heads or fewer, the factor of scores."""

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    scaling: float

    def weights(self, seen: torch.Tensor, row: int = 0) -> torch.Tensor:
        """[heads, query, key] by the definition of attention: softmax(q k^T x scaling) over what `seen`, bool [query, key], shows."""
        key = self.key[row].repeat_interleave(self.query.shape[1] // self.key.shape[1], dim=0)
        scores = self.query[row] @ key.transpose(1, 2) * self.scaling
        return scores.masked_fill(~seen, float("-inf")).softmax(-1)


@pytest.fixture
def attended(monkeypatch) -> Callable[[PreTrainedModel], list[Call]]:
    """Gives a list to which every attention of a model adds what it was given, in the function that the model itself runs.

    So recorded weights are compared for the same queries and keys: those of a second forward would differ by rounding from the
    first layer on.
    """

    def attend(model: PreTrainedModel) -> list[Call]:
        calls: list[Call] = []

        def noting(function):
            def noted(module, query, key, *others, scaling, **arguments):
                calls.append(Call(module.layer_idx, query, key, scaling))
                return function(module, query, key, *others, scaling=scaling, **arguments)

            return noted

        if model.config._attn_implementation == "sdpa":
            monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", noting(ALL_ATTENTION_FUNCTIONS["sdpa"]))
        else:
            module = inspect.getmodule(type(attention_modules(model.modules())[0]))
            monkeypatch.setattr(module, "eager_attention_forward", noting(module.eager_attention_forward))
        return calls

    return attend


def layer_types(family: str) -> list[str]:
    return {"gemma3": GEMMA3_LAYERS, "mistral": ["sliding_attention"] * 4}.get(family, ["full_attention"] * 4)


def seen_by_layer(family: str, attention: str, tokens: int) -> dict[int, torch.Tensor]:
    """What each layer of a tiny model may see, bool [query, key]; a window reaches as far ahead as back."""
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
    everything = torch.ones_like(distance, dtype=torch.bool)
    seen = {"causal": distance >= 0, "bidirectional": everything}[attention]
    layers = enumerate(layer_types(family))
    return {i: seen & (distance.abs() < WINDOW) if kind == "sliding_attention" else seen for i, kind in layers}


@families
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_recorded_weights_are_the_models(family, attention, attended):
    model = bitune_on(tiny_model(family, attention))
    (prompt,) = ids(11)
    calls = attended(model.base)
    for reading in model.variant.passes:
        calls.clear()
        taken = {}
        with (
            recording(model.base, lambda layer, weights, taken=taken: taken.__setitem__(layer, weights[0].clone())),
            torch.no_grad(),
        ):
            recorded, _ = run_passes(model.manager, prompt, torch.ones_like(prompt), [(reading, 0)])
        seen = seen_by_layer(family, reading.attention, 11)
        assert [call.layer for call in calls] == list(range(4)) == sorted(taken)
        for call in calls:
            assert_close(taken[call.layer], call.weights(seen[call.layer]))
            assert_close(taken[call.layer].sum(-1), torch.ones(4, 11))
        assert model.base.config._attn_implementation == attention, "the implementation is restored"
        with torch.no_grad():
            plain, _ = run_passes(model.manager, prompt, torch.ones_like(prompt), [(reading, 0)])
        for a, b in zip(recorded.layers, plain.layers, strict=True):
            assert_close(a.keys, b.keys)
            assert_close(a.values, b.values)


@families
def test_look_ahead_is_exactly_zero_causally_and_above_zero_both_ways(family):
    model = bitune_on(tiny_model(family))
    (prompt,) = ids(12)
    maps = attention_maps(model.manager, model.variant, prompt[0].tolist(), [], range(4))
    assert not maps.summaries["causal"].look_ahead.any()
    assert (maps.summaries["bidirectional"].look_ahead > 0).all()
    assert not np.triu(maps.passes["causal"], 1).any()


def test_summaries_equal_plain_loops(attended):
    model = bitune_on(tiny_model())
    (prompt,) = ids(9)
    calls = attended(model.base)
    maps = attention_maps(model.manager, model.variant, prompt[0].tolist(), [], range(4))
    for number, reading in enumerate(model.variant.passes):
        seen, summary = seen_by_layer("llama", reading.attention, 8), maps.summaries[reading.attention]
        for call in calls[:4]:  # both passes are rows of one forward
            weights = call.weights(seen[call.layer], number)
            for head in range(4):
                ahead = entropy = distance = first = 0.0
                for q in range(8):
                    for k in range(8):
                        w = float(weights[head, q, k])
                        ahead += w * (k > q) / 8
                        entropy -= (w * np.log(w) if w > 0 else 0) / 8
                        distance += w * abs(q - k) / 8
                        first += w * (k == 0) / 8
                found = [getattr(summary, key)[call.layer, head] for key in ("look_ahead", "entropy", "distance", "first_token")]
                assert_close(found, [ahead, entropy, distance, first])


def test_summary_of_an_answers_rows_counts_positions_from_the_end():
    uniform = torch.full((1, 2, 5), 0.2)  # queries at positions 3 and 4 of five keys
    result = summarize(uniform)
    assert_close(result["look_ahead"].item(), 0.1)
    assert_close(result["distance"].item(), ((3 + 2 + 1 + 0 + 1) + (4 + 3 + 2 + 1 + 0)) / 5 / 2)


@families
def test_answer_rows_attend_to_the_mixed_cache(family):
    """alpha 0 leaves the cache of the first pass: both maps agree then, and differ with the learned ratios; rows sum to 1."""
    model = bitune_on(tiny_model(family))
    prompt, answer = ids(12, 4)
    layers = model.manager.layout.layers
    only = model.variant.with_mixing(MixingRatios.constant(layers, 0.0))
    same = attention_maps(model.manager, only, prompt[0].tolist(), answer[0].tolist(), [1, 3])
    np.testing.assert_array_equal(same.answer.mixed, same.answer.first_pass)
    assert not np.nan_to_num(same.moved_keys).any() and not np.nan_to_num(same.moved_values).any()
    maps = attention_maps(model.manager, model.variant, prompt[0].tolist(), answer[0].tolist(), [1, 3])
    assert maps.answer.mixed.shape == (2, 4, 4, 15)
    assert_close(maps.answer.mixed.astype(np.float32).sum(-1), np.ones((2, 4, 4)), allowed=15 * HALF)
    assert_apart(maps.answer.mixed, maps.answer.first_pass, least=10 * HALF)
    # A layer with a window keeps its last tokens only; of the others it is not known how far they moved.
    sliding = [kind == "sliding_attention" for kind in layer_types(family)]
    kept = np.arange(11) >= np.array([[11 - (WINDOW - 1) if slides else 0] for slides in sliding])
    for moved in (maps.moved_keys, maps.moved_values):
        np.testing.assert_array_equal(moved > 0, kept)
        np.testing.assert_array_equal(np.isnan(moved), ~kept)


def test_how_far_the_cache_moved():
    """With alpha 1 the cache is the second pass: the distance between the two passes, token by token."""
    model = bitune_on(tiny_model())
    (prompt,) = ids(8)
    full = model.variant.with_mixing(MixingRatios.constant(4, 1.0))
    maps = attention_maps(model.manager, full, prompt[0].tolist(), [], [])
    with torch.no_grad():
        prefix = prompt[:, :-1]
        cache, _ = run_passes(model.manager, prefix, torch.ones_like(prefix), [(p, 0) for p in model.variant.passes])
    forwards = []
    with model.manager.eval_turn(), before_each_layer(model.manager.modules, lambda: forwards.append(1)):
        keys, values = moved_cache(model.manager, full, prompt[0].tolist())
    assert not forwards, "the passes are remembered, and no map is wanted"
    np.testing.assert_array_equal(keys, maps.moved_keys)
    np.testing.assert_array_equal(values, maps.moved_values)
    for layer, part in enumerate(cache.layers):
        for token in range(7):
            for values, found in ((part.keys, maps.moved_keys), (part.values, maps.moved_values)):
                first, second = values[0, :, token].flatten(), values[1, :, token].flatten()
                assert_close(found[layer, token], (second - first).norm() / first.norm())


def test_prompts_of_one_and_two_tokens():
    model = bitune_on(tiny_model())
    for length in (1, 2):
        (prompt,) = ids(length)
        maps = attention_maps(model.manager, model.variant, prompt[0].tolist(), [5], [0])
        assert maps.passes["causal"].shape == (1, 4, length - 1, length - 1)
        assert maps.answer.mixed.shape == (1, 4, 1, length)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    base = tiny_base()
    for name, method in (("qa", "bitune"), ("plain", "lora")):
        model = bitune_on(base, method)
        model.save_pretrained(folder / name)
        model.release()
    engine = Engine(base)
    engine.add_checkpoint(folder / "qa")
    engine.add_checkpoint(folder / "plain")
    return engine


def test_the_engine_names_tokens(engine):
    maps = engine.attention("Wörld?", "qa", layers=[3], answer="yes", template="none")
    assert (maps.prompt_tokens, len(maps.tokens)) == (7, 10)
    assert "".join(maps.tokens[-3:]) == "yes"
    assert maps.passes["causal"].dtype == np.float16
    assert maps.passes["bidirectional"].shape == (1, 4, 6, 6)
    assert maps.layers == (3,)
    assert set(engine.attention("one pass", "plain", layers=[0]).passes) == {"causal"}


def test_two_passes_alike_keep_both_maps():
    model = bitune_on(tiny_model(), "only_causal")
    maps = attention_maps(model.manager, model.variant, list(range(5, 14)), [], [0])
    assert list(maps.passes) == list(maps.summaries) == ["causal", "second causal"]
    assert_apart(maps.passes["causal"], maps.passes["second causal"], least=10 * HALF)


def test_layers_that_are_not_there(engine):
    with pytest.raises(ConfigError, match="no layer 4"):
        engine.attention("Hello", "qa", layers=[4])


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize(("preset", "method"), [("causal only", None), ("bidirectional only", "no_mixing")])
def test_what_if_limits_equal_rows_of_the_table(engine, preset, method):
    """Token for token: causal only is the LoRA of adapter A; bidirectional only is "no mixing" of the same adapters."""
    from dataclasses import replace

    learned = engine.variants["qa"]
    reading = learned.passes[0 if method is None else 1]
    engine.add_variant("row", replace(learned, passes=(reading,), mixing=None))
    try:
        question = WhatIf("qa", PRESETS[preset](engine.mixing("qa")))
        *_, last = engine.stream("Hello you", ["qa", "row", "if"], template="none", max_new_tokens=16, what_ifs={"if": question})
    finally:
        engine.remove_variant("row")
    assert last["if"].text == last["row"].text != last["qa"].text


@pytest.fixture
def sizes(engine, monkeypatch) -> list[tuple[int, int]]:
    """The (rows, tokens) of every forward of the engine's decoder from now on; nothing is remembered before."""
    sizes = []
    decoder = type(engine.base.model.base_model)
    forward = decoder.forward
    monkeypatch.setattr(
        decoder,
        "forward",
        lambda self, input_ids=None, **k: sizes.append(tuple(input_ids.shape)) or forward(self, input_ids=input_ids, **k),
    )
    engine.manager.passes.clear()
    return sizes


@pytest.mark.usefixtures("clear_choices")
def test_what_ifs_share_the_prompt_passes(engine, sizes):
    learned = engine.mixing("qa")
    what_ifs = {name: WhatIf("qa", preset(learned)) for name, preset in PRESETS.items()}
    *_, last = engine.stream("Hello you", ["qa", *what_ifs], template="none", max_new_tokens=2, what_ifs=what_ifs)
    assert [rows for rows, _ in sizes[:2]] == [2, 5], "two passes, then five rows that answer"
    assert last["learned"].text == last["qa"].text
    *_, again = engine.stream("Hello you", ["qa", *what_ifs], template="none", max_new_tokens=2, what_ifs=what_ifs)
    assert sizes[-2:] == [(5, 1), (5, 1)], "both tokens of the answer; the passes come from memory"
    assert {name: one.text for name, one in again.completions.items()} == {
        name: one.text for name, one in last.completions.items()
    }


def test_maps_leave_their_passes_in_memory_and_run_them_once(engine, sizes):
    engine.attention("Hello you", "qa", [1], template="none", answer="A")
    assert sizes == [(2, 8), (2, 1)], "both passes in one forward, and the answer on both caches"
    *_, last = engine.stream("Hello you", ["qa"], template="none", max_new_tokens=1)
    assert sizes[2:] == [(1, 1)] and last["qa"].tokens == 1


def test_maps_after_an_answer_run_nothing_but_the_answer(engine, sizes):
    """The passes of a comparison are kept with their queries, of its whole batch: what is computed from them is what is recorded."""
    prompt = "Hello you"
    recorded = engine.attention(prompt, "qa", [1, 3], template="none", answer="A")
    engine.manager.passes.clear()
    list(engine.stream(prompt, ["qa", "plain", "base"], template="none", max_new_tokens=1))
    sizes.clear()
    known = engine.attention(prompt, "qa", [1, 3], template="none", answer="A")
    assert sizes == [(2, 1)], "the answer on both caches"
    for name in ("causal", "bidirectional"):
        assert_close(known.passes[name], recorded.passes[name], allowed=2 * HALF)
        for measure in ("look_ahead", "entropy", "distance", "first_token"):
            found, expected = (getattr(maps.summaries[name], measure) for maps in (known, recorded))
            assert_close(found, expected, measure)
    assert_close(known.answer.mixed, recorded.answer.mixed, allowed=2 * HALF)


@pytest.mark.usefixtures("clear_choices")
def test_queries_are_the_first_that_memory_has_no_room_for(engine, sizes):
    store = engine.manager.passes
    list(engine.stream("Hello you", ["qa"], template="none", max_new_tokens=1))
    kept, limit = len(store), store.limit
    try:
        store.limit = store.nbytes - 1
        assert len(store) == kept
        sizes.clear()
        maps = engine.attention("Hello you", "qa", [1], template="none")
        assert sizes == [(2, 8), (2, 1)], "read again, and the answer"
        assert maps.summaries["bidirectional"].look_ahead.all()
    finally:
        store.limit = limit


def test_what_ifs_that_make_no_sense(engine):
    with pytest.raises(ConfigError, match="mixes nothing"):
        engine.stream("Hello", ["if"], what_ifs={"if": WhatIf("plain", MixingRatios.constant(4, 0.5))})
    with pytest.raises(ConfigError, match="4 ratios"):
        engine.stream("Hello", ["if"], what_ifs={"if": WhatIf("qa", MixingRatios.constant(3, 0.5))})
    with pytest.raises(UnknownNameError):
        engine.stream("Hello", ["if"], what_ifs={"if": WhatIf("qb", MixingRatios.constant(4, 0.5))})
    with pytest.raises(ConfigError, match="already there"):
        engine.stream("Hello", ["qa"], what_ifs={"qa": WhatIf("qa", MixingRatios.constant(4, 0.5))})


def test_scaling_goes_from_one_pass_to_the_other():
    ratios = MixingRatios((0.2, 0.8), (0.0, 1.0))
    assert ratios.scaled(0) == MixingRatios.constant(2, 0.0)
    assert ratios.scaled(1) == ratios
    assert ratios.scaled(2) == MixingRatios.constant(2, 1.0)
    assert ratios.scaled(0.5).keys == (0.1, 0.4)
    assert_close(ratios.scaled(1.5).keys, (0.6, 0.9))
    assert ratios.with_layers(1, 1, 0.5) == MixingRatios((0.2, 0.5), (0.0, 0.5))
    with pytest.raises(ConfigError):
        ratios.scaled(2.5)
    with pytest.raises(ConfigError, match="not among the layers 0 to 1"):
        ratios.with_layers(1, 2, 0.5)
    with pytest.raises(ConfigError, match="run backwards"):
        ratios.with_layers(1, 0, 0.5)


@pytest.mark.usefixtures("clear_choices")
def test_a_sweep_goes_through_the_learned_answer(engine):
    points = sweep(engine, "Hello you", "qa", [0, 1, 2], template="none", max_new_tokens=8)
    *_, learned = engine.stream("Hello you", ["qa"], template="none", max_new_tokens=8)
    assert points[1].completion.text == learned["qa"].text
    assert points[1].log_probability > max(points[0].log_probability, points[2].log_probability)
    assert [p.factor for p in points] == [0, 1, 2]
    # A greedy answer's probability is the product of its steps' largest: recomputed here over the whole sequence.
    model = BituneModel.from_pretrained(engine.checkpoints["qa"].source, base=tiny_base())
    answer = list(learned["qa"].token_ids)
    with torch.no_grad():
        loss = model(torch.tensor([engine.prompt_ids("Hello you", "qa", template="none")]), torch.tensor([answer])).loss
    assert_close(points[1].log_probability, -loss.item() * len(answer))


def test_a_sweep_streams_its_answers_and_can_be_stopped(engine):
    *parts, last = stream_sweep(engine, "Hello you", "qa", [0, 1, 2], template="none", max_new_tokens=8)
    assert all(point.log_probability is None for points in parts for point in points)
    assert [p.completion.text for p in parts[-1]] == [p.completion.text for p in last]
    running = stream_sweep(engine, "Hello you", "qa", template="none", max_new_tokens=400)
    assert len(next(running)) == 9
    running.close()
    assert sweep(engine, "Hello", "qa", [1], template="none", max_new_tokens=2)[0].completion.tokens
