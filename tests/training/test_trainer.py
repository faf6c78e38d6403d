"""Training on tiny models: it learns, resumes to the same bits, keeps two processes in step, and says what it did."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from bitune import BituneModel, CheckpointError, ConfigError, cli
from bitune.adapters.kinds import new_peft_config
from bitune.checkpoints.folder import Adapter
from bitune.data.batches import Collator, TokenPair
from bitune.training.sampler import EpochSampler
from bitune.training.settings import TrainingSettings
from bitune.training.state import last_checkpoint
from bitune.training.trainer import BituneTrainer, arguments_of, train
from tests.closeness import assert_apart, assert_close
from tests.launch import launched
from tests.tiny import saved_base, tiny_base
from tests.training.killed import train_until_killed

ROOT = Path(__file__).parent.parent.parent
FAST = {"per_device_train_batch_size": 4, "max_steps": 6, "learning_rate": 5e-3, "logging_steps": 1, "save_steps": 2}


def pairs(count: int = 24, seed: int = 0) -> list[TokenPair]:
    """Prompts whose answer is their first token, so that there is something to learn, of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(3, 40, (4 + i % 5,), generator=generator).tolist() for i in range(count)]
    return [TokenPair(prompt, [prompt[0], 257]) for prompt in prompts]


def fresh(method: str = "bitune", kind: str = "lora") -> BituneModel:
    base = tiny_base()
    torch.manual_seed(0)
    return BituneModel.create(base, method, new_peft_config(base.model, kind, rank=4))


def state(model: BituneModel) -> dict[str, torch.Tensor]:
    saved = model.to_checkpoint()
    parts = {f"{slot}.{key}": value for slot, adapter in saved.adapters.items() for key, value in adapter.weights.items()}
    return parts | ({} if saved.theta is None else {"theta_k": saved.theta[0], "theta_v": saved.theta[1]})


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of all trained numbers together: Adam moves a weight whose gradient is all but 0 either way, as rounding has it."""
    assert one.keys() == other.keys()
    return float(torch.cat([(one[key] - other[key]).flatten() for key in one]).norm())


def assert_same(first: BituneModel, second: BituneModel) -> None:
    a, b = state(first), state(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a), [key for key in a if not torch.equal(a[key], b[key])]


@pytest.mark.parametrize(("method", "kind"), [("bitune", "lora"), ("lora", "lora"), ("bitune", "dora"), ("bitune", "ia3")])
def test_it_learns_and_leaves_the_base_alone(method, kind, tmp_path):
    model = fresh(method, kind)
    before = {name: p.clone() for name, p in model.base.named_parameters() if not p.requires_grad}
    start = state(model)
    rate = 0.1 if kind == "ia3" else 5e-3  # IA3 learns a few numbers that start at 1
    train(model, pairs(), TrainingSettings(**FAST | {"max_steps": 30, "save_steps": 100, "learning_rate": rate}), tmp_path)
    losses = [json.loads(line)["loss"] for line in model.log.splitlines()]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(torch.equal(p, before[name]) for name, p in model.base.named_parameters() if not p.requires_grad)
    moved = {key for key, value in state(model).items() if not torch.equal(value, start[key])}
    assert any(key.startswith("causal.") for key in moved)
    if method == "bitune":
        assert any(key.startswith("bidirectional.") for key in moved)
        assert {"theta_k", "theta_v"} <= moved


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    """The second run starts from the files alone, as after a kill at step 5: its newest complete state is of step 4."""
    whole, cut = fresh(), fresh()
    settings = TrainingSettings(**FAST)
    train(whole, pairs(), settings, tmp_path / "whole")
    train_until_killed(cut, pairs(), settings, tmp_path / "cut")
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-4"
    # A state that was being written when the power went has no trainer_state.json and is passed over.
    (tmp_path / "cut" / "checkpoint-5").mkdir()
    resumed = fresh()
    train(resumed, pairs(), settings, tmp_path / "cut", resume=True)
    assert_same(whole, resumed)
    steps = [json.loads(line)["step"] for line in resumed.log.splitlines()]
    assert steps == [json.loads(line)["step"] for line in whole.log.splitlines()] == [1, 2, 3, 4, 5, 6]


def test_resume_without_a_state_starts_from_the_start(tmp_path):
    first, second = fresh(), fresh()
    train(first, pairs(), TrainingSettings(**FAST), tmp_path / "a")
    train(second, pairs(), TrainingSettings(**FAST), tmp_path / "b", resume=True)
    assert_same(first, second)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    """Two batches of 4 accumulated take the steps of one of 8, as all answers are equally long; one of 4 alone takes others."""
    settings = FAST | {"max_steps": 2, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    start = state(fresh())

    def trained(examples: list[TokenPair], **more: int) -> dict[str, torch.Tensor]:
        model = fresh()
        train(model, examples, TrainingSettings(**settings | more), tmp_path / str(more))
        return state(model)

    large = trained(pairs(8), per_device_train_batch_size=8)
    small, half = trained(pairs(8), gradient_accumulation_steps=2), trained(pairs(8)[:4], gradient_accumulation_steps=1)
    moved = distance(large, start)
    assert_close(distance(small, large), 0.0, allowed=0.01 * moved)
    assert_apart(distance(half, large), 0.0, least=0.1 * moved)


def test_batches_are_of_like_lengths_and_in_no_order_of_length():
    lengths = [1 + i % 97 for i in range(803)]
    sampler = EpochSampler(8, lengths, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(803))
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    batches = [[lengths[i] for i in first[start : start + 8]] for start in range(0, 800, 8)]
    assert sum(max(b) - min(b) for b in batches) / 100 < 5, "little padding"
    rising = sum(max(b) > max(a) for a, b in zip(batches, batches[1:], strict=False))
    assert 30 < rising < 70, "neither falling nor rising"


def test_theta_has_its_own_learning_rate(tmp_path):
    slow = fresh()
    train(slow, pairs(), TrainingSettings(**FAST | {"mixing_learning_rate": 1e-9}), tmp_path)
    for alpha in slow.mixing_ratios():
        assert_close(alpha, torch.full_like(alpha, 0.5))


def test_the_log_holds_what_the_mixing_view_draws(tmp_path):
    model = fresh()
    train(model, pairs(), TrainingSettings(**FAST | {"eval_steps": 3}), tmp_path, pairs(8, seed=1))
    log = [json.loads(line) for line in model.log.splitlines()]
    trained = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in trained] == [1, 2, 3, 4, 5, 6]
    assert all(len(entry["alpha_k"]) == len(entry["alpha_v"]) == 4 and "learning_rate" in entry for entry in trained)
    assert [entry["step"] for entry in log if "eval_loss" in entry][:2] == [3, 6]
    keys, values = model.mixing_ratios()
    assert_close(torch.tensor(log[-1]["alpha_k"]), keys, allowed=1e-4)
    assert_close(torch.tensor(log[-1]["alpha_v"]), values, allowed=1e-4)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "training_log.jsonl").read_text() == model.log


def test_bfloat16_keeps_what_is_trained_in_float32(tmp_path):
    base = tiny_base()
    base.model.to(torch.bfloat16)
    model = BituneModel.create(base)
    train(model, pairs(), TrainingSettings(**FAST | {"bf16": True}), tmp_path)
    assert {value.dtype for value in state(model).values()} == {torch.float32}
    assert base.model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_sparing_casts_under_autocast_changes_no_bit(kind):
    """Same gradients with PEFT's casts to float32 and without them; the casts are back afterwards."""
    gradients = []
    for spared in (False, True):
        base = tiny_base()
        base.model.to(torch.bfloat16)
        torch.manual_seed(0)
        model = BituneModel.create(base, peft_config=new_peft_config(base.model, kind, rank=4)).train()
        batch = Collator(0)(pairs(4))
        with model.manager.under_autocast() if spared else nullcontext(), torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        assert all(layer.cast_input_dtype_enabled for layer in layers)
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


@pytest.mark.parametrize("length", [{"max_steps": 4}, {"max_steps": -1, "num_train_epochs": 1.0}])
def test_a_finished_run_resumes_without_one_more_update(length, tmp_path):
    """Also where the rate would not be 0 by then; its loss is the mean over all of it."""
    settings = TrainingSettings(**FAST | length | {"lr_scheduler_type": "constant"})
    first, second = fresh(), fresh()
    figures = train(first, pairs(16), settings, tmp_path)
    again = train(second, pairs(16), settings, tmp_path, resume=True)
    assert_same(first, second)
    assert first.log == second.log and len(second.log.splitlines()) == 4
    losses = [json.loads(line)["loss"] for line in first.log.splitlines()]
    assert figures["train_loss"] == again["train_loss"]
    assert_close(figures["train_loss"], sum(losses) / 4)


def test_the_mean_loss_is_over_updates_between_lines_of_the_log_too(tmp_path):
    every, seldom = (TrainingSettings(**FAST | {"logging_steps": steps}) for steps in (1, 4))
    exact = train(fresh(), pairs(16), every, tmp_path / "every")["train_loss"]
    assert_close(train(fresh(), pairs(16), seldom, tmp_path / "seldom")["train_loss"], exact)


def test_a_checkpoint_with_coefficients_for_other_layers_is_not_half_loaded():
    model = fresh()
    before, saved = state(model), model.to_checkpoint()
    adapters = {
        slot: Adapter(it.config, {key: value + 1 for key, value in it.weights.items()}) for slot, it in saved.adapters.items()
    }
    with pytest.raises(CheckpointError, match="coefficients for 3 layers, the base has 4"):
        model.load(replace(saved, adapters=adapters, theta=tuple(theta[:3] for theta in saved.theta)))
    assert all(torch.equal(value, before[key]) for key, value in state(model).items())


def test_losses_on_held_out_pairs_are_those_of_the_weights_at_that_step(tmp_path):
    """Also of a second look: the Trainer's optimizer writes into the weights without torch counting it."""
    for method, kind in (("bitune", "lora"), ("bitune", "ia3"), ("lora", "dora")):
        model, held_out = fresh(method, kind), pairs(4, seed=1)
        train(
            model,
            pairs(),
            TrainingSettings(**FAST | {"eval_steps": 2, "learning_rate": 0.05}),
            tmp_path / method / kind,
            held_out,
        )
        *_, before, last = (entry["eval_loss"] for entry in map(json.loads, model.log.splitlines()) if "eval_loss" in entry)
        loss = model(**Collator(0)(held_out)).loss.item()  # with gradients, so by PEFT's own arithmetic
        assert_close(last, loss)
        assert_apart(before, loss, least=1e-3)


def test_a_rate_of_zero_freezes_the_ratios(tmp_path):
    model = fresh()
    train(model, pairs(), TrainingSettings(**FAST | {"mixing_learning_rate": 0.0}), tmp_path)
    assert torch.equal(state(model)["theta_k"], torch.full((4,), 0.01))
    with pytest.raises(ConfigError, match="mixing_learning_rate"):
        TrainingSettings(mixing_learning_rate=-1.0)


def test_the_kernel_for_short_prompts_gives_the_same_loss(tmp_path):
    model = fresh()
    settings = TrainingSettings(max_steps=1)
    trainer = BituneTrainer(model, settings, arguments_of(settings, tmp_path, on_cpu=True), pairs(), [])
    batch = Collator(0)(pairs(4))
    assert_close(trainer.compute_loss(model, batch), model(**batch).loss)


def test_alpha_starts_where_it_is_told():
    for alpha in (0.1, 0.5, 0.9):
        keys, values = BituneModel.create(tiny_base(), initial_mixing_alpha=alpha).mixing_ratios()
        assert_close(torch.cat([keys, values]), torch.full((8,), alpha))
    for alpha in (0.0, 1.0, -1.0, 1e-46, 0.9999999999999999):
        with pytest.raises(ConfigError, match=f"start at {alpha}"):
            BituneModel.create(tiny_base(), initial_mixing_alpha=alpha)


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_device_train_batch_size": 0},
        {"learning_rate": 0.0},
        {"warmup_ratio": 1.0},
        {"num_train_epochs": 0.0},
        {"gradient_accumulation_steps": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainingSettings(**wrong)


def test_evaluating_needs_something_to_evaluate_on(tmp_path):
    with pytest.raises(ConfigError, match="validation"):
        train(fresh(), pairs(), TrainingSettings(**FAST | {"eval_steps": 2}), tmp_path)


def test_gradient_checkpointing_is_refused():
    model = fresh().train()
    model.base.activation_checkpointing_enable()
    with pytest.raises(ConfigError, match="checkpointing"):
        model(torch.tensor([[5, 6, 7]]), torch.tensor([[8]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny base with tokenizer and a data file, on disk."""
    folder = tmp_path_factory.mktemp("tiny")
    saved_base(folder / "base")
    lines = [json.dumps({"task": "t", "question": f"{'again ' * (i % 4)}{i}?", "answer": str(i)}) for i in range(16)]
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder


def commanded(folder: Path, arguments: list[object], processes: int, capsys) -> str:
    """What `python -m bitune arguments` prints; one process is this one, as starting another takes longer than what it does."""
    if processes > 1:
        return launched(folder, arguments, processes).stdout
    capsys.readouterr()
    assert cli.main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def run_training(folder: Path, output: Path, capsys, processes: int = 1, accumulation: int = 1) -> dict[str, torch.Tensor]:
    options = f"--device cpu --max-steps 3 --per-device-train-batch-size 2 --rank 4 --gradient-accumulation-steps {accumulation}"
    files = ["--base", folder / "base", "--data", folder / "data.jsonl", "--output", output]
    assert commanded(folder, ["train", *options.split(), *files], processes, capsys).count("saved ") == 1
    return state(BituneModel.from_pretrained(output, base=str(folder / "base")))


def test_two_processes_take_the_steps_of_one(folder, tmp_path, capsys):
    """DDP over two processes with 2 examples each is one process accumulating two batches of 2: the same weights, saved once."""
    one = run_training(folder, tmp_path / "one", capsys, accumulation=2)
    two = run_training(folder, tmp_path / "two", capsys, processes=2)
    half = run_training(folder, tmp_path / "half", capsys)
    moved = float(torch.cat([value.flatten() for key, value in one.items() if "lora_B" in key]).norm())  # they start at 0
    assert_close(distance(two, one), 0.0, allowed=0.01 * moved)
    assert_apart(distance(half, one), 0.0, least=0.1 * moved)
    assert not torch.equal(one["theta_k"], torch.full((4,), 0.01))


def test_two_processes_evaluate_as_one(folder, tmp_path, capsys):
    """Choices and open answers: the same report to the last digit."""
    questions = [{"question": f"{'why ' * (i % 5)}{i}?", "choices": ["yes", "no", str(i)], "label": i % 3} for i in range(11)]
    (tmp_path / "choices.jsonl").write_text("\n".join(map(json.dumps, questions)))
    reports = []
    for processes in (1, 2):
        report = tmp_path / f"{processes}.json"
        files = ["--base", folder / "base", "--data", tmp_path / "choices.jsonl", "--data", folder / "data.jsonl"]
        options = ["--device", "cpu", "--batch-size", 2, "--max-new-tokens", 3, "--output", report]
        assert (
            commanded(folder, ["evaluate", *files, *options], processes, capsys).count("choices.jsonl  ") == 3
        )  # a line for each measure
        reports.append(json.loads(report.read_text()))
    assert reports[0] == reports[1]
    assert len(reports[0]["sets"][str(tmp_path / "choices.jsonl")]["items"]) == 11


def test_a_gathered_state_dict_saves_the_same(folder):
    """Under FSDP the weights come as a whole state dict of the model, gathered from its shards."""
    model = fresh()
    gathered = {key: value + 0 for key, value in model.state_dict().items()}
    first, second = model.to_checkpoint(), model.to_checkpoint(gathered)
    assert first.adapters.keys() == second.adapters.keys()
    for slot, adapter in first.adapters.items():
        assert adapter.weights.keys() == second.adapters[slot].weights.keys()
        assert all(torch.equal(value, second.adapters[slot].weights[key]) for key, value in adapter.weights.items())
    assert all(torch.equal(a, b) for a, b in zip(first.theta, second.theta, strict=True))
