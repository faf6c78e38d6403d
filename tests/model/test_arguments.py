"""What BituneModel refuses to be given: arguments that pass by the mixed cache, padding on the wrong side."""

import pytest
import torch
from transformers import DynamicCache, GenerationConfig

from bitune import ConfigError
from tests.tiny import bitune_on, ids, tiny_model

GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
PAST_THE_CACHE = {
    "assistant_model": lambda: tiny_model(seed=3),
    "cache": DynamicCache,
    "cache_implementation": lambda: "dynamic",
    "custom_generate": lambda: "folder",
    "past_key_values": DynamicCache,
    "prompt_lookup_num_tokens": lambda: 2,
    "use_cache": lambda: False,
}


@pytest.mark.parametrize("argument", PAST_THE_CACHE)
def test_arguments_that_pass_by_the_mixed_cache_are_refused(argument):
    """They would answer as if nothing had been mixed; what is asked for afterwards is answered as before."""
    model, (prompt,) = bitune_on(tiny_model()), ids(9)
    expected = model.generate(prompt, **GREEDY)
    with pytest.raises(ConfigError, match=f"^{argument} is .*mixed cache, so leave it out"):
        model.generate(prompt, **GREEDY, **{argument: PAST_THE_CACHE[argument]()})
    assert torch.equal(model.generate(prompt, **GREEDY), expected)


@pytest.mark.parametrize("argument", ["cache_implementation", "prompt_lookup_num_tokens"])
def test_settings_that_pass_by_the_mixed_cache_are_refused_in_a_generation_config_too(argument):
    model, (prompt,) = bitune_on(tiny_model()), ids(9)
    config = GenerationConfig(**GREEDY, **{argument: PAST_THE_CACHE[argument]()})
    with pytest.raises(ConfigError, match=f"^{argument} is "):
        model.generate(prompt, generation_config=config)


def test_padding_on_the_wrong_side_is_refused():
    model, (prompt, answer) = bitune_on(tiny_model()), ids(6, 3)
    right = torch.tensor([[1, 1, 1, 1, 0, 0]])
    left = torch.tensor([[0, 1, 1]])
    for call, words in (
        (lambda: model(prompt, answer, right), "prompt_mask.*padded on the left"),
        (lambda: model(prompt, answer, None, left), "answer_mask.*padded on the right"),
        (lambda: model.generate(prompt, right, **GREEDY), "prompt_mask.*padded on the left"),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
