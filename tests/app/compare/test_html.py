"""Results -> HTML: model text arrives as it is, runs nothing, and the words around it are right."""

import re
from dataclasses import replace
from html import unescape

import pytest

from app.compare import html
from app.compare.prompts import AS_IT_IS, REWRITTEN, reading
from app.compare.request import CompareRequest
from app.ui.markdown import rendered
from app.ui.templates import problem
from app.ui.variants import VariantView
from bitune.schema.results import Completion, Update

VIEWS = {
    "base": VariantView("base", "reads once", ("causal",), 0),
    "qa": VariantView("qa", "reads twice", ("causal", "bidirectional"), 1),
}
HIDDEN = {name: VariantView(f"Answer {letter}", "", (), 6, hidden=True) for name, letter in zip(VIEWS, "AB", strict=True)}
ASKED = CompareRequest(prompt="hi", variants=tuple(VIEWS))
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
    return Completion(name, text, tokens, 0.4123, 12.34, reason, (1, 2, len(name)))


def update(base: str, qa: str, done=True, reason="eos") -> Update:
    completions = {"base": completion("base", base, reason), "qa": completion("qa", qa, reason)}
    return Update(completions, {"base": "Q: hi", "qa": "Q: hi"}, {"base": 3, "qa": 3}, done)


def alone(answer: Completion) -> Update:
    return Update({"qa": answer}, {"qa": "Q"}, {"qa": 1}, answer.finish_reason is not None)


def shown_answers(found: Update, views=VIEWS, asked=ASKED, **options: object) -> str:
    return html.answers(found, views, asked, **options)


def texts(page: str) -> list[str]:
    """What a browser shows in the text boxes."""
    return [
        unescape(re.sub(r"<[^>]*>", "", body)) for body in re.findall(r'<div class="bt-text[^>]*>(.*?)</div>', page, re.DOTALL)
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("done", [True, False])
def test_model_text_is_shown_as_it_is(text, done):
    shown = shown_answers(update(text, text + " and more", done))
    assert texts(shown) == [text, text + " and more"]


@pytest.mark.parametrize("text", HOSTILE)
def test_prompts_and_problems_are_shown_as_they_are(text):
    read = Update(update("a", "b").completions, {"base": text, "qa": text + "!"}, {"base": 3, "qa": 4}, True)
    assert texts(html.prompts(read, VIEWS)) == [text, text + "!"]
    assert text in unescape(problem(text))
    assert "<img" not in problem(text) + html.prompts(read, VIEWS)
    assert "<script" not in problem(text) + html.prompts(read, VIEWS)


def test_marks_come_when_all_is_written_on_both_sides():
    assert "<mark>" not in shown_answers(update("one two", "one 2", done=False, reason=None))
    shown = shown_answers(update("one two", "one 2"))
    assert re.findall("<mark>(.*?)</mark>", shown) == ["two", "2"]
    assert shown.count('<i class="bt-part"></i><mark>') == 2, "where they part, in both"
    assert "The same as base up to word 1 (2 tokens), then" in shown
    assert "The others are compared with base." in shown


def test_any_answer_can_be_the_one_that_others_are_compared_with():
    shown = shown_answers(update("one two three", "one 2"), reference="qa")
    assert "The others are compared with qa." in shown and "where qa has" in shown
    assert re.findall(r'data-place="(\d)" aria-pressed="(\w+)"', shown) == [("0", "false"), ("1", "true")]
    hidden = shown_answers(update("one two three", "one 2"), HIDDEN, reference="qa")
    assert "compared with Answer B" in hidden and "qa" not in hidden


def test_another_answer_is_called_so_and_not_marked():
    shown = shown_answers(update("Bees make honey and keep it in wax for the winter.", "honey."))
    assert "A different answer: 1 word, where base has 11 words." in shown
    assert "<mark" not in shown and "bt-part" not in shown


def test_whatever_begins_alike_says_up_to_where_and_is_marked():
    shown = shown_answers(update("Bees make honey and keep it in wax for the winter.", "Bees sting."))
    assert "The same as base up to word 1 (2 tokens), then “\u2068sting\u2069” where base has" in shown
    assert "<mark>sting</mark>" in shown and shown.count("bt-part") == 2, "where they part, in both"


def test_no_answer_without_text_is_what_others_are_compared_with():
    shown = shown_answers(update("", "one two"))
    assert "The others are compared with qa." in shown and "No text, where qa has 2 words." in shown
    assert "The others are compared with base." in shown_answers(update("", "")), "none has a text"
    assert "An answer of 2 words, where base has no text." in shown_answers(update("", "one two"), reference="base")


def test_one_answer_alone_is_compared_with_nothing():
    shown = shown_answers(alone(completion("qa", "text")))
    assert "compared" not in shown and "Compare with" not in shown and "one batch" not in shown


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
    shown = shown_answers(alone(completion("qa", "text", reason)))
    assert f"<dd>{words}</dd>" in shown
    assert "First token after 0.41 s, then 12.3 tokens/s." in shown
    assert ("bt-running" in shown) == (reason is None)


def test_times_are_those_of_the_batch_and_stand_there_once():
    shown = shown_answers(update("one", "two"))
    assert shown.count("First token after 0.41 s, then 12.3 tokens/s in each.") == 1
    assert "these are its figures" in shown
    assert "0.41" not in "".join(re.findall("<dl>.*?</dl>", shown, re.DOTALL))
    assert "0.41" not in shown_answers(update("one", "two"), HIDDEN), "nor where names are hidden"
    assert "First token" not in shown_answers(alone(Completion("qa", "", 0, None, None, None)))
    known = replace(update("one", "two").completions["qa"], from_memory=True)
    some = replace(update("one", "two"), completions={**update("one", "two").completions, "qa": known})
    assert "For qa the prompt came from memory" in shown_answers(some)
    assert "The prompt came from memory" in shown_answers(alone(known))


@pytest.mark.parametrize(
    ("text", "around", "template", "words"),
    [
        ("hi", ("", ""), "", AS_IT_IS),
        ("Question: hi\n\nAnswer:", ("Question: ", "\n\nAnswer:"), "Question: [prompt]↵↵Answer:", ""),
        ("x" * 90 + "hi", ("x" * 90, ""), "…" + "x" * 22 + "[prompt]", ""),
        ("Q: HI", None, "", REWRITTEN),
    ],
)
def test_the_template_is_told_from_the_text_as_read(text, around, template, words):
    read = reading(text, 3, "hi")
    assert (read.around, read.template, read.words) == (around, template, words)


def test_each_column_says_what_it_read_and_the_page_where_that_differs():
    found = update("one", "two")
    assert shown_answers(found).count("3 prompt tokens · <code>Q: [prompt]</code>") == 2
    assert "bt-apart" not in shown_answers(found)
    other = replace(found, prompts={"base": "Q: hi", "qa": "hi"})
    assert "bt-apart" in shown_answers(other) and AS_IT_IS in shown_answers(other)
    hidden = shown_answers(other, HIDDEN)
    assert "bt-read-as" not in hidden and "bt-apart" not in hidden, "a template can tell whose answer it is"


def test_the_page_knows_which_prompt_was_answered():
    assert 'data-asked="hi"' in shown_answers(update("one", "two"))
    hostile = CompareRequest(prompt='"><script>', variants=tuple(VIEWS))
    assert 'data-asked="&#34;&gt;&lt;script&gt;"' in shown_answers(update("one", "two"), asked=hostile)
    went_on = CompareRequest(prompt="and", variants=("qa",), history=[{"prompt": "hi", "answers": {"qa": "one"}}])
    assert "data-asked" not in shown_answers(alone(completion("qa", "text")), asked=went_on), "the box above holds another one"


def test_an_answer_without_text_says_so():
    assert "No text" in shown_answers(alone(completion("qa", "", "eos", 1)))


def test_before_its_first_token_an_answer_says_what_happens():
    running, stopped = (shown_answers(alone(Completion("qa", "", 0, None, None, reason))) for reason in (None, "cancelled"))
    assert html.READING in running
    assert "bt-running" in running
    assert "Stopped before the first token" in stopped


def test_a_prompt_read_by_all_is_shown_once():
    assert html.prompts(update("a", "b"), VIEWS).count("Q: hi") == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_what_comes_while_answers_are_written_is_plain_text(text):
    """It fills columns that are drawn once; a browser test holds that it is set as text."""
    running = update(text, "", done=False, reason=None)
    columns = html.begun(running, VIEWS, ASKED)
    assert columns.count("<article") == 2
    assert texts(columns) == [html.READING] * 2
    now = html.live(running, VIEWS)
    first, second = now["columns"]
    assert (first["text"], first["silent"], first["running"]) == (text, "", True)
    assert (second["text"], second["silent"]) == ("", html.READING)
    assert first["figures"] == ["3", "still writing"]
    assert now["batch"].startswith("First token after 0.41 s")


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_of_an_answer_runs_nothing(text):
    found = rendered(
        f"**bold**\n\n{text}\n\n- one\n\n```py\n{text}\n```\n[x](javascript:alert(1)) ![y](http://example.org/z.png)"
    )
    tags = set(re.findall(r"<(\w+)", found))
    assert tags <= {"p", "strong", "ul", "li", "pre", "code", "em", "br", "blockquote", "h4"}
    assert not re.findall(r"<[^>]*(?:href|src|\son\w+=|style)", found)
    assert "javascript:alert(1)" in found, "a link is text"


def test_plain_text_has_no_other_form_and_headings_stand_below_those_of_the_page():
    assert rendered("one two\nthree") is None
    assert rendered("# Title\n\n|a|b|\n|-|-|\n|1|2|").startswith("<h4>Title</h4>\n<table>")
    shown = shown_answers(update("**one**", "one"))
    assert shown.count('class="bt-rendered"') == 1 and "<strong>one</strong>" in shown and "bt-as-markdown" in shown
    assert "bt-as-markdown" not in shown_answers(update("one", "two"))


def test_a_long_reading_says_how_far_it_is():
    reading = Update({"qa": Completion("qa", "", 0, None, None, None)}, {"qa": "Q"}, {"qa": 1}, False, "reading", 0.414)
    assert html.live(reading, VIEWS)["columns"][0]["silent"] == "Reading the prompt: 41%."
    assert html.live(replace(reading, read=None), VIEWS)["columns"][0]["silent"] == html.READING
