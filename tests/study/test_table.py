"""The study's tables, intervals and evidence files say what the results hold."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitune.errors import ConfigError
from bitune.evaluation.intervals import bootstrap
from study import plan, table
from study.intervals import resampled
from study.lengths import by_length, prompt_lengths
from study.lengths import markdown as lengths_markdown
from study.plan import BITUNE, SETTINGS, Run, named, runs
from study.table import Row, evidence, markdown, rows_of
from tests.closeness import assert_close
from tests.study.small import BASELINE, SMALL, one, result

_INTERVAL = re.compile(r"(?<=\()(?:95 % interval )?[-+.\d]+ to [-+.\d]+(?=[,)])")


def test_rows_gather_seeds_and_say_what_the_results_hold(study):
    results = [json.loads(file.read_text()) for file in study.results.glob("*.json")]
    rows = {row.name: row for row in rows_of(SMALL, results)}
    assert list(rows) == ["Base", "Bitune", "LoRA r4"]
    by_name = {row["name"]: row for row in evidence(SMALL, list(rows.values()))["rows"]}
    hits = np.array([r["measured"]["a"]["measures"]["acc"]["hits"] for r in rows["Bitune"].results])
    accuracy = by_name["Bitune"]["accuracy"]["average"]
    assert_close(accuracy["mean"], hits.mean())
    assert_close(accuracy["spread"], hits.mean(1).std(ddof=1))
    assert (
        by_name["Bitune"]["seeds"] == [0, 1]
        and by_name["Base"]["seeds"] == []
        and by_name["LoRA r4"]["accuracy"]["a"]["spread"] is None
    )
    assert f"{100 * hits.mean():.1f}" in markdown(evidence(SMALL, list(rows.values())))


def test_differences_are_paired_by_item():
    """Same accuracy, other items: the paired interval is wide; same items: it has no width."""
    setting = replace(SMALL, limits={"a": 4}, averaged=("a",))

    apart = [one("lora", 0, [1, 1, 0, 0]), one("bitune", 0, [0, 0, 1, 1]), one("bitune", 1, [0, 0, 1, 0])]
    (reference, tuned) = evidence(setting, rows_of(setting, apart))["rows"]
    assert reference["minus"] is None
    assert_close(tuned["minus"]["a"]["mean"], -0.125)
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
    assert_close(reference["accuracy"]["a"]["mean"], 2 / 3)
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
    for kind in kinds[1:]:
        kind["run"]["peft"] = "ia3"
    content = evidence(setting, rows_of(setting, [*kinds, one("bitune", 0, [1, 1, 1, 0])]))
    against = {row["name"]: (row["against"], row["minus"] and row["minus"]["a"]["mean"]) for row in content["rows"]}
    assert against == {
        "LoRA r16": (None, None),
        "Bitune": ("LoRA r16", -0.25),
        "IA3": ("LoRA r16", -0.75),
        "Bitune (IA3)": ("IA3", 0.25),
    }
    assert markdown(content).count(", minus IA3) |") == 1


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


def test_one_seed_alone_is_a_bootstrap_of_items():
    hits = [np.array([[1.0] * 60 + [0.0] * 140]), np.array([[1.0, 0.0] * 100])]
    interval, expected = resampled(hits), bootstrap(*(h[0] for h in hits))
    assert_close(interval.mean, expected.mean)
    # Quantiles lie on a grid of 1 / 400, and other draws may end a step apart.
    assert_close((interval.low, interval.high), (expected.low, expected.high), allowed=3.1 / 400)
    same = resampled(hits, hits)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_seeds_that_differ_widen_the_interval():
    """Every item alike within a seed, so that items add nothing: the interval is that of drawing three seeds anew."""
    apart = np.array([[1.0] * 50, [0.0] * 50, [0.0] * 50])
    interval = resampled([apart])
    assert_close(interval.mean, 1 / 3)
    # All three draws the same: (2/3)^3 and (1/3)^3 = 3.7 %.
    assert_close((interval.low, interval.high), (0.0, 1.0))
    assert resampled([apart], [apart]).high > 0.5
    together = resampled([apart], [apart], same_seeds=True)  # both fall and rise with the seed: nothing is left
    assert (together.low, together.high) == (0.0, 0.0)
    difference = resampled([apart], [np.full((3, 50), 1 / 3)])
    assert_close((difference.low, difference.high), (-1 / 3, 2 / 3))


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
