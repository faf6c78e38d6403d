"""A conversation as one text, and where its turns end among the tokens of it."""

import pytest

from bitune import PromptError
from bitune.data.conversation import turn_ends
from bitune.data.prompts import PromptTemplate
from tests.tiny import tiny_tokenizer
from tests.tokenizers import KINDS, around

TURNS = (("Who on earth?", " Nobody. "), ("Why?", ""), ("And on, on, on?", "on and on"))
LAST = "Is that on?"


def ends_as_text(template, turns, tokenizer, prompt=LAST):
    """The conversation's text cut at the ends of its turns, each piece decoded from its tokens."""
    text, ids = template.encode(prompt, tokenizer, 10_000, turns)
    ends = turn_ends(template, turns, text, ids, tokenizer)
    cuts = [0, *(place for end in ends for place in end), len(ids)]
    assert cuts == sorted(cuts)
    return text, [tokenizer.decode(ids[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)]


def test_without_a_chat_template_questions_stand_in_the_template_and_answers_behind():
    text, pieces = ends_as_text(PromptTemplate("Q: {prompt}\nA:"), TURNS, tiny_tokenizer())
    assert pieces == [
        *("Q: Who on earth?\nA:", " Nobody. "),
        *("\n\nQ: Why?\nA:", ""),
        *("\n\nQ: And on, on, on?\nA:", "on and on"),
        "\n\nQ: Is that on?\nA:",
    ]
    assert text == "".join(pieces)


def test_a_chat_template_writes_user_and_assistant():
    text, pieces = ends_as_text(PromptTemplate("chat"), TURNS[:1], tiny_tokenizer())
    assert text == "<user>Who on earth?<assistant> Nobody. <user>Is that on?<answer>"
    assert pieces[0] == "<user>Who on earth?<a", (
        "it opens the last answer with other words than those before: up to where they part"
    )


CHATML = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_what_closes_an_answer_belongs_to_the_next_question():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML
    _, pieces = ends_as_text(PromptTemplate("chat"), TURNS[:2], tokenizer)
    assert pieces == [
        *("[user]Who on earth?[end][assistant]", "Nobody."),
        *("[end][user]Why?[end][assistant]", ""),
        "[end][user]Is that on?[end][assistant]",
    ], "a template that trims an answer is followed"


def test_a_template_that_rewrites_what_was_said_is_followed_up_to_there():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    text, pieces = ends_as_text(PromptTemplate("chat"), [("Hi", "<think>hm</think>Ho")], tokenizer)
    assert text == "[user]Hi[assistant]Ho[user]Is that on?[assistant]"
    assert pieces == ["[user]Hi[assistant]", "", "Ho[user]Is that on?[assistant]"]


def test_a_token_on_both_sides_of_an_end_comes_after_it():
    tokenizer = around("<s>")  # "Ġon" is one token
    _, pieces = ends_as_text(PromptTemplate(None), [("a ", "on"), ("b", "ab")], tokenizer, "c")
    assert pieces == ["<s>a", " on", "\n\nb", "ab", "\n\nc"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [None, "chat", "Q: {prompt}\nA:"])
def test_the_ids_are_those_of_the_whole_text_with_every_tokenizer(kind, template):
    tokenizer = KINDS[kind].make()
    tokenizer.chat_template = CHATML
    template = PromptTemplate(template)
    text, ids = template.encode(LAST, tokenizer, 10_000, TURNS)
    assert PromptTemplate(None).ids([text], tokenizer) == [ids] or template.text == "chat"
    ends = turn_ends(template, TURNS, text, ids, tokenizer)
    assert len(ends) == 3
    flat = [place for end in ends for place in end]
    assert flat == sorted(flat)
    assert flat[0] > 0
    assert flat[-1] < len(ids)
    for number, (asked, _) in enumerate(ends):
        own = template.encode(TURNS[number][0], tokenizer, 10_000, TURNS[:number])[1]
        assert len(own) - 2 <= asked <= len(own), "but for a token that an end cuts, a question is read as it was before"


@pytest.mark.parametrize(
    ("turns", "prompt", "words"),
    [
        ([("", "a")], "b", "The prompt is empty"),
        ([("a", "b")], "", "The prompt is empty"),
        ([("a\x00", "b")], "c", "control character"),
        ([("a", "b" * 3000)], "c", "longer than the 100 tokens"),
        ([("a", "b" * 90)], "c" * 10, "The conversation has 10. tokens .*; begin a new one"),
    ],
)
def test_what_no_model_reads_is_a_sentence(turns, prompt, words):
    with pytest.raises(PromptError, match=words):
        PromptTemplate(None).encode(prompt, tiny_tokenizer(), 100, turns)
