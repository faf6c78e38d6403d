"""Sets of prompts: every answer is that of its prompt alone; rows in a file that a later run goes on with; what they say together."""

import csv
import io
import json
import threading

import pytest

from bitune import ConfigError, DataError, Engine, MixingRatios, PromptError, UnknownNameError
from bitune.cancellation import Cancelled, cancellable
from bitune.data.prompt_sets import SetPrompt
from bitune.evaluation.intervals import Interval, bootstrap, paired_shares, wilson
from bitune.inference.batch import answer_batch
from bitune.model.decoding import Decoder
from bitune.schema.variants import WhatIf
from bitune.sets.compared import compare
from bitune.sets.files import check_set_file, csv_text, harmless, json_lines, open_set_file
from bitune.sets.lines import comparison_lines
from bitune.sets.rows import Row, SetAnswer, SetSettings
from bitune.sets.run import answer_set, planned
from tests.tiny import bitune_on, tiny_base

PROMPTS = [
    SetPrompt("Which way does it read?"),
    SetPrompt("Why?"),
    SetPrompt("A long one. " * 6, "42"),
    SetPrompt("And what of the last one?", "both"),
    SetPrompt("Why?"),
]
SETTINGS = SetSettings(template="none", max_new_tokens=8)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Base, Bitune and a LoRA with a template, on one tiny base."""
    folder, base = tmp_path_factory.mktemp("checkpoints"), tiny_base()
    for seed, (name, method, template) in enumerate([("qa", "bitune", None), ("plain", "lora", "Q: {prompt}\nA:")], 1):
        model = bitune_on(base, method, "lora", seed, prompt_template=template)
        model.save_pretrained(folder / name)
        model.release()
    engine = Engine(base)
    for name in ("qa", "plain"):
        engine.add_checkpoint(folder / name)
    return engine


def alone(engine, prompt, names, **settings):
    *_, last = engine.stream(prompt, names, **settings)
    return {name: (one.text, one.tokens, one.finish_reason) for name, one in last.completions.items()}


def said(row):
    return {name: (one.text, one.tokens, one.finish_reason) for name, one in row.answers.items()}


def rows_of(engine, settings, prompts=PROMPTS, names=("base", "qa", "plain"), **options):
    return [row for batch in answer_set(engine, prompts, names, settings, **options) for row in batch]


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("template", ["own", "none", "chat"])
def test_every_answer_is_that_of_its_prompt_alone(engine, template):
    settings = SetSettings(template=template, max_new_tokens=8)
    rows = rows_of(engine, settings, batch_size=3)
    assert sorted(row.index for row in rows) == list(range(len(PROMPTS)))
    for row in rows:
        assert row.prompt == PROMPTS[row.index].prompt
        assert said(row) == alone(engine, row.prompt, list(engine.variants), template=template, max_new_tokens=8)


@pytest.mark.usefixtures("clear_choices")
def test_each_sample_is_what_its_seed_gives_alone(engine):
    settings = SetSettings(template="none", max_new_tokens=8, temperature=0.7, top_p=0.9, seed=3, samples=2)
    rows = rows_of(engine, settings, PROMPTS[:3], ["base", "qa"])
    assert sorted(row.key for row in rows) == [(index, sample) for index in range(3) for sample in range(2)]
    for row in rows:
        how = {"template": "none", "max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9, "seed": 3 + row.sample}
        assert said(row) == alone(engine, row.prompt, ["base", "qa"], **how)
    first, second = ({row.index: said(row) for row in rows if row.sample == sample} for sample in (0, 1))
    assert first != second


@pytest.mark.usefixtures("clear_choices")
def test_a_what_if_answers_a_set_too(engine):
    layers = engine.base_facts.layers
    what_ifs = {"causal": WhatIf("qa", MixingRatios((0.0,) * layers, (0.0,) * layers))}
    (row,) = rows_of(engine, SETTINGS, PROMPTS[:1], ["qa", "causal"], what_ifs=what_ifs)
    assert said(row) == alone(engine, row.prompt, ["qa", "causal"], template="none", max_new_tokens=8, what_ifs=what_ifs)


def test_a_batch_is_one_step_of_all_its_rows(engine, monkeypatch):
    steps = []
    forward = Decoder.next_logits
    monkeypatch.setattr(Decoder, "next_logits", lambda self: steps.append(len(self.rows)) or forward(self))
    rows_of(engine, SetSettings(template="none", max_new_tokens=4), names=["base", "qa"], batch_size=5)
    assert set(steps) == {10} and len(steps) <= 4


def keys_of(plan):
    return [(index, batch.sample) for batch in plan for index in batch.indices]


def test_the_plan_has_every_row_once_long_prompts_first(engine):
    settings = SetSettings(template="none", max_new_tokens=8, temperature=1.0, samples=2)
    plan = planned(engine, PROMPTS, ["base"], settings, batch_size=2)
    keys = keys_of(plan)
    assert sorted(keys) == [(index, sample) for index in range(5) for sample in range(2)]
    assert plan[0].indices[0] == 2 and [batch.sample for batch in plan] == [0, 1] * 3
    left = planned(engine, PROMPTS, ["base"], settings, batch_size=2, done=[(2, 0), (0, 1)])
    assert keys_of(left) == [key for key in keys if key not in [(2, 0), (0, 1)]]
    assert [len(batch.indices) for batch in planned(engine, PROMPTS, ["base"], SETTINGS, batch_tokens=50)] != [5]


@pytest.mark.parametrize(
    ("prompts", "options", "error", "words"),
    [
        ([], {}, DataError, "holds no prompt"),
        ([SetPrompt("a"), SetPrompt("b" * 600)], {}, PromptError, "Prompt 2 of 2 cannot be asked. The prompt has 600 tokens"),
        ([SetPrompt("a"), SetPrompt("\x01")], {}, PromptError, "Prompt 2 of 2 cannot be asked."),
        ([SetPrompt("a")], {"names": ["qb"]}, UnknownNameError, "Did you mean 'qa'"),
        ([SetPrompt("a")], {"names": []}, ConfigError, "No variant is chosen"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_runs(engine, prompts, options, error, words, monkeypatch):
    monkeypatch.setattr("bitune.sets.run.run_batch", lambda *_: pytest.fail("something ran"))
    with pytest.raises(error) as raised:
        answer_set(engine, prompts, options.get("names", ["base"]), SETTINGS)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"samples": 2}, "all of them would be the same"),
        ({"samples": "2"}, "samples is '2'"),
        ({"temperature": -1}, "temperature is -1"),
        ({"seed": 2**63 - 1, "samples": 2, "temperature": 1.0}, "seed is"),
        ({"seed": None, "samples": 1}, "seed is None"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ConfigError, match=words):
        SetSettings(**settings)


def test_a_batch_that_nobody_wants_any_more_ends(engine):
    cancelled = threading.Event()
    cancelled.set()
    with cancellable(cancelled), pytest.raises(Cancelled):
        answer_batch(engine, ["Why?"], ["base"], max_new_tokens=4)
    assert answer_batch(engine, ["Why?"], ["base"], max_new_tokens=4)[0]["base"].tokens
    assert answer_batch(engine, [], ["base"]) == []


def row(index, answers, right=None, sample=0):
    """A row whose answers are texts, with a right answer or none."""
    made = {
        name: SetAnswer(text, len(text), "eos" if text else "length", None if right is None else text == right)
        for name, text in answers.items()
    }
    return Row(index, sample, f"prompt {index}", right, made)


ROWS = [
    row(0, {"base": "a", "qa": "b"}, "b"),
    row(1, {"base": "=x", "qa": "=x"}, "=x"),
    row(2, {"base": "", "qa": "long"}),
    row(3, {"base": "no", "qa": "yes"}, "yes"),
]


def test_what_rows_say_together_is_what_the_intervals_say():
    compared = compare(ROWS)
    assert (compared.prompts, compared.rows, compared.judged) == (4, 4, 3)
    assert compared.variants["base"].tokens == bootstrap([1, 2, 0, 2]) and compared.variants["base"].cut == 0.25
    assert compared.variants["qa"].right == wilson(3, 3)
    pair = compared.pairs["base", "qa"]
    assert pair.same == wilson(1, 4) and pair.right == paired_shares(1, 0, 2, 0) and pair.tokens == bootstrap([0, 0, 4, 1])
    assert (pair.only_first, pair.only_second, pair.sign_p) == (0, 2, 0.5)
    assert compare(ROWS, 100).variants["qa"].tokens == bootstrap([1, 2, 4, 3], resamples=100)
    assert compare([]) is None and compare(ROWS[2:3]).variants["qa"].right is None
    assert compared.to_dict()["variants"]["qa"]["minus"]["base"]["only_second"] == 2


def test_samples_of_a_prompt_are_one_value():
    rows = [
        row(0, {"base": "a"}, "a"),
        row(0, {"base": "bbb"}, "a", 1),
        row(1, {"base": "c"}, "c"),
        row(1, {"base": "c"}, "c", 1),
    ]
    one = compare(rows).variants["base"]
    assert one.tokens == bootstrap([2, 1]) and one.right == bootstrap([0.5, 1])
    alike = compare(rows[:2]).variants["base"]
    assert alike.right == wilson(0.5, 1), "nothing but this value can be drawn"
    assert alike.tokens == Interval(2, None, None), "one prompt, however many samples"


def judged(*counts: int, samples: int = 1) -> list[Row]:
    """Rows of so many prompts at which both are right, base alone, qa alone, neither."""
    said = [case for case, number in zip(("rr", "rw", "wr", "ww"), counts, strict=True) for _ in range(number)]
    return [
        row(index, dict(zip(("base", "qa"), case, strict=True)), "r", sample)
        for index, case in enumerate(said)
        for sample in range(samples)
    ]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    ("counts", "is_more_than_luck"),
    [
        ((0, 0, 1, 0), False),
        ((0, 0, 4, 0), False),
        ((50, 0, 4, 50), False),
        ((0, 0, 5, 0), False),  # the interval, which is 39 to 100 points, does not touch zero, and p is 0.0625
        ((50, 0, 6, 50), True),
        ((50, 6, 0, 50), True),
        ((20, 2, 12, 16), True),
        ((30, 8, 16, 20), False),
        ((3, 0, 0, 3), False),
    ],
)
def test_a_difference_counts_where_interval_and_sign_test_agree(counts, is_more_than_luck, samples):
    compared = compare(judged(*counts, samples=samples))
    pair = compared.pairs["base", "qa"]
    assert pair.counts == is_more_than_luck and pair.right == paired_shares(*counts), "prompts, not samples of them"
    assert ("more than luck" if is_more_than_luck else "within luck") in comparison_lines(compared)[-1]


def test_differences_of_means_of_samples_are_drawn_anew_and_may_have_no_width():
    halves = [row(index, {"base": "w", "qa": "r" if sample else "w"}, "r", sample) for index in range(4) for sample in range(2)]
    pair = compare(halves).pairs["base", "qa"]
    assert pair.right.mean == 0.5 and pair.right.low < 0 < pair.right.high and not pair.counts
    mixed = compare([*halves, row(4, {"base": "w", "qa": "r"}, "r")]).pairs["base", "qa"]
    assert mixed.right == bootstrap([0.5, 0.5, 0.5, 0.5, 1]) and mixed.sign_p == 0.0625 and not mixed.counts


def test_one_prompt_has_no_interval_of_tokens():
    compared = compare(ROWS[:1])
    assert compared.variants["base"].tokens == Interval(1, None, None)
    *_, variant, pair = comparison_lines(compared)
    assert "  1.0 tokens" in variant.replace("qa", "").replace("   ", "  ") and "+0.0 tokens" in pair
    assert json.loads(json.dumps(compared.to_dict()))["variants"]["base"]["tokens"] == {"mean": 1.0, "low": None, "high": None}


def test_a_comparison_as_lines():
    lines = comparison_lines(compare(ROWS))
    assert lines[0] == "4 prompts, 3 of them with a right answer"
    assert lines[1].startswith("base ") and "right 33.3 %" in lines[1] and "25 % cut" in lines[1]
    assert lines[3].startswith("qa and base") and "the same text 25.0 % (" in lines[3] and "alone 2 to 0" in lines[3]
    assert "right +66.7 points (" in lines[3], "two of three more: 67 points, not percent"
    assert "right" not in comparison_lines(compare(ROWS[2:3]))[1]


def test_rows_in_a_file_that_is_gone_on_with(tmp_path):
    path, settings = tmp_path / "rows.jsonl", {"seed": 0, "checkpoints": ("a",)}
    file = open_set_file(path, settings, resume=False)
    file.add(ROWS[:2])
    with pytest.raises(ConfigError, match="--resume"):
        check_set_file(path, resume=False)
    with path.open("a") as stream:
        stream.write('{"index": 2, "sam')  # the run ended while it wrote
    again = open_set_file(path, settings, resume=True)
    assert again.rows == ROWS[:2]
    again.add(ROWS[2:])
    assert open_set_file(path, settings, resume=True).rows == ROWS
    assert path.read_text() == json_lines(settings, ROWS)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ('{"settings": {"seed": 1}}\n', ConfigError, "were made with seed 1, and now it is 0"),
        ('{"settings": {"seed": 0, "more": 1}}\n', ConfigError, "were made with more 1, and now it is None"),
        ("mine\n", DataError, "Line 1 of .* is not JSON"),
        ('{"mine": 1}\n', ConfigError, "holds no rows"),
        ("no line", ConfigError, "holds no rows"),
        ('{"settings": {"seed": 0}}\n{"index": 1}\n', DataError, "is no row of a set"),
        ('{"settings": {"seed": 0}}\n' + json.dumps({**ROWS[0].to_dict(), "index": "1"}) + "\n", DataError, "no row can hold"),
        ('{"settings": {"seed": 0}}\n7\n', DataError, "is no row of a set"),
    ],
)
def test_a_file_that_cannot_be_gone_on_with_stays_as_it_is(content, error, words, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(error, match=words):
        open_set_file(path, {"seed": 0}, resume=True)
    assert path.read_text() == content


def test_csv_for_a_spreadsheet_runs_nothing():
    head, first, second, *_ = csv.reader(io.StringIO(csv_text(ROWS[::-1])))
    assert head[:7] == ["prompt number", "sample", "prompt", "right", "same", "base: text", "base: tokens"]
    assert first[:6] == ["1", "1", "prompt 0", "b", "False", "a"]
    assert second[3] == second[5] == "'=x"
    runs = ["=1", "+1", "-1", "@f", "\t=1", "\r=1", "\n=1", "  =1", "\ufeff=1", "\uff1d1"]
    assert [harmless(cell) for cell in runs] == [f"'{cell}" for cell in runs]
    assert [harmless(cell) for cell in ("a=1", "", " a", 1, None)] == ["a=1", "", " a", 1, None]
