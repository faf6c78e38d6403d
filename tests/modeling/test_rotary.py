"""Models whose keys depend on the length of the call are known for what they are, from what transformers computes for them."""

from collections.abc import Callable

import pytest
import torch
import transformers as t
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from bitune import UnsupportedModelError
from bitune.modeling.interface import cache_input
from bitune.modeling.support import check_supported
from tests.closeness import assert_apart, assert_close
from tests.tiny import FAMILIES, GROUPED, SHAPE, longrope_settings, tiny_model

CONTEXT, SWITCH = 128, 24
SMALL = GROUPED | {"max_position_embeddings": CONTEXT}
LONGROPE = longrope_settings(SWITCH, [1.05, 1.1, 2.0, 8.0])
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
STATIC = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LAYERS = ["sliding_attention", "full_attention"] * 2


def gemma3(full: dict) -> t.Gemma3TextConfig:
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    types = {"layer_types": LAYERS, "sliding_window": 6, "head_dim": 8}
    return t.Gemma3TextConfig(**SMALL, **types, rope_parameters={"sliding_attention": plain, "full_attention": full})


def phimoe() -> t.PhimoeConfig:
    scale = {"short_mscale": 1.1, "long_mscale": 1.3}
    return t.PhimoeConfig(**SMALL, num_local_experts=4, rope_parameters=LONGROPE | scale, original_max_position_embeddings=SWITCH)


# config, limit, rotary_switch
SCALED: dict[str, tuple[Callable, int | None, int | None]] = {
    "phi3": (lambda: t.Phi3Config(**SMALL, rope_parameters=LONGROPE, original_max_position_embeddings=SWITCH), None, SWITCH),
    "llama": (lambda: t.LlamaConfig(**SMALL, rope_parameters=LONGROPE), None, SWITCH),
    "experts": (phimoe, None, SWITCH),
    "some layers": (lambda: gemma3(LONGROPE), None, SWITCH),
    "dynamic": (lambda: t.LlamaConfig(**SMALL, rope_parameters=DYNAMIC), CONTEXT, None),
    "dynamic, some layers": (lambda: gemma3(DYNAMIC), CONTEXT, None),
    "dynamic, long": (
        lambda: t.LlamaConfig(**SMALL | {"max_position_embeddings": 32768}, rope_parameters=DYNAMIC),
        32768,
        None,
    ),
    "static": (lambda: t.LlamaConfig(**SMALL, rope_parameters=STATIC), None, None),
}


def built(config: t.PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("switch", range(2, 7))
def test_a_switch_within_a_few_tokens_is_named_as_the_reason(switch):
    model = built(t.LlamaConfig(**SMALL, rope_parameters=LONGROPE | {"original_max_position_embeddings": switch}))
    text = (torch.arange(7) * 7 % 250)[None]
    assert_apart(*(first_keys(model, text[:, :length])[:, :, :2] for length in (2, 7)))
    with pytest.raises(UnsupportedModelError, match="call of 7 tokens than in one of 2.*original_max_position_embeddings"):
        check_supported(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", SCALED)
def test_a_rotary_embedding_that_depends_on_the_length_is_found(case, dtype):
    config, limit, switch = SCALED[case]
    layout = check_supported(built(config()).to(dtype))
    assert (layout.limit, layout.rotary_switch) == (limit, switch)


@pytest.mark.parametrize("case", ["phi3", "llama", "experts", "some layers"])
def test_the_switch_is_where_transformers_changes_the_keys(case):
    """Plain forwards over whole texts: the first tokens have the same keys up to the switch, others from there on."""
    model = built(SCALED[case][0]())
    switch = check_supported(model).rotary_switch
    text = (torch.arange(CONTEXT) * 7 % 250)[None]
    four, at_switch, beyond, longest = (first_keys(model, text[:, :length]) for length in (4, switch, switch + 1, CONTEXT))
    assert_close(four, at_switch)
    assert_close(beyond, longest)
    assert_apart(four, beyond)


@torch.no_grad()
def first_keys(model: PreTrainedModel, text: torch.Tensor) -> torch.Tensor:
    """Keys of the first four tokens of `text` [1, tokens] in the last layer, which has no window; divided by their largest."""
    cache = DynamicCache(config=model.config)
    model(text, **cache_input(cache))
    keys = cache.layers[-1].keys[:, :, :4]
    return keys / keys.abs().max()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_plain_rotary_embeddings_have_no_limit(family):
    layout = check_supported(tiny_model(family))
    assert (layout.limit, layout.rotary_switch, layout.context) == (None, None, 512)


NAMES = {"vocab_size": 260, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}
TABLES = {
    "gpt2": lambda: t.GPT2Config(**NAMES, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT),
    "gptj": lambda: t.GPTJConfig(**NAMES, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, rotary_dim=4),
    "opt": lambda: t.OPTConfig(**SHAPE | {"max_position_embeddings": CONTEXT}, ffn_dim=48, word_embed_proj_dim=32),
}


@pytest.mark.parametrize("family", TABLES)
def test_a_table_of_positions_is_a_limit_and_transformers_ends_there_too(family):
    model = built(TABLES[family]())
    assert check_supported(model).limit == CONTEXT
    model(torch.ones(1, CONTEXT, dtype=torch.long))
    with pytest.raises(IndexError):
        model(torch.ones(1, CONTEXT + 1, dtype=torch.long))


@pytest.mark.parametrize("case", ["phi3", "dynamic", "dynamic, some layers"])
def test_the_check_leaves_the_model_as_it_was(case):
    model = built(SCALED[case][0]())
    text = (torch.arange(20) * 7 % 250)[None]
    expected = model(text).logits
    before = state(model)
    check_supported(model)
    after = state(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name], name
    assert torch.equal(model(text).logits, expected)


def state(model: PreTrainedModel) -> dict[str, object]:
    """What the modules keep besides weights: buffers, numbers and names of attributes."""
    plain = {
        f"{path}.{name}": value if isinstance(value, int | float | str | None) else type(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
    }
    return plain | {name: buffer.clone() for name, buffer in model.named_buffers()}
