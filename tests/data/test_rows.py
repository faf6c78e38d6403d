"""Files as people export them: read as datasets and lm-eval read them, or refused by line in one sentence."""

import gzip
import json
import re

import pytest

from bitune.data.examples import load_examples
from bitune.data.records import load_records
from bitune.errors import DataError

PAIR = {"prompt": "a", "answer": "b"}
FOUR = ["red", "green", "blue", "grey"]
ASKED = {"question": "Which?", "choices": FOUR}
NAMED = {"question": "Which?", "choices": {"text": FOUR, "label": ["A", "B", "C", "D"]}}


def file_of(folder, *rows, name="some.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labels(folder, *rows):
    return [record["label"] for record in load_records(file_of(folder, *rows))]


# --- files ---------------------------------------------------------------------------------------------------------

LINE = json.dumps(PAIR).encode()
FILES = {
    "bom": b"\xef\xbb\xbf" + LINE + b"\n",
    "crlf": LINE + b"\r\n\r\n" + LINE + b"\r\n",
    "no-end": LINE,
    "array": b"[" + LINE + b",\n" + LINE + b"]",
    "pretty": json.dumps([PAIR, PAIR], indent=2).encode(),
    "gzip": gzip.compress(LINE + b"\n" + LINE + b"\n"),
    "nan": b'{"prompt": "a", "answer": "b", "score": NaN}\n',
    "separators": json.dumps({"prompt": "a\u2028\u0085\x0cb", "answer": "b"}, ensure_ascii=False).encode() + b"\n",
}
BROKEN = {
    "utf-16": LINE.decode().encode("utf-16") + b"\n",
    "comma": LINE[:-1] + b",}\n",
    "twice": b'{"prompt": "a", "answer": "b", "answer": "c"}\n',
    "two-on-a-line": LINE + LINE + b"\n",
    "half-gzip": gzip.compress(LINE * 1000)[:40],
}


@pytest.mark.parametrize("name", [*FILES, *BROKEN])
def test_a_file_is_read_or_refused_as_datasets_does(name, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the training extra is not installed")
    path = tmp_path / "some.jsonl"
    path.write_bytes(FILES.get(name) or BROKEN[name])

    def theirs():
        return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))

    if name in FILES:
        rows = [(row["prompt"], row["answer"]) for row in theirs()]
        assert [(record["prompt"], record["answer"]) for record in load_records(path)] == rows != []
        return
    if name != "two-on-a-line":  # pyarrow takes the second for another line
        with pytest.raises(Exception, match="generating|end-of-stream"):
            theirs()
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        load_records(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"prompt": "a", "answer": "b", "n": ' + "9" * 5000 + "}", "4300 digits"),
        ('{"prompt": "a", "answer": "b", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deep"),
        ('{"prompt": "a", "answer": "b", "answer": "c"}', "'answer' stands twice"),
        ('{"prompt": "a", "answer": "b",}', "JSON"),
        ('"' + "x" * 100_000 + '"', "str instead of an object"),
        ('{"prompt": ' + json.dumps("x" * 100_000) + ', "answer": 5}', "'answer' is 5"),
        ('{"prompt": ["' + "x" * 100_000 + '"], "answer": "b"}', "'prompt' is "),
        ('{"prompt": "a", "answer": "\\ud800"}', "surrogate"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "'messages' is of another kind .* as 'prompt'"),
        ('{"instruction": "a", "input": "", "output": "b"}', "'instruction' is of another kind .* as 'prompt'"),
        ('{"prompt": "a", "question": "b", "answer": "c"}', "'prompt' and 'question' are both there"),
        ('{"question": "a", "options": ["b", "c"], "answer": "A"}', "'options' may be a part of the question"),
        ('{"question": "a", "article": "Long.", "choices": ["b", "c"], "answer": "A"}', "'article' may be a part"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_in_a_short_sentence(line, part, tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + line + "\n")
    with pytest.raises(DataError, match=rf"line 2: .*{part}") as caught:
        load_records(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


# fmt: off
OF_A_PROMPT = [
    "context", "contexts", "Context", "passage", "story", "document", "dialogue", "history", "system", "system_prompt",
    "systemPrompt", "input", "hint", "facts", "premise", "hypothesis",
    "table", "text", "image", "images", "image_1", "Audio", "code", "instruction", "messages", "options", "Choices",
    "option1", "A",
]  # SQuAD, BoolQ, NarrativeQA, CoQA, OpenOrca, Alpaca, ScienceQA, StrategyQA, COPA, e-SNLI, MMMU, TRL, MMLU-Pro, C-Eval
NOT_OF_A_PROMPT = [
    "id", "source", "subject", "category", "explanation", "rationale", "difficulty", "url", "split", "metadata",
    "question_concept", "fact1", "topic", "title", "level", "lecture",
    "prompt_id", "question_type", "image_id", "context_id", "label_text",
]  # MMLU, CommonsenseQA, QASC and others
# fmt: on


@pytest.mark.parametrize("column", [*OF_A_PROMPT, *NOT_OF_A_PROMPT])
@pytest.mark.parametrize(
    "row", [PAIR, {"question": "Who?", "answer": "b"}, ASKED | {"label": 2}], ids=["prompt", "open", "choices"]
)
def test_a_column_that_belongs_to_the_prompt_is_refused_and_any_other_left_out(row, column, tmp_path):
    alone = load_records(file_of(tmp_path, row))
    assert load_records(file_of(tmp_path, row | {column: ""})) == alone, "nothing is lost"
    file = file_of(tmp_path, row, row | {column: "You are a pirate."})
    if column in NOT_OF_A_PROMPT:
        assert load_records(file) == alone * 2
        return
    with pytest.raises(DataError, match=f"line 2: field '{column}' may be a part of the (question|prompt) and is not read"):
        load_records(file)


@pytest.mark.parametrize("right", [{"answer": "C"}, {"label": 2}, {"label": 2, "answer": "blue"}])
def test_choices_of_a_prompt_are_not_dropped(right, tmp_path):
    """Their letter would be what an open answer is compared with."""
    row = {"prompt": "Which?", "choices": FOUR} | right
    with pytest.raises(DataError, match="line 2: fields 'prompt' and 'choices' are both there, .* call it 'question'") as caught:
        load_records(file_of(tmp_path, PAIR, row))
    assert "\n" not in str(caught.value)
    row["question"] = row.pop("prompt")
    assert labels(tmp_path, row) == [2], "the remedy"
    assert load_records(file_of(tmp_path, PAIR | {"choices": None}))[0]["answer"] == "b"


def test_a_broken_array_is_named_by_line_or_record(tmp_path):
    path = tmp_path / "some.json"
    path.write_text('\n\n[{"prompt": "a", "answer": "b"},\n {"prompt": "a" "answer": "b"}]')
    with pytest.raises(DataError, match="some.json: .* at line 4, column 17"):
        load_records(path)
    path.write_text(json.dumps([PAIR, {"prompt": "a"}]))
    with pytest.raises(DataError, match="some.json, record 2: field 'answer' is missing or null"):
        load_records(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="no record"):
        load_records(path)


def test_a_pipe_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", "/dev/zero"):
        with pytest.raises(DataError, match="pipe or a device"):
            load_records(str(path))


# --- columns -------------------------------------------------------------------------------------------------------


def test_null_columns_beside_those_in_use_are_as_good_as_none(tmp_path):
    """As the union of three data sets is exported, by datasets, by pandas (NaN) and with empty structs."""
    rows = [
        PAIR | {"question": None, "choices": None, "label": None, "task": None},
        {"prompt": None, "question": "q", "answer": "x", "choices": {"text": None, "label": None}, "answerKey": None},
        NAMED | {"prompt": None, "answer": None, "answerKey": "C"},
        ASKED | {"prompt": float("nan"), "question_stem": None, "answerKey": None, "label": 2.0, "answer": float("nan")},
    ]
    records = load_records(file_of(tmp_path, *rows))
    expected = [PAIR, {"question": "q", "answer": "x"}, ASKED | {"label": 2}, ASKED | {"label": 2}]
    assert records == [{"task": "some", **record} for record in expected]


def test_what_datasets_exports_of_mixed_shapes_is_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the training extra is not installed")
    rows = [PAIR, {"question": "q", "answer": "x"}, ASKED | {"answer": None, "label": 3}]
    table = datasets.Dataset.from_list([{key: row.get(key) for key in {**rows[0], **rows[2]}} for row in rows])
    table.to_json(str(tmp_path / "union.jsonl"))
    assert '"question":null' in (tmp_path / "union.jsonl").read_text()
    shapes = [sorted(record) for record in load_records(tmp_path / "union.jsonl")]
    assert shapes == [["answer", "prompt", "task"], ["answer", "question", "task"], ["choices", "label", "question", "task"]]


@pytest.mark.parametrize(
    ("row", "target"),
    [
        (ASKED | {"answer": 2, "subject": "colours"}, "answer"),  # MMLU
        (ASKED | {"label": 2}, "label"),
        (NAMED | {"answerKey": "C", "id": "x"}, "{{choices.label.index(answerKey)}}"),  # ARC
        ({"question": "Which?", "choices": {"text": FOUR, "label": ["1", "2", "3", "4"]}, "answerKey": "3"}, "{{choices.label.index(answerKey)}}"),
        ({"question_stem": "Which?", "choices": NAMED["choices"], "answerKey": " C"}, "{{choices.label.index(answerKey.lstrip())}}"),
        (ASKED | {"answer": "blue"}, "answer"),
        (ASKED | {"answer": "C"}, "{{'ABCD'.index(answer)}}"),
        (ASKED | {"label": "2"}, "label_of_row"),  # HellaSwag's, beside a row with "0"
    ],
)  # fmt: skip
def test_the_right_choice_is_lm_evals_target(row, target, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.api.task import ConfigurableTask

    first = row | {"label": "0"} if target == "label_of_row" else row
    file = file_of(tmp_path, first, row)
    task = ConfigurableTask(
        config={
            "task": "t",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path / "cache")},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "x",
            "doc_to_choice": "{{choices.text}}" if isinstance(row["choices"], dict) else "choices",
            "doc_to_target": "{{label}}" if target == "label_of_row" else target,
        }
    )
    doc = task.eval_docs[1]
    scores = [(float(-index), False) for index in range(4)]  # the first is predicted, so it is right where the target is 0
    wanted = task.doc_to_target(doc)
    wanted = task.doc_to_choice(doc).index(wanted) if isinstance(wanted, str) else wanted
    assert load_records(file)[1]["label"] == wanted == 2
    assert task.process_results(doc, scores)["acc"] == 0.0


def test_labels_that_say_one_thing_are_read(tmp_path):
    assert labels(tmp_path, ASKED | {"label": 0}, ASKED | {"answer": 3}, ASKED | {"answerKey": "b"}) == [0, 3, 1]
    assert labels(tmp_path, ASKED | {"label": "1"}, ASKED | {"label": "0"}) == [1, 0], "one of them is 0"
    assert labels(tmp_path, ASKED | {"label": "1"}, ASKED | {"label": "4"}) == [0, 3], "one of them is 4 of 4"
    pairs = [{"text": text, "label": name} for text, name in zip(FOUR, "ABCD", strict=True)]
    assert labels(tmp_path, ASKED | {"choices": pairs, "answerKey": "D"}) == [3]
    assert labels(tmp_path, ASKED | {"label": 1, "answer": "Grass is."}) == [1], "an explanation"
    numbers = {"question": "2 + 2?", "choices": ["3", "4", "5", "6"]}
    assert labels(tmp_path, numbers | {"answer": "5"}, numbers | {"answer": "6"}) == [2, 3], "no index can be meant"
    swapped = {"question": "?", "choices": {"text": ["B", "A"], "label": ["A", "B"]}, "answerKey": "A"}
    assert labels(tmp_path, swapped) == [0], "the names decide"


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (ASKED | {"label": "1"}, "label is '1', which may mean 'red' or 'green'"),
        (ASKED | {"label": "7"}, "label is '7', no label of its choices"),
        (ASKED | {"label": 4}, "label is 4, no label of its choices; an index from 0 to 3"),
        (ASKED | {"label": -1}, "label is -1"),
        (ASKED | {"label": 1.5}, "label is 1.5"),
        (ASKED | {"label": [1]}, r"label is \[1\]"),
        (ASKED | {"label": "E"}, "label is 'E'"),
        (ASKED | {"label": "Because"}, "label is 'Because', no"),
        (ASKED | {"label": 1, "answer": "blue"}, "label is 1 and answer is 'blue', which are two choices"),
        (ASKED | {"label": 1, "answer": 2}, "label is 1 and answer is 2, which are two choices"),
        ({"question": "?", "choices": ["B", "A", "C"], "answer": "A"}, "which may mean 'B' or 'A'"),
        ({"question": "?", "choices": ["2", "3", "0"], "label": "2"}, "which may mean"),
        ({"question": "?", "choices": {"text": FOUR, "label": ["1", "2", "3", "4"]}, "answerKey": 2}, "which may mean"),
        ({"question": "?", "choices": {"text": FOUR, "label": ["A", "B"]}, "answerKey": "A"}, "needs one of its own"),
        ({"question": "?", "choices": {"text": FOUR, "label": ["A", "A", "C", "D"]}, "answerKey": "A"}, "needs one of its own"),
        (NAMED | {"answerKey": "E"}, "answerKey is"),
        ({"question": "?", "choices": ["a", None], "label": 0}, "'choices' is None"),
    ],
)
def test_labels_that_can_be_read_in_two_ways_are_refused(row, part, tmp_path):
    with pytest.raises(DataError, match=rf"line 2: .*(?:{part})") as caught:
        load_records(file_of(tmp_path, PAIR, row))
    assert "\n" not in str(caught.value)


def test_digits_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(DataError, match="line 3: label is '1', which may mean"):
        load_records(file_of(tmp_path, ASKED | {"label": "0"}, ASKED | {"label": "4"}, ASKED | {"label": "1"}))


def test_gsm8ks_and_trls_shapes(tmp_path):
    file = file_of(tmp_path, {"question": "1+1?", "answer": "so\n#### 2"}, {"prompt": "a", "completion": " b", "id": 7})
    assert [example.answer for example in load_examples(file)] == [" so\n#### 2", " b"]
