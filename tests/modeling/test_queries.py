"""The queries that are noted while a model runs: they are what its attention was given, and the function it attends with is back afterwards."""

from threading import Event, Thread

import pytest
import torch
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitune.modeling.interface import attention_modules, cache_input
from bitune.modeling.queries import attention_weights, nbytes_of, noted_queries
from tests.closeness import assert_close
from tests.tiny import FAMILIES, ids, tiny_model

families = pytest.mark.parametrize("family", sorted(FAMILIES))


@torch.no_grad()
def noted(model, inputs, **arguments):
    """What was noted of a forward, and the cache that it left."""
    cache = DynamicCache(config=model.config)
    with noted_queries(model) as queries:
        model(input_ids=inputs, use_cache=True, **arguments, **cache_input(cache))
    return queries, cache


@families
def test_weights_are_those_that_eager_attention_gives_out(family):
    """transformers hands them out itself where a model attends eagerly: also of a row with padding, from its first real token on."""
    (prompt,) = ids(3)  # with its padding shorter than a window
    expected = tiny_model(family, "eager")(input_ids=prompt, output_attentions=True).attentions
    padded = torch.cat([torch.zeros(1, 1, dtype=torch.long), prompt], 1)
    rows, mask = torch.cat([padded, torch.flip(padded, [1])]), torch.ones(2, 4, dtype=torch.long)
    mask[0, 0] = 0
    for inputs, arguments, start in ((prompt, {}, 0), (rows, {"attention_mask": mask}, 1)):
        queries, cache = noted(tiny_model(family), inputs, **arguments)
        layers = queries.of_row(cache, 0, start)
        cached = [(layer.keys[0, :, start:], layer.values[0, :, start:]) for layer in cache.layers]
        for found, weights in zip(attention_weights(layers, cached), expected, strict=True):
            assert_close(found, weights)
        masks = {id(layer.seen): layer.seen for layer in layers if layer.seen is not None}
        assert nbytes_of(layers) == sum(layer.query.nbytes for layer in layers) + sum(seen.nbytes for seen in masks.values())


def test_attention_that_does_not_say_whether_it_is_causal_is_taken_as_sdpa_takes_it():
    model, (prompt,) = tiny_model(), ids(4)
    for module in attention_modules(model.modules()):
        if "is_causal" in vars(module):
            del module.is_causal
    queries, cache = noted(model, prompt)
    assert [layer.seen for layer in queries.of_row(cache, 0, 0)] == [None] * 4


def test_a_model_that_does_not_attend_with_sdpa_is_left_alone():
    queries, _ = noted(tiny_model(attention="eager"), *ids(4))
    assert queries is None


def test_keys_of_a_window_that_has_forgotten_some_are_not_those_that_were_attended_to():
    queries, cache = noted(tiny_model("mistral"), *ids(20))
    assert queries.of_row(cache, 0, 0) is None


def test_the_function_is_exchanged_for_those_alone_who_note_and_back_when_the_last_one_is_done():
    before, model, (prompt,) = ALL_ATTENTION_FUNCTIONS["sdpa"], tiny_model(), ids(5)
    inside, go = Event(), Event()

    def other():
        with noted_queries(tiny_model()):
            inside.set()
            assert go.wait(60)

    thread = Thread(target=other)
    thread.start()
    assert inside.wait(60)
    with torch.no_grad():
        model(prompt)  # beside one that notes
    queries, cache = noted(model, prompt)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before, "the other has not done yet"
    go.set()
    thread.join()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    assert [len(layer.query[0]) for layer in queries.of_row(cache, 0, 0)] == [5] * 4
    with pytest.raises(RuntimeError), noted_queries(model):
        raise RuntimeError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
