"""Records from files and the Hub's shapes, prompt texts, token ids at the border of prompt and answer, batches."""

import json
import sys

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from bitune.data.batches import Collator, TokenPair, cut_left
from bitune.data.examples import (
    Example,
    content_of,
    example_of,
    joined,
    load_examples,
    split_validation,
)
from bitune.data.records import load_records
from bitune.data.rows import normalized
from bitune.data.tokens import continuation_ids, fitting, to_measure, tokenize, tokenize_all
from bitune.errors import ConfigError, DataError
from tests.tiny import tiny_base

ARC = {"question": "Why?", "choices": ["because", "no reason"], "label": 1}
HUB_ARC = {"id": "x", "question": "Why?", "choices": {"text": ["because", "no reason"], "label": ["1", "2"]}, "answerKey": "2"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_three_shapes_of_records_become_the_papers_prompts(tmp_path):
    gsm = {"task": "gsm8k", "question": "1+1?", "answer": "It is 2.\n#### 2"}
    t0 = {"task": "t0/x", "prompt": "Title: a\n===\nWrite:", "answer": "b"}
    choice, open_answer, complete = load_examples(write(tmp_path / "arc_easy.train.jsonl", ARC, gsm, t0))
    text = "Question: Why?\n\nChoices:\nbecause\nno reason\n\nAnswer:"
    assert choice == Example("arc_easy", text, " no reason", (" because", " no reason"), 1)
    assert open_answer == Example("gsm8k", "Question: 1+1?\n\nAnswer:", " It is 2.\n#### 2")
    assert complete == Example("t0/x", "Title: a\n===\nWrite:", " b")


def test_a_space_stands_once_between_prompt_and_answer():
    assert [joined("Q:", "a"), joined("Q: ", "a"), joined("Q:\n", "a"), joined("Q:", " a")] == [" a", "a", "a", " a"]


def test_the_hubs_shapes_are_read_as_the_same_records():
    assert normalized(HUB_ARC, "arc_easy") == {"task": "arc_easy", **ARC}
    book = {"id": "7", "question_stem": "Why?", "choices": HUB_ARC["choices"], "answerKey": "1"}
    assert normalized(book, "openbookqa") == {"task": "openbookqa", **ARC, "label": 0}
    assert normalized({"question": "1+1?", "answer": "2"}, "gsm8k") == {"task": "gsm8k", "question": "1+1?", "answer": "2"}


def test_the_hub_is_read_through_datasets(tmp_path):
    pytest.importorskip("datasets", reason="the training extra is not installed")
    (tmp_path / "ai2_arc").mkdir()
    write(tmp_path / "ai2_arc" / "train.jsonl", HUB_ARC)
    write(tmp_path / "ai2_arc" / "test.jsonl", HUB_ARC, HUB_ARC)
    assert load_records(str(tmp_path / "ai2_arc")) == [{"task": "ai2_arc", **ARC}]
    assert len(load_records(str(tmp_path / "ai2_arc"), "test")) == 2
    with pytest.raises(DataError, match="'validation'"):
        load_records(str(tmp_path / "ai2_arc"), "validation")


def test_what_is_wrong_with_a_data_set_is_said_with_its_cause(tmp_path, monkeypatch):
    """Each cause as datasets itself meets it; what is in no table passes with its own name."""
    datasets = pytest.importorskip("datasets", reason="the training extra is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for name in ("whole", "broken", "empty", "script"):
        (tmp_path / name).mkdir()
    write(tmp_path / "whole" / "train.jsonl", ARC)
    (tmp_path / "broken" / "train.jsonl").write_text('{"question": \n')
    (tmp_path / "script" / "script.py").write_text("")
    for name, words in {
        "whole:other": "needs one of its configs .BuilderConfig 'other' not found",
        "broken": "cannot be read as records .*JSON",
        "empty": "doesn't contain any data files",
        "script": "scripts are not run",
    }.items():
        with pytest.raises(DataError, match=words):
            load_records(f"{tmp_path / name}")
    with pytest.raises(DataError, match="Hub cannot be reached"):
        load_records("nobody/nothing")

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", full)
    with pytest.raises(OSError, match="No space left"):
        load_records("nobody/nothing")


def test_without_datasets_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # what Python itself stores for "not importable"
    with pytest.raises(DataError, match="pip install"):
        load_records("allenai/ai2_arc:ARC-Easy", "train")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"question": ', "not JSON"),
        ("[1]", "list instead of an object"),
        ('{"question": "a"}', "'answer' is missing or null; the row has question; write"),
        ('{"question": " ", "answer": "b"}', "'question' is ' '"),
        ('{"prompt": "a", "answer": 3}', "'answer' is 3"),
        ('{"text": "a"}', "'question' is missing or null"),
        (
            '{"ctx": "a", "endings": ["b", "c"], "label": 0}',
            "'question' is missing or null; the row has ctx, endings, label; write question, choices and label, or question and answer, "
            "or prompt and answer",
        ),
        ('{"question": "a", "choices": ["b"], "label": 0}', "two or more"),
        ('{"question": "a", "choices": ["b", "c"], "label": 2}', "label is 2.*0 to 1"),
        ('{"question": "a", "choices": ["b", "c"], "label": true}', "label is True"),
        ('{"question": "a", "choices": ["b", "c"]}', "label is missing or null"),
        ('{"question": "a", "choices": ["b", 5], "label": 0}', "'choices' is 5"),
        ('{"question": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "answerKey": ""}', "answerKey is ''"),
        ('{"prompt": "a\\ud800", "answer": "b"}', "surrogate pair at character 2"),
    ],
)
def test_a_wrong_line_is_named_with_file_number_and_cause(tmp_path, line, part):
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(ARC) + "\n\n" + line + "\n")
    with pytest.raises(DataError, match=rf"some\.jsonl, line 3: .*{part}") as caught:
        load_records(path)
    assert "\n" not in str(caught.value)


def test_wrong_files(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    for name, part in {"empty": "holds no record", "latin": "not UTF-8", "missing": "no file"}.items():
        with pytest.raises(DataError, match=part):
            load_records(str(tmp_path / f"{name}.jsonl"))
    with pytest.raises(DataError, match="no split 'test'"):
        load_records(write(tmp_path / "a.jsonl", ARC), "test")


def words(*, sentencepiece: bool = False, bos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of single words that begin with their space: GPT-2's way, or SentencePiece's with its own space in front."""
    space = "▁" if sentencepiece else "Ġ"
    known = ["<s>", "</s>", "?", space, "Q", "A", ":", *[mark + word for word in ("yes", "no", "Q", "A") for mark in ("", space)]]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(known)}, unk_token="?"))
    if sentencepiece:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "Ġ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{space}?[A-Za-z]+|:|{space}"), "isolated")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="?")


def tokens(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


def test_the_answer_carries_its_space_and_the_end_token():
    tokenizer = words(bos=True)
    pair = tokenize(Example("t", "Q:", " yes"), tokenizer, 8, 8)
    assert tokens(tokenizer, pair.prompt_ids) == ["<s>", "Q", ":"]
    assert tokens(tokenizer, pair.answer_ids) == ["Ġyes", "</s>"]


def test_sentencepiece_puts_no_second_space_before_the_answer():
    tokenizer = words(sentencepiece=True)
    assert tokens(tokenizer, tokenizer(" yes").input_ids) == ["▁", "▁yes"]  # the trap
    pair = tokenize(Example("t", "Q:", " yes"), tokenizer, 8, 8)
    assert tokens(tokenizer, pair.answer_ids) == ["▁yes", "</s>"]
    assert [tokens(tokenizer, ids) for ids in continuation_ids("Q:", [" yes", " no"], tokenizer)] == [["▁yes"], ["▁no"]]


def test_where_a_token_would_cross_the_border_the_prompt_stays_as_the_model_reads_it():
    tokenizer = words()
    pair = tokenize(Example("t", "Q: ", "yes"), tokenizer, 8, 8)
    assert tokens(tokenizer, pair.prompt_ids) == ["Q", ":", "Ġ"]
    assert tokens(tokenizer, pair.answer_ids) == ["yes", "</s>"]


def test_long_prompts_lose_their_beginning_and_long_answers_their_example():
    tokenizer = words(bos=True)
    examples = [Example("t", "Q Q A Q:", " yes"), Example("t", "Q:", " yes no yes"), Example("t", "A:", " no")]
    result = tokenize_all(examples, tokenizer, 3, 3)
    assert result.examples == [examples[0], examples[2]] and (result.dropped, result.cut) == (1, 1)
    assert tokens(tokenizer, result.pairs[0].prompt_ids) == ["<s>", "ĠQ", ":"]
    assert [pair.prompt_cut for pair in result.pairs] == [True, False]
    assert tokenize(examples[1], tokenizer, 3, 3) is None
    assert tokenize(examples[1], tokenizer, 3, 4).answer_ids[-1] == tokenizer.eos_token_id
    assert tokenize_all([], tokenizer, 3, 3).pairs == []


def test_cutting_keeps_the_special_tokens_in_front():
    assert cut_left([0, 1, 2, 3], 3, head=[0]) == [0, 2, 3]
    assert cut_left([0, 1, 2, 3], 3, head=[0, 1]) == [0, 1, 3]
    assert cut_left([4, 1, 2, 3], 3, head=[]) == [1, 2, 3]
    assert cut_left([0, 1, 2, 3], 1, head=[0, 1]) == [0]
    assert cut_left([0, 1], 2, head=[0]) == [0, 1]


def test_limits_and_tokenizers_that_cannot_work():
    with pytest.raises(ConfigError, match="Prompts of 0"):
        tokenize_all([], words(), 0, 3)
    tokenizer = words()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        tokenize_all([], tokenizer, 3, 3)


def test_a_batch_is_padded_towards_the_border():
    batch = Collator(pad_id=9)([TokenPair([1, 2, 3], [4]), TokenPair([5], [6, 7])])
    assert batch["prompt_ids"].tolist() == [[1, 2, 3], [9, 9, 5]]
    assert batch["prompt_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["answer_ids"].tolist() == [[4, 9], [6, 7]]
    assert batch["answer_mask"].tolist() == [[1, 0], [1, 1]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_the_validation_part_is_the_same_for_the_same_seed():
    examples = [Example("t", str(i), " a") for i in range(50)]
    train, held = split_validation(examples, 0.1, seed=3)
    assert len(held) == 5 and sorted(train + held, key=examples.index) == examples
    assert split_validation(examples, 5, seed=3) == (train, held)
    assert split_validation(examples, 5, seed=4) != (train, held)
    assert train == sorted(train, key=examples.index)
    assert split_validation(examples, 0, seed=3) == (examples, [])
    for part in (1.0, 50, -1, 51):
        with pytest.raises(ConfigError, match="nothing to train on"):
            split_validation(examples, part, seed=3)


def test_choices_can_stand_before_the_question():
    record = normalized(ARC | {"choices_first": True}, "t")
    assert record["choices_first"] is True
    first, last = example_of(record), example_of(normalized(ARC | {"choices_first": False}, "t"))
    assert first.prompt == "Choices:\nbecause\nno reason\n\nQuestion: Why?\n\nAnswer:"
    assert last.prompt == "Question: Why?\n\nChoices:\nbecause\nno reason\n\nAnswer:"
    assert (first.choices, first.label, first.answer) == (last.choices, last.label, last.answer)
    assert normalized(ARC | {"choices_first": False}, "t") == normalized(ARC, "t")
    for value in ("true", 1, [True]):
        with pytest.raises(DataError, match="'choices_first' is .*true or false"):
            normalized(ARC | {"choices_first": value}, "t")


def test_example_of_keeps_label_and_choices_together():
    example = example_of({"task": "arc_easy", **ARC})
    assert example.choices[example.label] == example.answer


def test_fitting_leaves_out_long_prompts_and_keeps_the_order():
    tokenizer = tiny_base().tokenizer
    examples = [Example("t", "x" * n, " y") for n in (3, 9, 1, 4)]
    kept = fitting(examples, tokenizer, len(tokenizer("xxxx").input_ids))
    assert [len(e.prompt) for e in kept] == [3, 1, 4]
    assert fitting(examples, tokenizer, None) == examples and fitting([], tokenizer, 1) == []


def test_what_is_measured_are_the_first_that_fit_less_those_with_long_answers():
    """So a limit names the same prompts whatever the answers are."""
    tokenizer = tiny_base().tokenizer
    examples = [Example("t", "x" * n, answer) for n, answer in ((3, " yy"), (9, " y"), (1, " yyyy"), (4, " y"), (2, " y"))]
    prompt, answer = len(tokenizer("xxxx").input_ids), len(tokenizer(" yy", add_special_tokens=False).input_ids) + 1
    assert to_measure(examples, tokenizer, prompt, answer, limit=3) == [examples[0], examples[3]]
    assert to_measure(examples, tokenizer, max_answer_tokens=answer) == [e for e in examples if e is not examples[2]]
    assert to_measure(examples, tokenizer) == examples
    assert to_measure(examples, tokenizer, limit=2, trained_on={content_of(examples[0].prompt)}) == [examples[1]]


def test_choices_in_another_order_are_the_same_question():
    first = {"task": "t", "question": "Which is  red?", "choices": ["A rose", "Grass"], "label": 0}
    same = first | {"question": "which is red?", "choices": ["grass", "a rose"], "label": 1}
    other = first | {"choices": ["A rose", "Grass", "Snow"]}
    first, same, other = (content_of(example_of(record).prompt) for record in (first, same, other))
    assert first == same != other


def test_of_two_choices_with_the_same_text_the_first_is_right():
    """They score alike, so the first is what can be predicted."""
    assert normalized({"question": "x", "choices": ["a", "b", "b"], "label": 2}, "t")["label"] == 1
