"""The study on a tiny base and made-up data: runs, goes on where it was cut, and its tables say what the results hold."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from bitune import BituneModel
from bitune.checkpoints.folder import read
from bitune.data.examples import load_examples
from bitune.errors import ConfigError, UnknownNameError
from bitune.evaluation.intervals import bootstrap
from bitune.evaluation.report import item_id
from bitune.training.trainer import BituneTrainer
from study import plan, table
from study import run as run_module
from study.intervals import resampled
from study.lengths import by_length, prompt_lengths
from study.lengths import markdown as lengths_markdown
from study.plan import BITUNE, LORA, SETTINGS, Run, Setting, named, runs
from study.run import Study, carry_out, checkpoint_of, measure, pairs_of
from study.ship import card, cards, ship
from study.table import Row, evidence, markdown, rows_of
from tests.tiny import tiny_base

SMALL = Setting(
    "choices", "Small", "A text.", ("a",), {"a": 6, "t": 4}, ("a",), "Ours.", steps=4, tuning_steps=2, batch_size=2, validation=3
)
METHODS = [replace(run, setting="choices", rank=rank) for run, rank in ((LORA, 4), (BITUNE, 2))]
BASELINE = Run("choices", "base")
_INTERVAL = re.compile(r"(?<=\()(?:95 % interval )?[-+.\d]+ to [-+.\d]+(?=[,)])")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    questions = [{"question": f"{i}?", "choices": ["yes", "no", f"{i}"], "label": i % 3} for i in range(14)]
    turned = questions[1] | {"choices": ["1", "Yes", "no"]}
    too_long = {"question": "x" * 300, "choices": ["yes", "no"], "label": 0}
    open_records = [{"prompt": f"say {i}", "answer": str(i)} for i in range(6)]
    others = [record | {"question": f"{record['question']}?"} for record in questions]
    for name, records in (
        ("a.train", [too_long, *questions]),
        ("a.test", [too_long, questions[0], turned, *others]),
        ("t.test", open_records),
    ):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    study = Study(tiny_base(), folder, folder / "state", folder / "results", {"choices": SMALL})
    carry_out(study, [BASELINE, *METHODS, replace(METHODS[1], seed=1), replace(METHODS[0], tuning=True)])
    return study


def result(study: Study, run: Run) -> dict:
    return json.loads(study.file(run).read_text())


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
        text = card(run, written, rows_of(SMALL, [written]), kept)
        assert "(2 adapters, 8 mixing coefficients;" in text and "rank" not in text
    assert torch.equal(base.model(torch.tensor([[5, 6]])).logits, before)


def test_rows_gather_seeds_and_say_what_the_results_hold(study):
    results = [json.loads(file.read_text()) for file in study.results.glob("*.json")]
    rows = {row.name: row for row in rows_of(SMALL, results)}
    assert list(rows) == ["Base", "Bitune", "LoRA r4"]
    by_name = {row["name"]: row for row in evidence(SMALL, list(rows.values()))["rows"]}
    hits = np.array([r["measured"]["a"]["measures"]["acc"]["hits"] for r in rows["Bitune"].results])
    accuracy = by_name["Bitune"]["accuracy"]["average"]
    assert accuracy["mean"] == pytest.approx(hits.mean())
    assert accuracy["spread"] == pytest.approx(hits.mean(1).std(ddof=1))
    assert (
        by_name["Bitune"]["seeds"] == [0, 1]
        and by_name["Base"]["seeds"] == []
        and by_name["LoRA r4"]["accuracy"]["a"]["spread"] is None
    )
    assert f"{100 * hits.mean():.1f}" in markdown(evidence(SMALL, list(rows.values())))


def one(method: str, seed: int, hits: list[int]) -> dict:
    """A result on a few items."""
    run = vars(replace(LORA if method == "lora" else BITUNE, setting="choices", seed=seed))
    measured = {
        "ids": list(map(str, range(len(hits)))),
        "right": [0] * len(hits),
        "measures": {"acc": {"predictions": hits, "hits": hits}},
    }
    settings = {"max_steps": 1, "per_device_train_batch_size": 2}
    return {"run": run, "measured": {"a": measured}, "settings": settings, "examples": 9, "training_seconds": 60}


def test_differences_are_paired_by_item():
    """Same accuracy, other items: the paired interval is wide; same items: it has no width."""
    setting = replace(SMALL, limits={"a": 4}, averaged=("a",))

    apart = [one("lora", 0, [1, 1, 0, 0]), one("bitune", 0, [0, 0, 1, 1]), one("bitune", 1, [0, 0, 1, 0])]
    (reference, tuned) = evidence(setting, rows_of(setting, apart))["rows"]
    assert reference["minus"] is None
    assert tuned["minus"]["a"]["mean"] == pytest.approx(-0.125)
    assert tuned["minus"]["a"]["low"] == -1.0 and tuned["minus"]["a"]["high"] >= 0.5
    alike = [one("lora", 0, [1, 0, 1, 0]), one("bitune", 0, [1, 0, 1, 0])]
    (_, tuned) = evidence(setting, rows_of(setting, alike))["rows"]
    assert tuned["minus"]["average"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_a_row_is_held_against_the_same_seeds():
    """A seed moves both sides together, so the others would only add their noise."""
    setting = replace(SMALL, limits={"a": 4}, averaged=("a",))
    good, bad = [1, 1, 1, 1], [0, 0, 0, 0]
    results = [one("lora", seed, hits) for seed, hits in enumerate((good, bad, good))]
    reference, tuned = evidence(setting, rows_of(setting, [*results, one("bitune", 1, [0, 0, 0, 1])]))["rows"]
    assert reference["accuracy"]["a"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert tuned["minus"]["a"]["mean"] == 0.25


def test_differences_by_length_of_prompt(study):
    """Right on the long ones alone: the difference lies there."""
    setting = replace(SMALL, limits={"a": 9}, averaged=("a",))
    rows = rows_of(setting, [one("lora", 0, [0] * 9), one("bitune", 0, [0, 1, 0] * 3)])
    lengths = {"0": 3, "1": 30, "2": 12, "3": 4, "4": 31, "5": 11, "6": 5, "7": 32, "8": 13}
    parts = by_length(setting, rows[1], rows[0], lengths)
    assert [(p.low, p.high, p.items, p.difference.mean) for p in parts] == [(3, 5, 3, 0), (11, 13, 3, 0), (30, 32, 3, 1)]
    assert "| 30 to 32 | 3 | +100.0 (+100.0 to +100.0) |" in lengths_markdown(setting, rows[1], rows[0], parts)
    lengths = prompt_lengths(SMALL, study.data, study.base.tokenizer)
    assert set(result(study, BASELINE)["measured"]["a"]["ids"]) <= set(lengths)
    assert max(lengths.values()) > 300  # tokens of this tokenizer are bytes


def test_bitune_of_another_kind_is_held_against_its_own_kind():
    """Not against LoRA, which is as good as what is trained with a hundred times its parameters."""
    setting = replace(SMALL, limits={"a": 4}, averaged=("a",))
    kinds = [one(method, 0, hits) for method, hits in (("lora", [1, 1, 1, 1]), ("lora", [0, 0, 0, 1]), ("bitune", [0, 0, 1, 1]))]
    for result in kinds[1:]:
        result["run"]["peft"] = "ia3"
    content = evidence(setting, rows_of(setting, [*kinds, one("bitune", 0, [1, 1, 1, 0])]))
    against = {row["name"]: (row["against"], row["minus"] and row["minus"]["a"]["mean"]) for row in content["rows"]}
    assert against == {
        "LoRA r16": (None, None),
        "Bitune": ("LoRA r16", -0.25),
        "IA3": ("LoRA r16", -0.75),
        "Bitune (IA3)": ("IA3", 0.25),
    }
    assert markdown(content).count(", minus IA3) |") == 1


def test_a_shipped_checkpoint_answers_as_the_run_did(study, tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "choices", SMALL)
    ship(METHODS[1], study.state, tmp_path / "shipped", study.results)
    model = BituneModel.from_pretrained(tmp_path / "shipped", study.base)
    assert measure(study, SMALL, model.variant, model.manager) == result(study, METHODS[1])["measured"]
    assert model.bitune_config.training["run"] == METHODS[1].name
    assert METHODS[1].name in model.card and "2 seeds" in model.card
    assert "--limit 6 " in model.card and model.card.count("--leave-out a.train.jsonl") == len(SMALL.limits)
    assert "2 adapters of rank 2, 8 mixing coefficients" in model.card and "theta's 0.001" in model.card
    assert len(model.log.splitlines()) == len(result(study, METHODS[1])["log"])
    model.release()


def test_evidence_files_and_the_page_of_results_are_what_the_results_say():
    """`python -m study table` writes and prints them; nobody edits them. Interval ends are left out: numpy may draw otherwise in another version."""
    results, page = table.read_results(), Path(table.__file__).parent.parent / "docs" / "results.md"
    text = _INTERVAL.sub("", page.read_text(encoding="utf-8"))
    for setting in SETTINGS.values():
        rows = rows_of(setting, results)
        file = table.EVIDENCE / f"{setting.name}.json"
        assert file.is_file() == bool(rows)
        if rows:
            made = evidence(setting, rows)
            assert without_ends(json.loads(file.read_text(encoding="utf-8"))) == without_ends(made)
            for line in markdown(made).splitlines():
                assert _INTERVAL.sub("", line) in text


def without_ends(content):
    """The value of an evidence file without the ends of intervals."""
    if isinstance(content, dict):
        return {key: without_ends(value) for key, value in content.items() if key not in ("low", "high")}
    return [without_ends(value) for value in content] if isinstance(content, list) else content


def test_the_rates_of_the_plan_are_the_best_that_were_tried():
    """In validation loss on the setting, or on `choices` where a setting has no tries, but for less than NOISE, once all are done."""
    losses = {named(Run(**r["run"]).name): r["validation_loss"] for r in table.read_results() if r["run"]["tuning"]}
    checked = 0
    for run in (run for run in runs() if not run.tuning and run.method in ("lora", "bitune") and run.seed == 0):
        alike = [t for t in runs() if t.tuning and t.seed == 0 and (t.method, t.peft, t.rank) == (run.method, run.peft, run.rank)]
        tries = [t for t in alike if t.setting == run.setting] or [t for t in alike if t.setting == "choices"]
        if tries and all(t in losses for t in tries):
            chosen = replace(run, tuning=True, setting=tries[0].setting)
            assert losses[chosen] < min(losses[t] for t in tries) + plan.NOISE
            checked += 1
    assert checked >= 4


def test_cards_of_shipped_checkpoints_are_what_the_results_say(study, tmp_path, monkeypatch):
    """`python -m study table` writes them; a run that came later changes them."""
    monkeypatch.setitem(SETTINGS, "choices", SMALL)
    copy = tmp_path / "results"
    copy.mkdir()
    later = study.file(replace(METHODS[1], seed=1))
    for file in study.results.glob("*.json"):
        if file != later:
            shutil.copy(file, copy)
    shipped = tmp_path / "shipped" / "one"
    ship(METHODS[1], study.state, shipped, copy)
    assert cards(tmp_path / "shipped", copy) == {shipped / "README.md": (shipped / "README.md").read_text()}
    shutil.copy(later, copy)
    (text,) = cards(tmp_path / "shipped", copy).values()
    assert "2 seeds" in text and "2 seeds" not in (shipped / "README.md").read_text()


def test_the_cards_here_are_up_to_date():
    written = cards()
    assert len(written) >= 2
    for file, text in written.items():  # but for the intervals: numpy may draw otherwise in another version
        assert _INTERVAL.sub("", file.read_text(encoding="utf-8")) == _INTERVAL.sub("", text)


def test_one_seed_alone_is_a_bootstrap_of_items():
    hits = [np.array([[1.0] * 60 + [0.0] * 140]), np.array([[1.0, 0.0] * 100])]
    interval, expected = resampled(hits), bootstrap(*(h[0] for h in hits))
    assert interval.mean == pytest.approx(expected.mean)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.006)
    same = resampled(hits, hits)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_seeds_that_differ_widen_the_interval():
    """Every item alike within a seed, so that items add nothing: the interval is that of drawing three seeds anew."""
    apart = np.array([[1.0] * 50, [0.0] * 50, [0.0] * 50])
    interval = resampled([apart])
    assert interval.mean == pytest.approx(1 / 3)
    assert (interval.low, interval.high) == pytest.approx((0.0, 1.0))  # all three draws the same: (2/3)^3 and (1/3)^3 = 3.7 %
    assert resampled([apart], [apart]).high > 0.5
    together = resampled([apart], [apart], same_seeds=True)  # both fall and rise with the seed: nothing is left
    assert (together.low, together.high) == (0.0, 0.0)
    difference = resampled([apart], [np.full((3, 50), 1 / 3)])
    assert difference.low == pytest.approx(-1 / 3) and difference.high == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "second",
    [
        one("bitune", 0, [0, 1]),
        one("bitune", 1, [0, 1, 1]),
        {**one("bitune", 1, [0, 1]), "run": vars(replace(BITUNE, setting="choices", seed=1, learning_rate=1e-5))},
        {**one("bitune", 1, [0, 1]), "settings": {"max_steps": 2, "per_device_train_batch_size": 2}},
    ],
    ids=["a seed twice", "other items", "another rate", "a longer training"],
)
def test_results_that_do_not_belong_together_are_refused(second):
    with pytest.raises(ConfigError, match="'Bitune'"):
        rows_of(SMALL, [one("bitune", 0, [1, 0]), second])


def test_row_reads_by_seed():
    hits = {"a": {"measures": {"acc": {"hits": [1, 0], "predictions": [2, 1]}}}}
    row = Row("x", ({"measured": hits}, {"measured": hits}))
    assert row.hits("a", "acc").tolist() == [[1, 0], [1, 0]] and row.predictions("a", "acc") == [[2, 1], [2, 1]]
