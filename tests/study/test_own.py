"""The questions written for this project: their file, what was measured on them, and the command that measures."""

import hashlib
import json
from collections import Counter, defaultdict

import pytest

from app.evidence.data import read as read_evidence
from bitune.checkpoints.folder import read
from bitune.data.examples import content_of, example_of, load_examples
from bitune.data.lines import read_rows
from bitune.errors import ConfigError
from bitune.evaluation.report import item_id
from bitune.evaluation.run import evaluate
from bitune.inference.engine import Engine
from study import own
from study.own import ORDERS, QUESTIONS, measure_own
from study.plan import SETTINGS
from study.ship import SHIPPED, ship
from study.table import EVIDENCE, shown
from tests.closeness import assert_close
from tests.study.small import METHODS, SMALL
from tests.tiny import tiny_base

DOCS = QUESTIONS.parent.parent.parent / "docs"
ROWS = [row for _, row in read_rows(QUESTIONS)]


def test_there_are_enough_questions_of_several_kinds_each_in_both_orders():
    by_topic = defaultdict(Counter)
    for row in ROWS:
        by_topic[row["task"]][row.get("choices_first", False)] += 1
    assert len(ROWS) >= 240 and len(by_topic) >= 6
    for text in (QUESTIONS.parent / "README.md", DOCS / "reading-the-page.md"):
        assert f"{len(ROWS)} " in text.read_text(encoding="utf-8"), f"{text.name} says how many there are"
    for topic, orders in by_topic.items():
        assert min(orders[True], orders[False]) >= 15 and abs(orders[True] - orders[False]) <= 1, topic


def test_every_question_has_two_to_five_choices_and_one_that_is_right():
    for row in ROWS:
        assert set(row) - {"choices_first"} == {"task", "question", "choices", "label"}
        assert row.get("choices_first", True) is True, "left out where it is false"
        assert 2 <= len(row["choices"]) <= 5 and len(set(row["choices"])) == len(row["choices"]), row["question"]
        assert type(row["label"]) is int and 0 <= row["label"] < len(row["choices"])
        for text in (row["question"], *row["choices"]):
            assert text == text.strip() and "\t" not in text and text.isprintable() or "\n" in text
            assert len(text) < 400
    assert len(load_examples(QUESTIONS)) == len(ROWS), "as the evaluation reads them"


def test_no_question_stands_there_twice():
    assert len({row["question"].casefold() for row in ROWS}) == len(ROWS)
    assert len({content_of(example.prompt) for example in load_examples(QUESTIONS)}) == len(ROWS)


def test_right_answers_are_spread_evenly_over_the_places_and_lengths():
    places = defaultdict(Counter)
    for row in ROWS:
        places[len(row["choices"]), row.get("choices_first", False)][row["label"]] += 1
    for (choices, _), found in places.items():
        assert max(found.values()) - min(found[place] for place in range(choices)) <= 1
    chance = sum(1 / len(row["choices"]) for row in ROWS) / len(ROWS)
    longest = [len(row["choices"][row["label"]]) > max(map(len, others_of(row))) for row in ROWS]
    assert abs(sum(longest) / len(ROWS) - chance) < 0.1, "the longest choice is right no more often than by guessing"
    said = Counter(row["choices"][row["label"]] for row in ROWS if set(row["choices"]) == {"yes", "no"})
    assert abs(said["yes"] - said["no"]) <= 3


def others_of(row: dict) -> list[str]:
    return [choice for place, choice in enumerate(row["choices"]) if place != row["label"]]


def test_what_is_shown_was_measured_on_these_questions_with_the_shipped_checkpoints():
    found = read_evidence(EVIDENCE / "own.json")
    assert found.made.questions == hashlib.sha256(QUESTIONS.read_bytes()).hexdigest(), "run python -m study own"
    weights = {folder.name: read(folder).fingerprint() for folder in sorted(SHIPPED.iterdir())}
    assert found.made.checkpoints == weights, "run python -m study own"
    assert [row.name for row in found.rows] == ["base", *weights]
    for task in found.tasks:
        of_order = [r for r in ROWS if r.get("choices_first", False) == (task.name == "choices_first")]
        assert [(item.id, item.right, item.topic) for item in task.items] == [
            (item_id(example_of(r).prompt), r["label"], r["task"]) for r in of_order
        ]
        for row in found.rows:
            (scored,), (chosen,) = row.logprobs[task.name], row.predictions[task.name]
            assert [len(choices) for choices in scored] == [len(r["choices"]) for r in of_order]
            assert [choices.index(max(choices)) for choices in scored] == list(chosen)


def test_the_documented_numbers_are_the_files():
    lines, found = (DOCS / "results.md").read_text(encoding="utf-8"), read_evidence(EVIDENCE / "own.json")
    for row in found.rows:
        shares = [f"{100 * row.accuracy[key].mean:.1f}" for key in ("choices_last", "choices_first", "average")]
        ahead = shown(vars(row.minus["average"])) if row.name.startswith("bitune") else ""
        assert f"| `{row.name}` | {' | '.join(shares)} | {ahead} |" in lines
    there = found.row("bitune-choices").minus["choices_first"]
    assert f"by {-100 * there.mean:.1f} points ({-100 * there.high:.1f} to {-100 * there.low:.1f})" in lines


@pytest.fixture
def shipped(study, tmp_path, monkeypatch):
    """Both methods' checkpoints under the names of the shipped ones."""
    monkeypatch.setitem(SETTINGS, "choices", SMALL)
    for run, name in zip(METHODS, ("lora-choices", "bitune-choices"), strict=True):
        ship(run, study.state, tmp_path / "shipped" / name, study.results)
    questions = tmp_path / "own.jsonl"
    rows = [
        {"task": f"t{n % 2}", "question": f"{n}?", "choices": ["yes", "no", f"{n}"][: 2 + n % 2], "label": n % 2}
        for n in range(9)
    ]
    questions.write_text("\n".join(json.dumps(row | ({"choices_first": True} if n % 3 else {})) for n, row in enumerate(rows)))
    return {"shipped": tmp_path / "shipped", "results": study.results, "questions": questions}


def test_the_numbers_are_the_evaluations_own(shipped, tmp_path):
    base, output = tiny_base(), tmp_path / "own.json"
    content = measure_own(base, tmp_path / "state.json", output=output, **shipped)
    found, engine = read_evidence(output), Engine(base)
    assert [row.name for row in found.rows] == ["base", "bitune-choices", "lora-choices"]
    assert [row["against"] for row in content["rows"]] == ["lora-choices", "lora-choices", None]
    engine.add_checkpoint(tmp_path / "shipped" / "bitune-choices", name="bitune-choices")
    examples = load_examples(shipped["questions"])
    report = evaluate(engine.manager, engine.variants, examples, base.tokenizer)
    by_id = {item.id: chosen for item, chosen in zip(report.items, report.predictions["acc"]["bitune-choices"], strict=True)}
    for task in found.tasks:
        (chosen,) = found.row("bitune-choices").predictions[task.name]
        assert [by_id[item.id] for item in task.items] == list(chosen)
    hits = report.hits["acc"]["bitune-choices"]
    shares = [[hit for hit, item in zip(hits, report.items, strict=True) if item.id in ids(task)] for task in found.tasks]
    assert_close(found.row("bitune-choices").accuracy["average"].mean, sum(sum(one) / len(one) for one in shares) / len(ORDERS))
    assert found.made.dtype == "float32" and found.made.libraries.keys() >= {"torch", "python"}


def ids(task) -> set[str]:
    return {item.id for item in task.items}


def test_a_measurement_cut_short_goes_on(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "_CHUNK", 4)
    asked, score = [], own.score

    def until_killed(manager, variants, questions, **options):
        asked.append(len(questions))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return score(manager, variants, questions, **options)

    monkeypatch.setattr(own, "score", until_killed)
    state, output = tmp_path / "state.json", tmp_path / "own.json"
    with pytest.raises(KeyboardInterrupt):
        measure_own(tiny_base(), state, output=output, **shipped)
    assert not output.exists()
    whole = measure_own(tiny_base(), state, output=output, **shipped)
    assert asked == [4, 4, 4, 1], "the first four were kept"
    again = measure_own(tiny_base(), state, output=output, **shipped)
    assert asked == [4, 4, 4, 1] and again["rows"] == whole["rows"]
    shipped["questions"].write_text(shipped["questions"].read_text().replace("8?", "88?"))
    measure_own(tiny_base(), state, output=output, **shipped)
    assert asked[4:] == [4, 4, 1], "other questions begin anew"


def test_a_checkpoint_of_no_known_run_is_refused(shipped, tmp_path):
    with pytest.raises(ConfigError, match="has no result"):
        measure_own(tiny_base(), tmp_path / "state.json", **{**shipped, "results": tmp_path}, output=tmp_path / "own.json")
