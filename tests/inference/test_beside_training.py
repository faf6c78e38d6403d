"""Somebody trains on a base while others ask it: neither changes what the other one gets."""

import threading

import pytest
import torch
from peft import LoraConfig

from bitune import BituneModel, ConfigError, Engine
from bitune.adapters.layers import adapter_layers
from tests.closeness import assert_close
from tests.tiny import bitune_on, ids, randomized, tiny_base

PROMPT, ANSWER = ids(9, 4)
REQUEST = {"template": "none", "max_new_tokens": 12}


def dropping(base) -> BituneModel:
    """A LoRA checkpoint with dropout, as most have."""
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.3, task_type="CAUSAL_LM")
    return randomized(BituneModel.create(base, "lora", config))


@pytest.fixture
def engine(tmp_path):
    base = tiny_base()
    model = dropping(base)
    model.save_pretrained(tmp_path / "qa")
    model.release()
    engine = Engine(base)
    engine.add_checkpoint(tmp_path / "qa")
    return engine


def answer(engine) -> str:
    *_, last = engine.stream("Which way?", ["base", "qa"], **REQUEST)
    return last["base"].text, last["qa"].text


def trained(base, steps: int = 12) -> dict[str, torch.Tensor]:
    """The weights of a Bitune model after some updates."""
    torch.manual_seed(7)
    model = bitune_on(base, seed=3).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        model(PROMPT, ANSWER).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = {f"{slot}.{key}": value for slot, name in model.names.items() for key, value in model.manager.weights(name).items()}
    model.eval()
    model.release()
    return weights


def test_training_and_requests_do_not_change_each_other(engine):
    expected, alone = answer(engine), trained(tiny_base())
    answers, done = [], threading.Event()

    def ask():
        while not done.is_set():
            answers.append(answer(engine))

    thread = threading.Thread(target=ask)
    thread.start()
    beside = trained(engine.base)
    done.set()
    thread.join(120)
    assert len(answers) > 1 and set(answers) == {expected}
    assert all(torch.equal(value, beside[key]) for key, value in alone.items())


def test_a_request_runs_in_eval_mode_and_puts_the_mode_back(engine):
    expected, scores = answer(engine), engine.log_probabilities("Which way?", ["qa"], [5, 6, 7], template="none")
    model = bitune_on(engine.base, seed=3).train()
    engine.base.model.model.norm.eval()  # somebody's own choice
    modes = [module.training for module in engine.base.model.modules()]
    assert answer(engine) == expected
    again = engine.log_probabilities("Which way?", ["qa"], [5, 6, 7], template="none")
    assert_close(torch.tensor(again["qa"]), torch.tensor(scores["qa"]))  # weights are packed where nobody trains
    assert [module.training for module in engine.base.model.modules()] == modes and model.training


def test_adding_inside_a_block_keeps_its_adapter_and_the_running_one_stays(engine):
    manager, (prompt,) = engine.manager, ids(6)
    (name,) = manager.names
    with torch.no_grad(), manager.active_adapter(name):
        running = engine.base.model(prompt).logits
        other = bitune_on(engine.base, "lora", seed=5)
        assert torch.equal(engine.base.model(prompt).logits, running)
        other.release()
        assert torch.equal(engine.base.model(prompt).logits, running)
        with pytest.raises(ConfigError, match="is running"):
            manager.remove(name)
        assert torch.equal(engine.base.model(prompt).logits, running)


def test_weights_that_others_learn_meanwhile_are_not_taken_for_a_changed_base(engine, monkeypatch):
    """An optimizer's step between the two looks at the base is nothing that the new adapter did."""
    learning = bitune_on(engine.base, seed=3)
    fill = type(engine.manager)._inject

    def step(self, name, config):
        fill(self, name, config)
        with torch.no_grad():
            for layer in adapter_layers(self.model):
                for parameters in layer.lora_A.values():
                    parameters.weight.add_(0.01)

    monkeypatch.setattr(type(engine.manager), "_inject", step)
    assert bitune_on(engine.base, "lora", seed=5).names and learning.names
