"""Accuracies, intervals and differences: against counts by hand, the binomial distribution, and a loop over resamples."""

import copy
import json
import math
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from tokenizers import normalizers

from bitune.adapters.manager import AdapterManager
from bitune.data.examples import Example, example_of
from bitune.errors import ConfigError, DataError
from bitune.evaluation.answers import number_of, same_answer
from bitune.evaluation.intervals import Interval, bootstrap, paired_shares, sign_test, wilson
from bitune.evaluation.report import item_id
from bitune.evaluation.run import evaluate
from bitune.evaluation.scores import question, score
from bitune.schema.variants import BASE
from tests.closeness import assert_close
from tests.tiny import bitune_on, tiny_base


def test_bootstrap_of_hits_is_the_binomial_interval():
    """Resampling 60 hits of 200 draws from Binomial(200, 0.3): its 2.5 % and 97.5 % quantiles are known."""
    interval = bootstrap([1.0] * 60 + [0.0] * 140, resamples=200_000)
    chance = np.array([math.comb(200, k) * 0.3**k * 0.7 ** (200 - k) for k in range(201)]).cumsum()
    low, high = (int(np.searchsorted(chance, q)) / 200 for q in (0.025, 0.975))
    assert interval.mean == 0.3
    # Quantiles lie on a grid of 1 / 200.
    assert_close((interval.low, interval.high), (low, high), allowed=0.0051)


def test_bootstrap_of_differences_equals_drawing_items():
    generator = np.random.default_rng(3)
    values = generator.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=300)
    drawn = values[generator.integers(0, 300, (20_000, 300))].mean(1)
    interval = bootstrap(values, resamples=20_000)
    assert_close(interval.mean, values.mean())
    assert_close((interval.low, interval.high), np.quantile(drawn, [0.025, 0.975]), allowed=0.007)


def test_bootstrap_of_many_distinct_values_is_the_normal_interval_of_their_mean():
    for size in (400, 2_000):  # drawn item by item, and by counts
        values = np.random.default_rng(3).normal(5, 2, size).round(2 if size == 400 else 1)
        interval, error = bootstrap(values, resamples=20_000), 1.96 * values.std() / np.sqrt(size)
        for found, expected in ((interval.low, values.mean() - error), (interval.high, values.mean() + error)):
            assert abs(found - expected) < 0.05 * error


def test_bootstrap_is_the_same_each_time_and_needs_items():
    assert bootstrap([0.0, 1.0, 1.0]) == bootstrap([0.0, 1.0, 1.0])
    assert bootstrap([1.0, 1.0]) == Interval(1.0, 1.0, 1.0)
    for groups in ([], [[]], [[1.0], []]):
        with pytest.raises(ConfigError, match="no item"):
            bootstrap(*groups)


def test_bootstrap_of_groups_is_of_their_average():
    """A group without spread adds none: half the width; two alike groups narrow it by the root of two."""
    one = bootstrap([1.0, 0.0] * 200)
    fixed, two = bootstrap([1.0, 0.0] * 200, [1.0]), bootstrap([1.0, 0.0] * 200, [1.0, 0.0] * 200)
    assert (fixed.mean, two.mean) == (0.75, 0.5)
    width = one.high - one.low
    assert_close(fixed.high - fixed.low, width / 2, allowed=0.05 * width / 2)
    assert_close(two.high - two.low, width / 2**0.5, allowed=0.05 * width / 2**0.5)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5 apples and 7 pears", 7.0),
        ("so 1,234.5 in all.", 1234.5),
        ("3-2", 2.0),
        ("it is -4", -4.0),
        (".5", 0.5),
        ("2 + 2 = 4\n#### 4 pounds, 20 pence", 4.0),
        ("#### 1\n#### -2", 1.0),
        ("####\n#### 5", 5.0),
        ("\u22125 degrees", -5.0),
        ("- 5 apples", 5.0),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("1,2,3", 3.0),
        ("1,00,000", 100_000.0),
        ("1e-9", Fraction(1, 10**9)),
        ("1 1/2", 1.5),
        ("9*2 = 18/day", 18.0),
        ("9" * 5000, Fraction(10) ** 5000 - 1),
        ("none", None),
        ("7 is not it ####", None),
        ("01/02/2024", 2024.0),
        ("01.02.2024", 2024.0),
        ("version 1.2.3", 3.0),
        ("1/2", 0.5),
        ("-.5", -0.5),
    ],
)
def test_number_of(text, number):
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("predicted", "right", "same"),
    [
        ("The answer is 12.", "12", True),
        ("12.0004", "12", False),
        ("0", "0.0005", False),
        ("0", "1e-9", False),
        ("18.00", "18", True),
        ("$18.", "#### 18", True),
        ("50%", "50", True),
        ("3", "#### 3/4", False),
        ("0.75", "#### 3/4", True),
        ("30", "#### 10:30", False),
        ("#### 5\n\nQuestion: more?\nAnswer: #### 6", "so\n#### 5", True),
        ("5.\n\nQuestion: 6?", "5", True),
        ("#### Yes\n#### no", "so\n#### yes", True),
        ("no\n#### yes", "so\n#### no", False),
        ("Because", "B", False),
        ("cafe\u0301", "Caf\u00e9", True),
        ("", "0", False),
        ("12.1", "12", False),
        ("twelve", "12", False),
        ("1 + 1 = 2 #### 2", "so\n#### 2", True),
        ("a  Cat", "A cat", True),
        ("a cat in 1999", "a dog in 1999", False),
        ("x #### Paris #### London", "y #### Paris", True),
        ("x #### London #### Paris", "y #### Paris", False),
        ("####\n\n#### Paris", "y #### Paris", True),
        ("##### Paris", "y ##### Paris", True),
        ("#### Heading\nText.", "#### Heading\nText.", True),
        ("#### Heading\nOther.", "#### Heading\nText.", False),
        ("It was 01/02/2024.", "2024", True),
    ],
)
def test_same_answer(predicted, right, same):
    assert same_answer(predicted, right) is same


@pytest.mark.parametrize(
    ("predicted", "lm_eval_differs"),
    [
        ("She has 18 left.\n#### 18", None),
        ("#### 18\n\nNext\n#### 19", None),
        ("#### 19\n#### 18", None),
        ("#### -18", None),
        ("#### 1,8", "a comma that parts no thousands is no part of a number"),
        ("#### 19\n\nQuestion: 9 + 9?\nAnswer: #### 18", None),
        ("16 - 3 + 5 = 18", None),
        ("18 eggs, that is 17 more", None),
        ("$18", None),
        ("It costs $18.", None),
        ("none", None),
        ("", None),
        ("#### 18.", None),
        ("#### 18.00", "the digits are others, the number is the same"),
        ("18.0", "the digits are others, the number is the same"),
        ("#### $18", "strict-match knows no $"),
        ("#### 18 #### 19", None),
        ("##### 18", None),
        ("on 01/02/18", None),
        ("version 1.2.18", "flexible-extract takes it all for one number"),
    ],
)
def test_numbers_are_judged_as_lm_evals_gsm8k_judges_them(predicted, lm_eval_differs):
    """By strict-match where the answer has a ####, by flexible-extract where not; both read from lm-eval's own task file."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters import build_filter_ensemble

    task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml").read_text())
    name = "strict-match" if "####" in predicted else "flexible-extract"
    (steps,) = (entry["filter"] for entry in task["filter_list"] if entry["name"] == name)
    steps = [(step["function"], {key: value for key, value in step.items() if key != "function"}) for step in steps]
    asked = Instance("generate_until", {}, (), 0, resps=[predicted.partition(task["generation_kwargs"]["until"][0])[0]])
    build_filter_ensemble(name, steps).apply([asked])
    (metric,) = task["metric_list"]
    ways = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    correct = "So 9 + 9 = 18.\n#### 18"
    theirs = exact_match_fn(predictions=[asked.filtered_resps[name]], references=[correct], **ways)["exact_match"]
    assert same_answer(predicted, correct) == (bool(theirs) == (lm_eval_differs is None))


@pytest.fixture(scope="module")
def two():
    base = tiny_base()
    return base, {"base": BASE.with_mixing(None), "qa": bitune_on(base, seed=4).variant}


CHOICES = [
    example_of({"task": "t", "question": f"number {i}?", "choices": ["one", "two dogs", f"{i}"], "label": i % 3})
    for i in range(12)
]


def test_report_counts_what_scores_say(two):
    base, variants = two
    manager = AdapterManager.of(base.model)
    report = evaluate(manager, variants, CHOICES, base.tokenizer, batch_size=5)
    scores = score(manager, variants, [question(e, base.tokenizer) for e in CHOICES], batch_size=5)
    for name in variants:
        best = [max(range(3), key=lambda i, row=row: row[i].sum) for row in scores[name]]
        assert list(report.predictions["acc"][name]) == best
        right = [b == e.label for b, e in zip(best, CHOICES, strict=True)]
        assert report.accuracy("acc", name).mean == sum(right) / 12
    gap = report.accuracy("acc", "qa").mean - report.accuracy("acc", "base").mean
    assert_close(report.difference("acc", "qa", "base").mean, gap)
    assert [item.id for item in report.items] == [item_id(e.prompt) for e in CHOICES]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["measures"]["acc"]["qa"]["predictions"] == list(report.predictions["acc"]["qa"])
    assert plain["measures"]["acc_norm"]["qa"]["minus"]["base"] == vars(report.difference("acc_norm", "qa", "base"))
    assert set(plain["measures"]) == {"acc", "acc_norm", "acc_token"}


def test_open_answers_are_generated_and_compared(two):
    base, variants = two
    manager = AdapterManager.of(base.model)
    examples = [example_of({"task": "t", "prompt": f"say {i}:", "answer": "yes"}) for i in range(4)]
    answers = evaluate(manager, variants, examples, base.tokenizer, max_new_tokens=3).predictions["answer"]["qa"]
    # Ask again for just what it said: every item is right now.
    known = [
        example_of({"task": "t", "prompt": e.prompt, "answer": text or "x"}) for e, text in zip(examples, answers, strict=True)
    ]
    again = evaluate(manager, {"qa": variants["qa"]}, known, base.tokenizer, max_new_tokens=3)
    assert again.accuracy("answer", "qa").mean == sum(map(bool, answers)) / 4


def test_what_holds_no_token_is_refused_by_item(two):
    """As by training and Engine: a tokenizer may remove what is text (T5's nmt_nfkc does U+200B)."""
    base, variants = two
    manager, tokenizer = AdapterManager.of(base.model), copy.deepcopy(base.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    whole = [Example("t", "Which?", " yes"), Example("t", "Which?", " yes", (" yes", " no"), 0)]
    empty = {
        "The prompt of item 2": [Example("t", "\u200b", " yes"), Example("t", "\u200b", " yes", (" yes", " no"), 0)],
        "Choice 2 of item 2": [Example("t", "Which?", " yes", (" yes", "\u200b"), 0)],
    }
    for words, examples in empty.items():
        for example in examples:
            first = whole[example.choices is not None]
            with pytest.raises(DataError, match=f"^{words} of those to measure holds no token"):
                evaluate(manager, variants, [first, example], tokenizer, max_new_tokens=2)
            evaluate(manager, variants, [first], tokenizer, max_new_tokens=2)


def test_mixed_and_empty_sets_are_refused(two):
    base, variants = two
    manager = AdapterManager.of(base.model)
    with pytest.raises(DataError, match="no item"):
        evaluate(manager, variants, [], base.tokenizer)
    with pytest.raises(DataError, match="split it"):
        evaluate(manager, variants, [*CHOICES, example_of({"task": "t", "prompt": "a", "answer": "b"})], base.tokenizer)
    with pytest.raises(DataError, match="Item 2 of those to measure needs 6.. tokens and the model reads 512"):
        too_long = example_of({"task": "t", "question": "x" * 600, "choices": ["a", "b"], "label": 0})
        evaluate(manager, variants, [CHOICES[0], too_long], base.tokenizer)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Bentur et al. (2009) as in Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33:2850: before against after.
        ((1, 7, 1, 12), -0.507, -0.026),
        ((1, 1, 7, 12), 0.026, 0.507),
    ],
)
def test_the_interval_of_paired_shares_is_that_of_a_published_example(table, low, high):
    interval = paired_shares(*table)
    assert (round(interval.low, 3), round(interval.high, 3)) == (low, high)


@pytest.mark.parametrize("chances", [(0.4, 0.1, 0.2, 0.3), (0.9, 0.02, 0.06, 0.02), (0.1, 0.05, 0.05, 0.8), (0.3, 0.0, 0.1, 0.6)])
@pytest.mark.parametrize("trials", [8, 20])
def test_the_interval_of_paired_shares_holds_the_truth_nineteen_times_in_twenty(chances, trials):
    """Over all tables that there are, each with its probability."""
    truth, held = chances[2] - chances[1], 0.0
    for a, b, c in product(range(trials + 1), repeat=3):
        if (d := trials - a - b - c) >= 0:
            ways = math.factorial(trials) // math.prod(map(math.factorial, (a, b, c, d)))
            interval = paired_shares(a, b, c, d)
            held += (
                (interval.low <= truth <= interval.high)
                * ways
                * math.prod(p**k for p, k in zip(chances, (a, b, c, d), strict=True))
            )
    assert held > 0.93, held


def test_paired_shares_that_are_one_sided_have_a_width_and_stay_within_bounds():
    for table in [(0, 0, 3, 0), (3, 0, 0, 0), (0, 0, 0, 3), (0, 3, 0, 0), (0, 0, 1, 0), (0.1 * 3, 0, 2.7, 0)]:
        interval = paired_shares(*table)
        assert (
            -1 <= interval.low < interval.mean <= interval.high <= 1 or -1 <= interval.low <= interval.mean < interval.high <= 1
        )
    assert paired_shares(0, 0, 0, 5) == Interval(0.0, -wilson(0, 5).high, wilson(0, 5).high)
    with pytest.raises(ConfigError):
        paired_shares(0, 0, 0, 0)


def test_the_sign_test_is_that_of_the_binomial_distribution():
    # scipy's binomtest(k, n).pvalue
    for (first, second), p in {
        (0, 5): 0.0625,
        (6, 0): 0.03125,
        (2, 12): 0.012939453125,
        (8, 31): 0.00029407687,
        (3, 3): 1,
        (0, 0): 1,
    }.items():
        assert sign_test(first, second) == pytest.approx(p)
    assert sign_test(5000, 5400) < 1e-3
