"""What is private of transformers' Trainer and overridden here: still called, and called as we expect. Fails when transformers changes."""

import inspect
import json

import pytest
import torch
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from bitune import BituneModel
from bitune.adapters.kinds import new_peft_config
from bitune.checkpoints.folder import read
from bitune.data.batches import TokenPair
from bitune.training.sampler import EpochSampler
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import MODEL_FOLDER, BituneTrainer, train
from tests.tiny import tiny_base

SETTINGS = TrainingSettings(
    num_train_epochs=2.0, per_device_train_batch_size=4, learning_rate=5e-3, logging_steps=1, save_steps=6, seed=3
)
# Every pair begins with a token that no other has, so that a batch says which pairs are in it.
PAIRS = [TokenPair([3 + i, *[40] * (1 + i * 7 % 9)], [3 + i, 257]) for i in range(26)]


def fresh() -> BituneModel:
    base = tiny_base()
    torch.manual_seed(0)
    return BituneModel.create(base, peft_config=new_peft_config(base.model, rank=4))


def parameters_of(function) -> dict[str, object]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize(
    "name",
    [
        "_get_train_sampler",
        "_load_from_checkpoint",
        "_load_optimizer_and_scheduler",
        "_save",
        "_save_checkpoint",
        "_save_optimizer_and_scheduler",
        "save_model",
    ],
)
def test_what_is_overridden_has_the_signature_of_the_trainers_own(name):
    assert parameters_of(getattr(BituneTrainer, name)) == parameters_of(getattr(Trainer, name))


def test_the_sampler_knows_its_parent():
    """`EpochSampler` gives it these arguments, sets its generator and reads its batch size."""
    assert list(parameters_of(LengthGroupedSampler.__init__)) == [
        "self",
        "batch_size",
        "dataset",
        "lengths",
        "model_input_name",
        "generator",
    ]
    parent = LengthGroupedSampler(4, lengths=[5, 3, 9, 1, 7, 2])
    assert parent.batch_size == 4
    orders = []
    for seed in (1, 1, 2):
        parent.generator = torch.Generator().manual_seed(seed)
        orders.append(list(parent))
    assert orders[0] == orders[1] != orders[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real training of two epochs, the pairs of its batches in the order in which they were trained on, and its folder."""
    folder, order = tmp_path_factory.mktemp("trained"), []

    def recording(trainer, model, inputs, *arguments, compute_loss=BituneTrainer.compute_loss, **named):
        lengths = inputs["prompt_mask"].sum(1)
        firsts = inputs["prompt_ids"].gather(1, (inputs["prompt_ids"].shape[1] - lengths)[:, None])[:, 0]
        order.append((firsts - 3).tolist())
        return compute_loss(trainer, model, inputs, *arguments, **named)

    model = fresh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BituneTrainer, "compute_loss", recording)
        train(model, PAIRS, SETTINGS, folder)
    return model, order, folder


def test_the_trainer_takes_the_batches_of_our_sampler(trained):
    """Of both epochs, each with its own order: `_get_train_sampler` is asked, and `set_epoch` is called."""
    _, order, _ = trained
    sampler = EpochSampler(4, [len(pair.prompt_ids) + len(pair.answer_ids) for pair in PAIRS], SETTINGS.seed)
    expected = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        expected += [indices[start : start + 4] for start in range(0, len(indices), 4)]
    assert order == expected
    assert order[:7] != order[7:] and sorted(sum(order[:7], [])) == list(range(26))


def test_the_trainer_saves_our_folder_and_no_state_of_the_base(trained):
    model, _, folder = trained
    last = folder / "checkpoint-14"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-12", "checkpoint-14"]
    assert [path.name for path in last.iterdir() if path.is_dir()] == [MODEL_FOLDER]
    assert not list(last.glob("*.safetensors")) and not list(last.glob("pytorch_model*"))
    saved = read(last / MODEL_FOLDER)
    assert torch.equal(saved.theta[0], model.to_checkpoint().theta[0])
    assert len(saved.log.splitlines()) == 14


def test_the_trainer_goes_on_from_what_our_load_reads(trained, monkeypatch):
    """The weights that the first resumed update starts from are those in the folder, not those of the fresh model."""
    _, _, folder = trained
    starts = []

    def recording(trainer, model, inputs, *arguments, compute_loss=BituneTrainer.compute_loss, **named):
        starts.append(trainer._bare_model().to_checkpoint())
        return compute_loss(trainer, model, inputs, *arguments, **named)

    monkeypatch.setattr(BituneTrainer, "compute_loss", recording)
    (folder / "checkpoint-14" / "trainer_state.json").rename(folder / "state.json")  # as if cut while the last state was written
    resumed = fresh()
    train(resumed, PAIRS, SETTINGS, folder, resume=True)
    saved = read(folder / "checkpoint-12" / MODEL_FOLDER)
    assert len(starts) == 2
    assert torch.equal(starts[0].theta[0], saved.theta[0]) and not torch.equal(starts[1].theta[0], saved.theta[0])
    for slot, adapter in saved.adapters.items():
        assert all(torch.equal(value, starts[0].adapters[slot].weights[key]) for key, value in adapter.weights.items())
    assert [json.loads(line)["step"] for line in resumed.log.splitlines()] == list(range(1, 15))
