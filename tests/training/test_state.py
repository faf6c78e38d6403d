"""Resuming: the very same run goes on to the bits of one without a break; any other, a damaged state or a forgotten --resume is refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from bitune import BituneModel, CheckpointError, ConfigError
from bitune.adapters.kinds import new_peft_config
from bitune.schema.config import MixingSettings
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import train
from tests.tiny import tiny_base
from tests.training.killed import train_until_killed
from tests.training.test_trainer import FAST, assert_same, pairs, state
from tests.unharmed import edit

SETTINGS = TrainingSettings(**FAST, eval_steps=2)
HELD_OUT = pairs(4, seed=9)


def fresh(seed: int = 0, method: str = "bitune", dtype: torch.dtype = torch.float32, **more: object) -> BituneModel:
    """With dropout, so that a resumed run has to take over the random state."""
    base = tiny_base(seed=seed)
    base.model.to(dtype)
    torch.manual_seed(0)
    mixing = more.pop("mixing", None)
    return BituneModel.create(base, method, new_peft_config(base.model, **{"rank": 4, "dropout": 0.5} | more), mixing)


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """The folder of a run that was killed after its fourth update, and the model of the same run without a break."""
    folder = tmp_path_factory.mktemp("cut")
    whole = fresh()
    train(whole, pairs(), SETTINGS, tmp_path_factory.mktemp("whole"), HELD_OUT)
    train_until_killed(fresh(), pairs(), SETTINGS, folder, HELD_OUT)
    return folder, whole


@pytest.fixture
def left(cut, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(cut[0], tmp_path / "left")


def test_a_run_with_dropout_goes_on_to_the_same_bits(cut, left):
    resumed = fresh()
    # What no weight depends on may change.
    train(resumed, pairs(), replace(SETTINGS, save_steps=3, eval_steps=None), left, HELD_OUT, resume=True)
    assert_same(cut[1], resumed)
    ended = fresh()
    train(ended, pairs(), SETTINGS, left, HELD_OUT, resume=True)
    assert_same(cut[1], ended)


OTHERS = {
    "--learning-rate is 0.005 there and 0.01 here": {"settings": replace(SETTINGS, learning_rate=0.01)},
    "--max-steps is 6 there and 8 here": {"settings": replace(SETTINGS, max_steps=8)},
    "--seed is 0 there and 1 here": {"settings": replace(SETTINGS, seed=1)},
    "--per-device-train-batch-size is 4 there and 2 here; --gradient-accumulation-steps is 1 there and 2 here": {
        "settings": replace(SETTINGS, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    },
    "the number of examples .--data, .*. is 24 there and 23 here; resume": {"pairs": pairs(23)},
    "what the examples hold .--data, .* is another; resume": {"pairs": pairs()[::-1]},
    "what the held-out examples hold .--data, .* is another; resume": {"held_out": pairs(4, seed=8)},
    "the base's weights .--base. is another; resume": {"model": lambda: fresh(seed=1)},
    "the base's dtype .--dtype, --bf16. is 'torch.float32' there and 'torch.bfloat16' here": {
        "model": lambda: fresh(dtype=torch.bfloat16)
    },
    "--method is another; resume": {"model": lambda: fresh(method="only_causal")},
    "--rank is 4 there and 2 here; --lora-alpha is 8 there and 4 here; resume": {"model": lambda: fresh(rank=2)},
    "--lora-alpha is 8 there and 4 here; resume": {"model": lambda: fresh(alpha=4)},
    "--targets is": {"model": lambda: fresh(targets=["q_proj"])},
    "DoRA .--peft. is False there and True here; resume": {"model": lambda: fresh(kind="dora")},
    "--peft is 'LORA' there and 'IA3' here; resume": {"model": lambda: fresh(kind="ia3", dropout=0.0)},
    "--theta-init is 0.01 there and 0.02 here": {"model": lambda: fresh(mixing=MixingSettings(theta_init=0.02))},
    "--initial-mixing-alpha is None there and 0.3 here": {"about": {"initial_mixing_alpha": 0.3}},
}


@pytest.mark.parametrize("words", OTHERS)
def test_another_run_does_not_take_its_weights(words, left):
    other = {"model": fresh, "pairs": pairs(), "settings": SETTINGS, "held_out": HELD_OUT, "about": {}} | OTHERS[words]
    model = other["model"]()
    before = state(model)
    with pytest.raises(ConfigError, match=f"is the state of another run: {words}") as caught:
        train(model, other["pairs"], other["settings"], left, other["held_out"], resume=True, about=other["about"])
    assert str(left) in str(caught.value) and "remove" in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in state(model).items())


def test_a_state_that_says_not_whose_it_is_is_refused(left):
    (left / "checkpoint-4" / "run.json").unlink()
    with pytest.raises(ConfigError, match="does not say of which run it is"):
        train(fresh(), pairs(), SETTINGS, left, HELD_OUT, resume=True)


def test_a_run_that_did_not_end_is_neither_lost_nor_mixed_with_another(left):
    before = sorted(left.rglob("*"))
    with pytest.raises(ConfigError, match="did not end; go on with it by --resume"):
        train(fresh(), pairs(), SETTINGS, left, HELD_OUT)
    assert sorted(left.rglob("*")) == before


def test_a_new_run_in_the_folder_of_one_that_ended_is_as_in_a_new_folder(tmp_path):
    train(fresh(), pairs(), replace(SETTINGS, max_steps=8), tmp_path / "a", HELD_OUT)
    again, alone = fresh(), fresh()
    shorter = replace(SETTINGS, max_steps=4, learning_rate=0.01)
    train(again, pairs(), shorter, tmp_path / "a", HELD_OUT)
    train(alone, pairs(), shorter, tmp_path / "b", HELD_OUT)
    assert_same(again, alone)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in (tmp_path / "b").iterdir()}
    resumed = fresh()
    train(resumed, pairs(), shorter, tmp_path / "a", HELD_OUT, resume=True)
    assert_same(again, resumed)
    assert resumed.log == again.log


def test_with_a_constant_rate_a_longer_run_goes_on_as_if_it_had_been_asked_for(tmp_path):
    short = TrainingSettings(**FAST | {"max_steps": 4, "lr_scheduler_type": "constant"})
    whole, longer = fresh(), fresh()
    train(fresh(), pairs(), short, tmp_path / "a")
    train(longer, pairs(), replace(short, max_steps=6), tmp_path / "a", resume=True)
    train(whole, pairs(), replace(short, max_steps=6), tmp_path / "b")
    assert_same(whole, longer)


OF_THE_TRAINER = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
OURS = ["model/training_log.jsonl", "model/causal/adapter_model.safetensors", "run.json"]


@pytest.mark.parametrize("name", [*OF_THE_TRAINER, *OURS])
@pytest.mark.parametrize("how", ["half", "changed", "gone"])
def test_a_damaged_state_is_a_sentence(name, how, left):
    file = left / "checkpoint-4" / name
    content = file.read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1, *b"\x00]"]) + content[middle + 3 :]
    file.write_bytes(content[:middle] if how == "half" else changed)
    if how == "gone":
        file.unlink()
    if name == "trainer_state.json" and how == "gone":  # as while it was written: the state before it is taken
        model = fresh()
        train(model, pairs(), SETTINGS, left, HELD_OUT, resume=True)
        assert [json.loads(line)["step"] for line in model.log.splitlines() if '"loss"' in line] == [1, 2, 3, 4, 5, 6]
        return
    with pytest.raises((CheckpointError, ConfigError), match=name) as caught:
        train(fresh(), pairs(), SETTINGS, left, HELD_OUT, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "edits",
    [{"global_step": 99}, {"global_step": "x"}, {"global_step": None}, {"log_history": 5}, {"max_steps": None}],
    ids=str,
)
def test_a_state_that_somebody_edited_is_a_sentence_and_stays(edits, left):
    edit(left / "checkpoint-4" / "trainer_state.json", lambda values: values.update(edits))
    before = sorted(left.rglob("*"))
    for resume in (True, False):
        with pytest.raises(CheckpointError, match="trainer_state.json' is not what this run wrote: .* remove"):
            train(fresh(), pairs(), SETTINGS, left, HELD_OUT, resume=resume)
    assert sorted(left.rglob("*")) == before


def test_a_file_of_another_run_is_a_sentence(left, tmp_path):
    train(fresh(), pairs(), replace(SETTINGS, learning_rate=0.02, seed=3, max_steps=4), tmp_path / "other", HELD_OUT)
    for name in ("optimizer.pt", "rng_state.pth", "model/mixing.safetensors", "model/training_log.jsonl"):
        own = (left / "checkpoint-4" / name).read_bytes()
        shutil.copy(tmp_path / "other" / "checkpoint-4" / name, left / "checkpoint-4" / name)
        with pytest.raises(CheckpointError, match=f"{name}' is not what this run wrote: .* of another run; remove"):
            train(fresh(), pairs(), SETTINGS, left, HELD_OUT, resume=True)
        (left / "checkpoint-4" / name).write_bytes(own)


@pytest.mark.parametrize("files", [None, 5, []])
def test_a_state_that_says_not_what_it_holds_is_refused(files, left):
    edit(left / "checkpoint-4" / "run.json", lambda values: values.update(files=files))
    with pytest.raises(CheckpointError, match="does not say what the files beside it held"):
        train(fresh(), pairs(), SETTINGS, left, HELD_OUT, resume=True)


def test_the_last_loss_on_held_out_records_is_logged_once(tmp_path):
    for steps, seen in ((None, [6]), (3, [3, 6])):
        model = fresh()
        figures = train(model, pairs(), replace(SETTINGS, eval_steps=steps), tmp_path / str(steps), HELD_OUT)
        losses = [json.loads(line) for line in model.log.splitlines() if "eval_loss" in line]
        assert [entry["step"] for entry in losses] == seen and losses[-1]["eval_loss"] == figures["eval_loss"]


def test_a_state_folder_that_cannot_be_is_said_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "state", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match="cannot be written") as caught:
            train(fresh(), pairs(), SETTINGS, output, HELD_OUT)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
