"""The special tokens of prompts and answers, for tokenizers of many kinds, against what transformers' own tokenizer gives."""

import pytest
from tokenizers import AddedToken, Regex, pre_tokenizers

from bitune import Engine
from bitune.base.loading import Base
from bitune.data.encoding import front_ids, prompt_ids
from bitune.data.examples import Example
from bitune.data.prompts import PromptTemplate
from bitune.data.tokens import continuation_ids, fitting, tokenize, tokenize_all
from bitune.errors import ConfigError
from bitune.evaluation import run
from bitune.evaluation.scores import question
from tests.tiny import tiny_model
from tests.tokenizers import KINDS, around

TEXTS = ("a on text ab", " on", "x", "on </s>", "\n", "on" * 40)


@pytest.mark.parametrize("name", KINDS)
def test_a_prompt_is_what_transformers_gives_without_what_it_appends(name):
    kind, tokenizer = KINDS[name], KINDS[name].make()
    plain = kind.without_end()
    assert front_ids(tokenizer) == tokenizer.convert_tokens_to_ids(list(kind.front))
    assert prompt_ids(TEXTS, tokenizer) == [plain(text).input_ids for text in TEXTS]
    assert prompt_ids([], tokenizer) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_text_that_brings_its_beginning_gets_no_second_one(name):
    kind, tokenizer = KINDS[name], KINDS[name].make()
    for start in {tokenizer.bos_token, "".join(kind.front)} - {None, ""}:
        text = start + "a on"
        whole = tokenizer(text, add_special_tokens=False).input_ids
        assert prompt_ids([text], tokenizer) == [whole]
        assert PromptTemplate(start + "{prompt}").encode("a on", tokenizer, 512)[1] == whole
        pair = tokenize(Example("t", text, " ab"), tokenizer, 512, 512)
        assert pair.prompt_ids == whole


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_has_no_special_token_but_the_end_in_training(name):
    tokenizer = KINDS[name].make()
    plain = KINDS[name].without_end()
    for prompt in ("Q: on", (tokenizer.bos_token or "") + "Q:"):
        (answer,) = continuation_ids(prompt, [" ab on"], tokenizer)
        alone, whole = (plain(text, add_special_tokens=False).input_ids for text in (prompt, prompt + " ab on"))
        assert alone + answer == whole
        assert tokenize(Example("t", prompt, " ab on"), tokenizer, 99, 99).answer_ids == [*answer, tokenizer.eos_token_id]


@pytest.mark.parametrize("name", KINDS)
def test_all_that_reads_a_prompt_reads_the_same(name, monkeypatch):
    """Training, scoring, answering, the engine, and what is counted to keep long prompts out."""
    tokenizer = KINDS[name].make()
    base = Base(tiny_model(), tokenizer, "tiny", None, None)
    engine = Engine(base)
    asked = []
    answer = run.answer
    monkeypatch.setattr(run, "answer", lambda *given, **how: asked.extend(given[2]) or answer(*given, **how))
    examples = [Example("t", prompt, " ab") for prompt in ("a on", (tokenizer.bos_token or "") + "a on")]
    run.evaluate(engine.manager, engine.variants, examples, tokenizer, max_new_tokens=1)
    trained = tokenize_all(examples, tokenizer, 99, 99).pairs
    for example, ids, pair in zip(examples, asked, trained, strict=True):
        assert ids == pair.prompt_ids == list(engine.prompt_ids(example.prompt, "base", template="none"))
        assert ids == question(Example("t", example.prompt, " ab", (" ab", " on"), 0), tokenizer).prompt_ids
        assert fitting([example], tokenizer, len(ids)) == [example] and fitting([example], tokenizer, len(ids) - 1) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_long_prompt_loses_its_beginning_but_not_what_stands_in_front(name):
    tokenizer = KINDS[name].make()
    front = front_ids(tokenizer)
    for text in ("abcdefghijk" * 3, (tokenizer.bos_token or "") + "abcdefghijk" * 3):
        (whole,) = prompt_ids([text], tokenizer)
        head = front or ([tokenizer.bos_token_id] if tokenizer.bos_token_id == whole[0] else [])
        head = head if whole[: len(head)] == head else whole[:1]  # a text's own BOS alone
        pair = tokenize(Example("t", text, " x"), tokenizer, 8, 8)
        assert pair.prompt_cut and pair.prompt_ids == head + whole[len(head) - 8 :]


def test_a_bos_that_takes_the_space_before_it_is_still_the_texts_own():
    tokenizer = around(front="<s>")
    tokenizer.add_special_tokens({"bos_token": AddedToken("<s>", lstrip=True, special=True, normalized=False)})
    bos = tokenizer.bos_token_id
    assert tokenizer("  <s>on").input_ids[:2] == [bos, bos]  # the trap
    assert prompt_ids(["  <s>on"], tokenizer)[0][:2] != [bos, bos]


def test_an_empty_bos_is_none():
    """Every text begins with it, and none brings it."""
    tokenizer = around(front="<s>")
    tokenizer.bos_token = ""
    assert prompt_ids(TEXTS, tokenizer) == [around(front="<s>")(text).input_ids for text in TEXTS]


def test_a_tokenizer_without_ordinary_text_is_named():
    tokenizer = around()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "removed")
    with pytest.raises(ConfigError, match="no token for ordinary text"):
        prompt_ids(["on"], tokenizer)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bos", ["", "{{ bos_token }}"])
def test_a_chat_is_what_transformers_gives(name, bos):
    """A template writes the special tokens itself, BOS too or not."""
    tokenizer = KINDS[name].make()
    tokenizer.chat_template = (
        bos + "{% for m in messages %}Q: {{ m['content'] }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )
    chat = [{"role": "user", "content": "on <s> ab"}]
    expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    text, ids = PromptTemplate("chat").encode("on <s> ab", tokenizer, 512)
    assert ids == expected and text.endswith("Q: on <s> abA:")
