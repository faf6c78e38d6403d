"""The study's runs on a tiny base and made-up data: each has its result, and goes on where it was cut."""

import json
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from bitune.checkpoints.folder import read
from bitune.data.examples import load_examples
from bitune.errors import UnknownNameError
from bitune.evaluation.report import item_id
from bitune.training.trainer import BituneTrainer
from study import run as run_module
from study.plan import SETTINGS, named, runs
from study.run import carry_out, checkpoint_of, pairs_of
from study.ship import card
from tests.study.small import BASELINE, METHODS, SMALL, result
from tests.tiny import tiny_base


def test_every_run_has_a_name_of_its_own():
    names = [run.name for run in runs()]
    assert len(set(names)) == len(names)
    assert named(names[3]).name == names[3]
    with pytest.raises(UnknownNameError, match="choices-run-base"):
        named("choices-run-bse")


def test_the_main_comparison_is_matched_and_has_three_seeds():
    """Two adapters of rank 8 and 2 x layers coefficients against one adapter of rank 16, with as many tries."""
    for setting in ("instruction", "choices"):
        main = [run for run in runs([setting]) if not run.tuning and run.peft == "lora"]
        for method, rank in (("bitune", 8), ("lora", 16)):
            assert {run.seed for run in main if (run.method, run.rank) == (method, rank)} == {0, 1, 2}
    tries = [run.method for run in runs() if run.tuning and run.seed == 0]
    assert tries.count("lora") == tries.count("bitune") > 1
    assert {run.method for run in runs(["instruction"])} >= {"only_causal", "no_mixing", "shared_weights", "anticausal", "base"}


def test_parameters_match(study):
    lora, tuned = (result(study, run)["trainable_parameters"] for run in METHODS)
    assert tuned - lora == 2 * 4  # theta for keys and values of four layers


def test_measured_items_are_the_first_that_fit_and_were_not_trained_on(study):
    measured = result(study, METHODS[1])["measured"]
    examples = load_examples(study.data / "a.test.jsonl")[3:7]  # the first is too long, the next two stand in the training file
    assert measured["a"]["ids"] == [item_id(e.prompt) for e in examples]
    assert measured["a"]["right"] == [e.label for e in examples]
    predicted, hits = (measured["a"]["measures"]["acc"][key] for key in ("predictions", "hits"))
    assert hits == [int(p == e.label) for p, e in zip(predicted, examples, strict=True)]
    assert len(measured["t"]["measures"]["answer"]["hits"]) == 4


def test_validation_is_held_out_and_the_same_for_all(study):
    train, held_out = pairs_of(study, SMALL)
    assert (len(train), len(held_out)) == (11, 3)
    assert not {tuple(p.prompt_ids) for p in train} & {tuple(p.prompt_ids) for p in held_out}
    assert pairs_of(study, SMALL) == (train, held_out)


def test_a_run_cut_short_goes_on(study, tmp_path, monkeypatch):
    """Cut in its training and once more while it is measured: the same result as in one go but for the times."""
    again = replace(study, results=tmp_path / "results", state=tmp_path / "state")
    save, seen = BituneTrainer._save, []

    def cut(trainer, *arguments, **named):
        save(trainer, *arguments, **named)
        seen.append(trainer.state.global_step)
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("study.run.SAVE_STEPS", 2)
    monkeypatch.setattr(BituneTrainer, "_save", cut)
    with pytest.raises(KeyboardInterrupt):
        carry_out(again, [METHODS[1]])
    monkeypatch.setattr(BituneTrainer, "_save", save)
    monkeypatch.setattr("study.run.measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        carry_out(again, [METHODS[1]])
    monkeypatch.undo()
    carry_out(again, [METHODS[1]])
    first, second = result(study, METHODS[1]), result(again, METHODS[1])
    assert second.pop("training_seconds") is None and first.pop("training_seconds") > 0
    assert seen == [2]
    saved = [load_file(s.checkpoint(METHODS[1]) / "causal" / "adapter_model.safetensors") for s in (study, again)]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
    assert any(value.any() for key, value in saved[0].items() if "lora_B" in key), "it has learned something"
    assert {k: v for k, v in first.items() if k not in ("seconds", "settings")} == {
        k: v for k, v in second.items() if k not in ("seconds", "settings")
    }


def test_what_another_process_is_at_is_left_to_it(study, tmp_path):
    again = replace(study, results=tmp_path / "results", state=tmp_path / "state")
    again.state.mkdir()
    with FileLock(again.state / f"{BASELINE.name}.lock"):
        carry_out(again, [BASELINE])
    assert not again.file(BASELINE).exists()
    carry_out(again, [BASELINE])
    assert again.file(BASELINE).exists()


def test_a_run_that_fails_does_not_stop_the_others(study, tmp_path, monkeypatch):
    again = replace(study, results=tmp_path / "results", state=tmp_path / "state")
    train = run_module._train
    broken = lambda *a: train(*a) if a[1].method == "lora" else (_ for _ in ()).throw(RuntimeError("no memory"))  # noqa: E731
    monkeypatch.setattr(run_module, "_train", broken)
    (failure,) = carry_out(again, METHODS[::-1])
    assert failure == f"{METHODS[1].name}: no memory"
    assert again.file(METHODS[0]).exists() and not again.file(METHODS[1]).exists()


def test_a_finished_run_is_not_repeated_and_tuning_sees_no_test(study):
    before = {file.name: file.stat().st_mtime_ns for file in study.results.iterdir()}
    carry_out(study, [BASELINE, *METHODS])
    assert {file.name: file.stat().st_mtime_ns for file in study.results.iterdir()} == before
    assert "measured" not in result(study, replace(METHODS[0], tuning=True))


def test_a_run_can_be_had_again(study, tmp_path):
    again = replace(study, results=tmp_path / "results", state=tmp_path / "state")
    carry_out(again, [METHODS[1]])
    first, second = result(study, METHODS[1]), result(again, METHODS[1])
    assert first["measured"] == second["measured"] and first["log"] == second["log"]


@pytest.mark.parametrize("peft", ["dora", "ia3", "full"])
def test_other_kinds_run_beside(study, tmp_path, monkeypatch, peft):
    """DoRA and IA3 on the study's base, full fine-tuning on a copy of it."""
    base = tiny_base()
    base.model.to(torch.bfloat16)  # as the study's own
    before = base.model(torch.tensor([[5, 6]])).logits
    run = replace(METHODS[1], peft=peft)
    assert carry_out(replace(study, base=base, results=tmp_path / "results", state=tmp_path / "state"), [run]) == []
    written = json.loads((tmp_path / "results" / f"{run.name}.json").read_text())
    assert written["trainable_parameters"] > 0
    if peft == "ia3":  # has no rank for its card to tell
        monkeypatch.setitem(SETTINGS, "choices", SMALL)
        kept = read(checkpoint_of(run, tmp_path / "state"))
        text = card(run, written, [written], kept)
        assert "(2 adapters, 8 mixing coefficients;" in text and "rank" not in text
    assert torch.equal(base.model(torch.tensor([[5, 6]])).logits, before)
