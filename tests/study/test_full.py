"""Full fine-tuning: sets of weights take the place of adapters in every method, and the base stays as it was."""

import copy

import pytest
import torch

from bitune import METHODS, BituneModel
from bitune.adapters.manager import AdapterManager
from bitune.data.batches import TokenPair
from bitune.errors import CheckpointError
from bitune.model.prefill import run_passes
from bitune.modeling.interface import cache_input
from bitune.schema.variants import PromptPass
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import train
from study.full import WeightSets
from tests.closeness import assert_close
from tests.tiny import ids, tiny_base


def fresh(method: str = "bitune") -> BituneModel:
    return BituneModel.create(WeightSets.on_copy(tiny_base()), method)


def owning(weights: dict) -> AdapterManager:
    """A model of its own whose linear weights are these."""
    model = copy.deepcopy(tiny_base().model)
    with torch.no_grad():
        for path, module in model.base_model.named_modules():
            if path.replace(".", "-") in weights:
                module.weight.copy_(weights[path.replace(".", "-")])
    return AdapterManager.of(model)


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_models_of_their_own(method):
    """A method over two sets equals its passes over two models that own these weights, mixed and answered by hand."""
    model = fresh(method)
    generator = torch.Generator().manual_seed(5)
    for name in model.manager.names:
        moved = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in model.manager.weights(name).items()}
        model.manager.fill(name, moved)
    alone = {slot: owning(model.manager.weights(name)) for slot, name in model.names.items()}
    row = METHODS[method]
    prompt, answer = ids(7, 3)
    with torch.no_grad():
        logits = model(prompt, answer).logits
        read = [
            run_passes(alone[p.adapter], prompt[:, :-1], torch.ones_like(prompt[:, :-1]), [(PromptPass(None, p.attention), 0)])[0]
            for p in row.passes
        ]
        if row.mixed:
            for first, second in zip(read[0].layers, read[1].layers, strict=True):
                first.keys, first.values = (first.keys + second.keys) / 2, (first.values + second.values) / 2
        inputs = torch.cat([prompt[:, -1:], answer[:, :-1]], 1)
        expected = alone[row.answer_adapter].model(inputs, use_cache=True, **cache_input(read[0])).logits
        assert_close(logits, expected)
        assert torch.equal(model.base(prompt).logits, tiny_base().model(prompt).logits)


def test_training_moves_both_sets_and_nothing_else(tmp_path):
    model = fresh()
    before = {name: model.manager.weights(name) for name in model.manager.names}
    base_weights = {name: p.clone() for name, p in model.base.named_parameters() if "weight_sets" not in name}
    pairs = [TokenPair([5, 6, 7, 8 + i], [9, 257]) for i in range(4)]
    train(model, pairs, TrainingSettings(max_steps=2, per_device_train_batch_size=2), tmp_path)
    for name, weights in before.items():
        moved = [not torch.equal(value, weights[key]) for key, value in model.manager.weights(name).items()]
        # In the last layer the second set reaches the cache through keys and values only.
        assert sum(moved) >= len(moved) - 5
    for name, value in model.base.named_parameters():
        assert "weight_sets" in name or torch.equal(value, base_weights[name])
    assert not torch.equal(model.mixing.theta_k, torch.full((4,), 0.01))


def test_weights_that_do_not_fit_are_refused():
    model = fresh("lora")
    (name,) = model.manager.names
    with pytest.raises(CheckpointError, match="linear layers"):
        model.manager.fill(name, {})


def test_a_released_model_leaves_the_base(tmp_path):
    model = fresh()
    model.release()
    assert model.manager.names == () and not list(model.base.weight_sets.parameters())
