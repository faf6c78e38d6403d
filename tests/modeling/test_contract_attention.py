"""What bitune relies on in the masks and attention functions of transformers: see test_contract_transformers.py.

Here everything would break in silence: a pass would see what it should not, a map show what the model did not do.
"""

import inspect
from contextlib import contextmanager

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.closeness import assert_close
from tests.modeling.forwards import LAYERS, families, run
from tests.tiny import GEMMA3_LAYERS, WINDOW, ids, tiny_model

SPY = "bitune_contract_spy"


@contextmanager
def spying(model: PreTrainedModel):
    """The model under an attention function of ours, run as the eager one. Yields the list of [layer, mask, output, weights]."""
    calls = []

    def spy(module, query, key, value, attention_mask, **arguments):
        eager = vars(inspect.getmodule(type(module)))["eager_attention_forward"]
        output, weights = eager(module, query, key, value, attention_mask, **arguments)
        sdpa = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", eager)(module, query, key, value, attention_mask, **arguments)
        calls.append((module.layer_idx, attention_mask, output, weights, sdpa))
        return output, None

    AttentionInterface.register(SPY, spy)
    AttentionMaskInterface.register(SPY, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(SPY)
    try:
        yield calls
    finally:
        model.set_attn_implementation(before)


@families
def test_a_registered_attention_function_runs_in_every_layer_from_the_next_forward_on(family):
    """`set_attn_implementation` on a model in use, and `_attn_implementation` of its text config says what is in use."""
    model, (prompt,) = tiny_model(family), ids(9)
    expected = run(model, prompt, DynamicCache(config=model.config))
    with spying(model) as calls:
        assert model.config.get_text_config(decoder=True)._attn_implementation == SPY, (
            "bitune reads here which masks the model takes, and whether it lets its attention function be chosen"
        )
        found = run(model, prompt, DynamicCache(config=model.config))
    assert [call[0] for call in calls] == list(range(LAYERS)), "attention maps would lack layers"
    assert_close(found, expected)
    count = len(calls)
    assert model.config.get_text_config(decoder=True)._attn_implementation == "sdpa"
    run(model, prompt, DynamicCache(config=model.config))
    assert len(calls) == count, "the recorder would go on recording after its block"


@families
def test_the_eager_function_of_a_family_stands_in_its_module_and_is_what_eager_runs(family, monkeypatch):
    """`eager_attention_forward` in the module of the attention class; it returns ([rows, query, heads, dim], weights).

    The recorder computes every attention map with it. Were it another function than the model's own, maps would be wrong.
    """
    model, (prompt,) = tiny_model(family, "eager"), ids(9)
    attention = next(module for module in model.modules() if "Attention" in type(module).__name__)
    module = inspect.getmodule(type(attention))
    eager, ran = vars(module)["eager_attention_forward"], []
    monkeypatch.setattr(module, "eager_attention_forward", lambda *a, **k: ran.append(a[0].layer_idx) or eager(*a, **k))
    run(model, prompt, DynamicCache(config=model.config))
    assert ran == list(range(LAYERS)), "attention maps are computed by this function, which is not what the model runs"
    monkeypatch.undo()
    with spying(model) as calls:
        run(model, prompt.expand(2, -1), DynamicCache(config=model.config))
    for _, _, output, weights, (other, nothing) in calls:
        assert weights.shape == (2, 4, 9, 9), "maps are cut out of weights [rows, heads, query, key]"
        assert_close(weights.sum(-1), torch.ones(2, 4, 9))
        assert output.shape[:3] == (2, 9, 4)
        assert nothing is None, "sdpa gives no weights: that is how the recorder knows that it must compute them"
        assert_close(other, output)


def test_get_interface_gives_a_name_of_the_table_or_the_default_for_eager():
    def default():
        """Stands for a family's eager function."""

    assert ALL_ATTENTION_FUNCTIONS.get_interface("eager", default) is default, "the recorder runs the family's eager function so"
    assert ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", default) is ALL_ATTENTION_FUNCTIONS["sdpa"] is not default


@families
def test_eager_mask_gives_every_layer_an_additive_mask_and_never_none(family):
    """[rows, 1, query, key], 0 where seen and the lowest number elsewhere, also in a plain causal pass and for one new token.

    The recorder registers it for itself. A mask left out, as sdpa's may be, would give maps without any mask.
    """
    model, (prompt,) = tiny_model(family), ids(11)
    types = {"gemma3": GEMMA3_LAYERS, "mistral": ["sliding_attention"] * 4}.get(family, ["full_attention"] * 4)
    distance = torch.arange(11)[:, None] - torch.arange(11)
    with spying(model) as calls:
        cache = DynamicCache(config=model.config)
        run(model, prompt, cache)
        run(model, prompt[:, :1], cache)
    for layer, mask, *_ in calls[:LAYERS]:
        seen = (distance >= 0) & ((distance < WINDOW) | (types[layer] == "full_attention"))
        expected = torch.zeros(11, 11).masked_fill(~seen, torch.finfo(torch.float32).min)
        assert mask is not None and torch.equal(mask, expected[None, None]), "attention maps would show what the model cannot see"
    for layer, mask, _, weights, _ in calls[LAYERS:]:
        assert mask is not None and mask.is_floating_point() and mask.shape[2] == 1, "maps of an answer need its mask"
        assert int((weights[0, 0, 0] > 0).sum()) == (12 if types[layer] == "full_attention" else WINDOW)


@families
@pytest.mark.parametrize("form", ["additive", "boolean"])
def test_masks_of_our_own_reach_the_attention_as_they_are(family, form):
    """A 4-D mask, or one for each layer type where layers differ, is neither changed nor joined with a causal one."""
    model, (prompt,) = tiny_model(family), ids(9)
    generator = torch.Generator().manual_seed(4)
    seen = {kind: torch.rand(2, 1, 9, 9, generator=generator) > 0.4 for kind in ("full_attention", "sliding_attention")}
    for mask in seen.values():
        mask |= torch.eye(9, dtype=torch.bool)
    if form == "additive":
        seen = {k: torch.zeros(m.shape).masked_fill(~m, torch.finfo(torch.float32).min) for k, m in seen.items()}
    types = GEMMA3_LAYERS if family == "gemma3" else ["full_attention"] * 4
    given = seen if family == "gemma3" else seen["full_attention"]
    masks, placed = [], {"position_ids": torch.arange(9).expand(2, -1)}

    def look(module, query, key, value, attention_mask, **arguments):
        masks.append(attention_mask)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **arguments)

    AttentionInterface.register(SPY, look)
    AttentionMaskInterface.register(SPY, eager_mask if form == "additive" else AttentionMaskInterface()["sdpa"])
    model.set_attn_implementation(SPY)
    run(model, prompt.expand(2, -1), DynamicCache(config=model.config), attention_mask=given, **placed)
    assert len(masks) == LAYERS
    for kind, mask in zip(types, masks, strict=True):
        assert torch.equal(mask, seen[kind]), "a bidirectional pass would see something else than pass_masks says"
