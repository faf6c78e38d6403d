"""FSDP 2 of accelerate over two processes: the steps of one process, the same checkpoint, and a run that goes on after a cut."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

from bitune import BituneModel, ConfigError, cli
from bitune.data.batches import TokenPair
from bitune.training import sharded
from tests.closeness import assert_apart, assert_close
from tests.launch import launched
from tests.tiny import saved_base
from tests.training.test_trainer import distance, fresh, state

LAYERS = 4
STEPS = "--device cpu --max-steps 4 --save-steps 2 --logging-steps 1 --validation 4 --eval-steps 2 --rank 4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny base with tokenizer and a data file, on disk; answers are equally long, so that all batches count alike."""
    folder = tmp_path_factory.mktemp("tiny")
    saved_base(folder / "base")
    lines = [json.dumps({"question": f"{'again ' * (i % 4)}{i}?", "answer": str(i)}) for i in range(10, 30)]
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder


def run(folder: Path, output: Path, *more: str, processes: int) -> str:
    """What a training prints: over two processes in shards with 2 examples each, or in this one, which accumulates two batches of 2."""
    files = ["--base", folder / "base", "--data", folder / "data.jsonl", "--output", output]
    arguments = ["train", *STEPS.split(), "--per-device-train-batch-size", 2, *more, *files]
    if processes == 1:
        assert cli.main([*map(str, arguments), "--gradient-accumulation-steps", "2"]) == 0
        return ""
    return launched(folder, arguments, processes, sharded=True).stdout


def trained(folder: Path, output: Path) -> dict[str, torch.Tensor]:
    return state(BituneModel.from_pretrained(output, base=str(folder / "base")))


def log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]


def assert_same_steps(folder: Path, one: Path, parts: Path) -> None:
    weights, others = trained(folder, one), trained(folder, parts)
    moved = float(torch.cat([value.flatten() for key, value in weights.items() if "lora_B" in key]).norm())  # they start at 0
    assert_close(distance(others, weights), 0.0, allowed=0.01 * moved)
    assert_apart(moved, 0.0, least=1e-3)
    for entry, other in zip(log(one), log(parts), strict=True):
        assert entry.keys() == other.keys()
        for name in {"loss", "eval_loss", "grad_norm"} & entry.keys():
            assert_close(other[name], entry[name], allowed=2e-3)


def test_shards_take_the_steps_of_one_process_and_go_on_after_a_cut(folder, tmp_path):
    run(folder, tmp_path / "one", processes=1)
    said = run(folder, tmp_path / "parts", processes=2)
    assert f"trained in {LAYERS + 1} units" in said and said.count("saved ") == 1
    assert_same_steps(folder, tmp_path / "one", tmp_path / "parts")
    before = trained(folder, tmp_path / "parts")
    assert not torch.equal(before["theta_k"], torch.full((LAYERS,), 0.01))
    last = tmp_path / "parts.state" / "checkpoint-4"
    assert not list(last.glob("*model*.bin")) and not list(last.glob("*fsdp*")), "the base is not saved with a state"
    (last / "trainer_state.json").unlink()  # as if the power had gone while it was written
    run(folder, tmp_path / "parts", "--resume", processes=2)
    after = trained(folder, tmp_path / "parts")
    assert_close(distance(after, before), 0.0, allowed=1e-6)


def test_shards_of_lora_in_bfloat16_take_the_steps_of_one_process(folder, tmp_path):
    for name, processes in (("one", 1), ("parts", 2)):
        run(folder, tmp_path / name, "--method", "lora", "--bf16", processes=processes)
    assert_same_steps(folder, tmp_path / "one", tmp_path / "parts")


@pytest.mark.parametrize(
    ("settings", "prompt", "cause"),
    [
        ({"fsdp_version": 1}, [5, 6], "FSDP 1.*fsdp_version: 2"),
        ({"fsdp_version": 2, "activation_checkpointing": True}, [5, 6], "fsdp_activation_checkpointing"),
        ({"fsdp_version": 2}, [5], "one token"),
    ],
)
def test_what_cannot_be_trained_in_shards_is_refused(settings, prompt, cause):
    with pytest.raises(ConfigError, match=cause):
        sharded.prepare(fresh(), FullyShardedDataParallelPlugin(**settings), [TokenPair(prompt, [7])])
