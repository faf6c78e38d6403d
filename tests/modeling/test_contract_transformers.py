"""What bitune relies on in transformers beyond its documentation. Each test says in words what that is, and what of ours breaks.

First what would be wrong in silence: other numbers, or a Stop that stops nothing, without any exception. These tests know
transformers only, so that they tell a change of the library from a fault of ours.
"""

import copy
import inspect

import pytest
import torch
import transformers
from transformers import DynamicCache, MambaConfig, MambaForCausalLM, RwkvConfig, RwkvForCausalLM
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation.streamers import BaseStreamer

from tests.closeness import assert_apart, assert_clear, assert_close
from tests.modeling.forwards import LAYERS, cache_argument, families, run
from tests.tiny import FAMILIES, GEMMA3_LAYERS, WINDOW, ids, tiny_model

windows = pytest.mark.parametrize("family", ["llama", "gemma3", "mistral"])  # no window, in half of the layers, in all


def tensors(cache: DynamicCache) -> list[torch.Tensor]:
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]


# --- Stop -------------------------------------------------------------------------------------------------------------


@families
def test_the_modules_of_every_layer_keep_its_number_in_layer_idx(family):
    """Instance attribute `layer_idx`, on modules whose pre-hooks run in order in every forward."""
    model, ran = tiny_model(family), []
    numbered = [module for module in model.modules() if "layer_idx" in vars(module)]
    for module in numbered:
        module.register_forward_pre_hook(lambda module, _: ran.append(module.layer_idx))
    run(model, ids(7)[0], DynamicCache(config=model.config))
    expected = "a request stops inside a long prompt by pre-hooks of these modules, and attention maps are numbered by them"
    assert {module.layer_idx for module in numbered} == set(range(LAYERS)), f"{expected}: without them Stop does nothing"
    assert ran == sorted(ran) and set(ran) == set(range(LAYERS)), f"{expected}: {ran} ran"


# --- the cache ----------------------------------------------------------------------------------------------------------


@families
def test_the_cache_argument_has_the_name_that_goes_with_the_version(family):
    """`past_key_values` up to 5.23, `cache` from 5.24 on. Another name vanishes in **kwargs: the mixed cache is ignored."""
    model, renamed = tiny_model(family), tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 24)
    for forward in (model.forward, model.base_model.forward):
        assert ("cache" if renamed else "past_key_values") in inspect.signature(forward).parameters, (
            "bitune.modeling names the cache argument by version (cache_input); here the forward does not take that name"
        )


@families
def test_a_forward_writes_into_the_cache_it_is_given_and_goes_on_from_it(family):
    model, (prompt,) = tiny_model(family), ids(13)
    cache = DynamicCache(config=model.config)
    logits = torch.cat([run(model, prompt[:, :8], cache), run(model, prompt[:, 8:], cache)], dim=1)
    assert cache.get_seq_length() == 13, "prompt passes read their keys and values out of the cache that they were given"
    assert_close(logits, run(model, prompt, DynamicCache(config=model.config)))
    spoiled = DynamicCache(config=model.config)
    run(model, prompt[:, :8], spoiled)
    for layer in spoiled.layers:
        layer.values = layer.values * 3
    why = "keys and values that are put into a layer of the cache must be what is attended to: the mixed cache is such"
    assert_apart(run(model, prompt[:, 8:], spoiled), logits[:, 8:], why)


@windows
def test_generate_runs_only_what_a_given_cache_does_not_hold(family):
    """And attends to what it holds: so an answer comes from the mixed cache, and the prompt is not read a third time."""
    model, (prompt,) = tiny_model(family), ids(13)
    greedy = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
    arguments = greedy | {"attention_mask": torch.ones_like(prompt), "output_logits": True, "return_dict_in_generate": True}
    plain, sizes = model.generate(prompt, **arguments), []
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    answers = []
    for factor in (1, 3):
        cache = DynamicCache(config=model.config)
        run(model, prompt[:, :-1], cache)
        for layer in cache.layers:
            layer.values = layer.values * factor
        sizes.clear()
        answers.append(model.generate(prompt, **arguments, **{cache_argument(model): cache}))
        assert sizes == [1, 1, 1, 1], f"generate read {sizes} tokens: it must run the last prompt token and the new ones only"
    assert_clear(torch.stack(plain.logits))
    assert torch.equal(answers[0].sequences, plain.sequences)
    assert_close(torch.stack(answers[0].logits), torch.stack(plain.logits))
    assert_apart(answers[1].logits[0], plain.logits[0], "generate ignores the cache that it is given")


@windows
def test_a_shallow_copy_of_a_cache_shares_nothing_that_is_written(family):
    """copy.copy of a cache and of its layers: running on the copy leaves the original as it was, to the bit.

    bitune makes mixed, picked and joined caches so (with_layers). Were something written in place, a variant would write into
    the cache of another, and every answer after the first be wrong.
    """
    model, (prompt, more) = tiny_model(family), ids(9, 4)
    cache = DynamicCache(config=model.config)
    run(model, prompt, cache)
    before, length = [tensor.clone() for tensor in tensors(cache)], cache.get_seq_length()
    twins = []
    for _ in range(2):
        twin = copy.copy(cache)
        twin.layers = [copy.copy(layer) for layer in cache.layers]
        twins.append(run(model, more, twin))
        assert twin.get_seq_length() == length + 4
    message = "a run on a shallow copy wrote into the original; with_layers must copy more than keys and values"
    assert cache.get_seq_length() == length, message
    assert all(torch.equal(old, new) for old, new in zip(before, tensors(cache), strict=True)), message
    assert torch.equal(*twins) and torch.equal(run(model, more, cache), twins[0]), message


@windows
def test_a_layer_of_a_cache_keeps_nothing_by_row_but_keys_and_values(family):
    """So keys and values of other rows can be put into a copy (mixed, picked, joined, repeated for beams)."""
    model, (prompt, more) = tiny_model(family), ids(9, 4)
    one, three = (DynamicCache(config=model.config) for _ in range(2))
    expected = run(model, torch.cat([prompt, prompt.flip(1), prompt + 1]), three)
    run(model, prompt, one)
    for alone, many in zip(one.layers, three.layers, strict=True):
        states = [{key: value for key, value in vars(layer).items() if key not in ("keys", "values")} for layer in (alone, many)]
        assert states[0] == states[1], (
            f"a {type(alone).__name__} keeps something by row beside keys and values; with_layers copies it with the wrong rows"
        )
        rows = torch.tensor([2, 0])
        alone.keys, alone.values = many.keys[rows], many.values[rows]
    found = run(model, more.expand(2, -1), one)
    assert_close(found, run(model, more.expand(3, -1), three)[[2, 0]])
    assert_apart(expected[0], expected[2])


def test_the_cache_of_a_config_has_the_kinds_of_layers_that_the_masks_are_made_for():
    """DynamicLayer and DynamicSlidingWindowLayer, themselves and no subclass; `is_sliding` and `sliding_window` tell the window."""
    for family, types in (("llama", ["full_attention"] * 4), ("gemma3", GEMMA3_LAYERS), ("mistral", ["sliding_attention"] * 4)):
        layers = DynamicCache(config=FAMILIES[family]).layers
        kinds = [DynamicSlidingWindowLayer if kind == "sliding_attention" else DynamicLayer for kind in types]
        assert [type(layer) for layer in layers] == kinds, "check_supported refuses a base with any other kind of cache layer"
        sliding = [(layer.is_sliding, layer.sliding_window if layer.is_sliding else None) for layer in layers]
        expected = [(True, WINDOW) if kind == "sliding_attention" else (False, None) for kind in types]
        assert sliding == expected, "AttentionLayout reads the windows of its masks here; bidirectional masks would be wrong"


def test_a_layer_with_a_window_keeps_its_last_tokens_and_counts_all():
    """The last `window - 1` tokens. The maps put what a layer keeps at the end of the prompt; the masks count all tokens."""
    model, (prompt,) = tiny_model("mistral"), ids(13)
    cache, short, everything = DynamicCache(config=model.config), DynamicCache(config=model.config), DynamicCache()
    run(model, prompt, cache)
    run(model, prompt[:, :4], short)
    run(model, prompt, everything)
    for layer in cache.layers:
        assert (layer.keys.shape[2], layer.get_seq_length()) == (WINDOW - 1, 13), "maps of windows would stand at other tokens"
    assert short.layers[0].keys.shape[2] == 4
    # Keys of the first layer depend on their own token only, whatever the attention sees.
    assert torch.equal(cache.layers[0].keys, everything.layers[0].keys[:, :, 13 - (WINDOW - 1) :])


@families
def test_position_ids_stand_in_the_signature_and_are_obeyed(family):
    """Padded prompts get their positions so. A name that vanished from the signature would be left out by position_input."""
    model, (prompt,) = tiny_model(family), ids(9)
    assert "position_ids" in inspect.signature(model.base_model.forward).parameters, "position_input would give no positions"
    places = torch.arange(9)[None]
    plain = run(model, prompt, DynamicCache(config=model.config))
    assert_close(run(model, prompt, DynamicCache(config=model.config), position_ids=places), plain)
    spread = run(model, prompt, DynamicCache(config=model.config), position_ids=places * 3)
    assert_apart(spread, plain)


# --- training and what is refused ---------------------------------------------------------------------------------------


@families
def test_gradient_checkpointing_is_a_flag_in_the_modules_own_attributes(family):
    """bitune refuses to train with it (require_no_checkpointing): a layer run anew would run under another adapter."""
    model = tiny_model(family)

    def flags() -> list[object]:
        return [
            vars(module)["gradient_checkpointing"] for module in model.modules() if vars(module).get("gradient_checkpointing")
        ]

    assert not flags()
    model.activation_checkpointing_enable()
    assert flags(), "checkpointing is on and no module says so: bitune would train with wrong gradients"
    model.activation_checkpointing_disable()
    assert not flags(), "checkpointing is off and bitune would refuse to train"


def test_models_with_a_state_in_place_of_a_cache_say_so():
    """`_is_stateful`, by which check_supported refuses what has no keys and values to mix."""
    sizes = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2}
    assert MambaForCausalLM(MambaConfig(**sizes, state_size=8))._is_stateful
    assert RwkvForCausalLM(RwkvConfig(**sizes, context_length=64))._is_stateful
    assert not any(tiny_model(family)._is_stateful for family in FAMILIES)


# --- generate -------------------------------------------------------------------------------------------------------------


def test_generate_streams_the_prompt_first_and_then_one_token_a_row():
    """Also when it is given a cache. RowStreamer drops what comes first: else an answer would begin with its second token."""
    values = []

    class Collected(BaseStreamer):
        def put(self, value):
            values.append(value.clone())

        def end(self):
            values.append(None)

    model, (prompt,) = tiny_model(), ids(9)
    prompts = torch.cat([prompt, prompt.flip(1)])
    cache = DynamicCache(config=model.config)
    run(model, prompts[:, :-1], cache)
    arguments = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 258, cache_argument(model): cache}
    tokens = model.generate(prompts, attention_mask=torch.ones_like(prompts), streamer=Collected(), **arguments)
    first, *steps, end = values
    assert torch.equal(first, prompts), "what generate streams first is not the prompt: RowStreamer would drop a token"
    assert end is None and [step.shape for step in steps] == [(2,)] * 3
    assert torch.equal(torch.stack(steps, dim=1), tokens[:, 9:])
