"""Results -> HTML: model text arrives as it is, runs nothing, and the words around it are right."""

import re
from html import unescape

import pytest

from app.compare import html
from app.ui.templates import problem
from app.ui.variants import VariantView
from bitune.schema.results import Completion, Update

VIEWS = {
    "base": VariantView("base", "reads once", ("causal",), 0),
    "qa": VariantView("qa", "reads twice", ("causal", "bidirectional"), 1),
}
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "</div></article><script>alert(1)</script>",
    "${1+1} `${alert(1)}` {{7*7}} {{#each value}}",
    "<s> </s> <|im_start|> <br> &amp; &lt;",
    "  two spaces\n\n\ttab and lines\n",
    "\n starts with a line break",
    "שלום مرحبا 今日は 👩‍👩‍👧",
    "quotes ' \" `",
]


def completion(name: str, text: str, reason="eos", tokens=3) -> Completion:
    return Completion(name, text, tokens, 0.4123, 12.34, reason)


def update(base: str, qa: str, done=True, reason="eos") -> Update:
    completions = {"base": completion("base", base, reason), "qa": completion("qa", qa, reason)}
    return Update(completions, {"base": "Q: hi", "qa": "Q: hi"}, {"base": 3, "qa": 3}, done)


def alone(answer: Completion) -> Update:
    return Update({"qa": answer}, {"qa": "Q"}, {"qa": 1}, answer.finish_reason is not None)


def texts(page: str) -> list[str]:
    """What a browser shows in the text boxes."""
    return [
        unescape(re.sub(r"<[^>]*>", "", body)) for body in re.findall(r'<div class="bt-text[^>]*>(.*?)</div>', page, re.DOTALL)
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("done", [True, False])
def test_model_text_is_shown_as_it_is(text, done):
    shown = html.answers(update(text, text + " and more", done), VIEWS)
    assert texts(shown) == [text, text + " and more"]


@pytest.mark.parametrize("text", HOSTILE)
def test_prompts_and_problems_are_shown_as_they_are(text):
    read = Update(update("a", "b").completions, {"base": text, "qa": text + "!"}, {"base": 3, "qa": 4}, True)
    assert texts(html.prompts(read, VIEWS)) == [text, text + "!"]
    assert text in unescape(problem(text))
    assert "<img" not in problem(text) + html.prompts(read, VIEWS)
    assert "<script" not in problem(text) + html.prompts(read, VIEWS)


def test_marks_come_when_all_is_written_and_only_against_the_first():
    assert "<mark>" not in html.answers(update("one two", "one 2", done=False, reason=None), VIEWS)
    shown = html.answers(update("one two", "one 2"), VIEWS)
    assert shown.count("<mark>") == 1
    assert "<mark>2</mark>" in shown
    assert "The same as base for 1 word; 1 of 2 words differs." in shown
    assert "The others are compared with base." in shown


def test_one_answer_alone_is_compared_with_nothing():
    assert "compared" not in html.answers(alone(completion("qa", "text")), VIEWS)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("eos", "by itself"),
        ("length", "at the limit of new tokens"),
        ("stop", "at a stop text"),
        ("cancelled", "by you"),
        (None, "still writing"),
    ],
)
def test_says_why_an_answer_ended(reason, words):
    shown = html.answers(alone(completion("qa", "text", reason)), VIEWS)
    assert f"<dd>{words}</dd>" in shown
    assert "0.41 s" in shown
    assert "12.3 tokens/s" in shown
    assert ("bt-running" in shown) == (reason is None)


def test_figures_that_are_not_known_yet_are_a_dash():
    shown = html.answers(alone(Completion("qa", "", 0, None, None, None)), VIEWS)
    assert shown.count("<dd>–</dd>") == 2


def test_an_answer_without_text_says_so():
    assert "No text" in html.answers(alone(completion("qa", "", "eos", 1)), VIEWS)


def test_before_its_first_token_an_answer_says_what_happens():
    running, stopped = (html.answers(alone(Completion("qa", "", 0, None, None, reason)), VIEWS) for reason in (None, "cancelled"))
    assert html.READING in running
    assert "bt-running" in running
    assert "Stopped before the first token" in stopped


def test_a_prompt_read_by_all_is_shown_once():
    assert html.prompts(update("a", "b"), VIEWS).count("Q: hi") == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_what_comes_while_answers_are_written_is_plain_text(text):
    """It fills columns that are drawn once; a browser test holds that it is set as text."""
    running = update(text, "", done=False, reason=None)
    columns = html.begun(VIEWS.values())
    assert columns.count("<article") == 2
    assert texts(columns) == [html.READING] * 2
    first, second = html.live(running, VIEWS)
    assert (first["text"], first["silent"], first["running"]) == (text, "", True)
    assert (second["text"], second["silent"]) == ("", html.READING)
    assert first["figures"] == ["3", "0.41 s", "12.3 tokens/s", "still writing"]
