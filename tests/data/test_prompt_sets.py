"""Prompts from JSON, CSV and text, told apart by name or by themselves; what cannot be read is said with its place."""

import pytest

from bitune import DataError
from bitune.data.examples import example_of
from bitune.data.prompt_sets import SetPrompt, load_set, parse_set
from bitune.data.rows import asked, normalized

AB = (SetPrompt("A?", "a"), SetPrompt("B?"))


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "A?", "answer": "a"}\n"B?"\n',
        '[\n{"question": "A?", "answer": "a"},\n{"prompt": "B?", "answer": null}]',
        '["B?"]'.replace('"B?"', '{"prompt": "A?", "completion": "a"}, "B?"'),
        "prompt,answer\nA?,a\nB?,\n",
        "Question;Answer\r\nA?;a\r\nB?;\r\n",
        "answer\tquestion\na\tA?\n\tB?\n",
        "A?\ta\n\n  B?  \n",
        "\ufeffA?\ta\nB?",
        "prompt,answer\rA?,a\rB?,\r",
        "A?\ta\rB?\r",
    ],
)
def test_one_set_in_many_forms(text):
    assert parse_set(text) == AB


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("---\nif x:\n\tgo()\n---\n\nBetween -- and ---.\n", ["if x:\n\tgo()", "Between -- and ---."]),
        ("{name}, what is your name?\n[1] What is this?", ["{name}, what is your name?", "[1] What is this?"]),
        ("What is a prompt, a question?\nAnd an answer?", ["What is a prompt, a question?", "And an answer?"]),
        ("17\n18", ["17", "18"]),
        ("A \0 sign\n---\nB?", ["A \0 sign", "B?"]),
        ('prompt,"' + 140_000 * "a", ['prompt,"' + 140_000 * "a"]),
    ],
)
def test_plain_text_stays_text(text, prompts):
    assert [one.prompt for one in parse_set(text)] == prompts


def test_a_cell_may_hold_lines_and_separators():
    assert parse_set('prompt,answer\n"A, b?\nC?","a ""b"""\n') == (SetPrompt("A, b?\nC?", 'a "b"'),)


def test_choices_stand_under_their_question_as_in_training():
    row = {"question": "Which?", "choices": ["one", "two"], "label": 1}
    prompt, right = asked(row)
    example = example_of(normalized(row, ""))
    assert f"Question: {prompt}\n\nAnswer:" == example.prompt and right == example.answer.strip() == "two"
    with pytest.raises(DataError, match="'choices_first' is true, and a template begins with the question"):
        asked(row | {"choices_first": True})
    assert parse_set('{"question": "Which?", "choices": ["one", "two"], "answerKey": "B"}')[0] == SetPrompt(prompt, right)


def test_the_ending_of_a_file_says_its_form(tmp_path):
    for name, text in {
        "a.jsonl": '"A?"\n',
        "a.csv": "prompt\nA?\n",
        "a.tsv": "prompt\tanswer\nA?\t\n",
        "a.txt": "A?",
        "a": "A?",
    }.items():
        (tmp_path / name).write_text(text)
        assert load_set(tmp_path / name) == (SetPrompt("A?"),), name
    (tmp_path / "a.txt").write_text('{"prompt": 1}')
    assert load_set(tmp_path / "a.txt") == (SetPrompt('{"prompt": 1}'),)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"prompt": "A?"', "a.jsonl, line 1: not JSON that can be read"),
        ("a.jsonl", '"A?"\n\n7\n', "a.jsonl, line 3: int instead of an object"),
        ("a.jsonl", '{"answer": "a"}', "field 'question' is missing"),
        ("a.jsonl", '{"prompt": "A?", "question": "A?"}', "are both there"),
        ("a.jsonl", '{"question": "A?", "context": "c"}', "may be a part of the question"),
        ("a.csv", "name,answer\na,b\n", "has the columns name, answer, and none is called prompt or question"),
        ("a.csv", "prompt,answer\nA, b?,a\n", "line 2: 3 cells under 2 columns"),
        ("a.csv", 'prompt,answer\n"A"b,a\n', "line 2: no CSV that can be read"),
        ("a.csv", "prompt,answer\n,a\n", "line 2: field 'question' is missing"),
        ("a.txt", "A?\n\ta\n", "line 2: an answer stands behind a tab without a prompt"),
        ("a.txt", " \n", "holds no prompt"),
        ("a.csv", "prompt\n", "holds no prompt"),
        ("a.csv", f"prompt\n{140_000 * 'a'}\n", "line 2: a cell has more than 131,072 characters"),
        ("a.csv", f"{140_000 * 'a'},prompt\nA?\n", "line 1: a cell has more than 131,072 characters"),
        ("a.csv", "prompt,Prompt\nA?,B?\n", "has two columns called 'prompt'"),
        ("a.csv", "prompt,answers\nA?,a\n", "line 2: field 'answers' is not read; write the right answer as 'answer'"),
        ("a.jsonl", '{"prompt": "A?", "expected_output": null, "target": "a"}', "field 'target' is not read"),
        ("", 100_000 * "[", "not JSON that can be read"),
        ("", 100_000 * '{"a":', "not JSON that can be read"),
        ("a.jsonl", "\xff", "is not readable text"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(name, text, words, tmp_path):
    if name:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as raised:
        load_set(tmp_path / name) if name else parse_set(text)
    assert words in str(raised.value)


def test_a_file_that_is_not_there():
    with pytest.raises(DataError, match="There is no file nowhere.txt"):
        load_set("nowhere.txt")
