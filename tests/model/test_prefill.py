"""Long causal passes run under the model's own mask, in a forward of their own, and come to what they come to beside the others."""

import pytest
import torch

from bitune.model import prefill
from bitune.model.prefill import run_passes
from bitune.modeling.recorder import recording
from bitune.schema.variants import PromptPass
from tests.closeness import assert_close
from tests.tiny import FAMILIES, WINDOW, bitune_on, ids, tiny_model

LENGTH = WINDOW + 5


def read(model, prompts: torch.Tensor, mask: torch.Tensor, wanted) -> tuple[dict, list[tuple[int, int]]]:
    """Keys and values of each pass, and (rows, dimensions of the mask) of each forward."""
    forwards = []
    hook = model.base.base_model.register_forward_pre_hook(
        lambda _, args, named: forwards.append((len(named["input_ids"]), _dimensions(named["attention_mask"]))), with_kwargs=True
    )
    with torch.no_grad(), model.manager.eval_turn():
        cache, rows = run_passes(model.manager, prompts, mask, wanted)
    hook.remove()
    parts = {want: [part[row] for layer in cache.layers for part in (layer.keys, layer.values)] for want, row in rows.items()}
    return parts, forwards


def _dimensions(mask) -> int:
    return next(iter(mask.values())).dim() if isinstance(mask, dict) else mask.dim()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_long_causal_passes_are_what_they_are_beside_others(family, dtype, monkeypatch):
    model = bitune_on(tiny_model(family).to(dtype), "bitune", "dora")
    prompts, mask = torch.cat(ids(LENGTH, LENGTH)), torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, :3] = 0
    passes = [
        *model.variant.passes,
        PromptPass(None, "causal"),
        PromptPass("bidirectional", "causal"),
        PromptPass(None, "anticausal"),
    ]
    wanted = [(one, prompt) for prompt in (1, 0) for one in passes]
    expected, together = read(model, prompts, mask, wanted)
    assert together == [(10, 4)]
    monkeypatch.setattr(prefill, "_LONG", LENGTH)
    found, apart = read(model, prompts, mask, wanted)
    assert apart == [(3, 2), (7, 4)], "three of the passes over the prompt without padding"
    for want in wanted:
        for one, other in zip(found[want], expected[want], strict=True):
            kept = other.shape[1] if want[1] == 0 else min(other.shape[1], LENGTH - 3)  # what padding comes to is nobody's
            assert_close(one[:, -kept:], other[:, -kept:])


def test_all_passes_of_a_lora_are_one_forward(monkeypatch):
    model = bitune_on(tiny_model(), "lora")
    monkeypatch.setattr(prefill, "_LONG", LENGTH)
    prompts = torch.cat(ids(LENGTH))
    assert read(model, prompts, torch.ones_like(prompts), [(model.variant.passes[0], 0)])[1] == [(1, 2)]


@pytest.mark.parametrize("attention", ["eager", "recording"])
def test_only_sdpa_has_a_mask_of_its_own_that_is_faster(attention, monkeypatch):
    model = bitune_on(tiny_model(attention="eager" if attention == "eager" else "sdpa"))
    monkeypatch.setattr(prefill, "_LONG", LENGTH)
    prompts = torch.cat(ids(LENGTH))
    wanted = [(one, 0) for one in model.variant.passes]
    if attention == "eager":
        assert read(model, prompts, torch.ones_like(prompts), wanted)[1] == [(2, 4)]
        return
    rows = []
    with recording(model.base, lambda _, weights: rows.append(len(weights))):
        assert read(model, prompts, torch.ones_like(prompts), wanted)[1] == [(2, 4)]
    assert rows == [2] * 4, "a map belongs to the row of its pass"
