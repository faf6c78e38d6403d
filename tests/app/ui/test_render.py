"""Results -> HTML: model text arrives as it is, runs nothing, and the words around it are right."""

import re
from html import unescape

import pytest

from app.ui import render
from app.ui.figures import passes_icon, way_of_a_prompt
from app.ui.variants import VariantView, colour_of, in_order, views_of
from bitune.schema.results import BaseFacts, CheckpointFacts, Completion, Update
from bitune.schema.variants import BASE, METHODS, MixingRatios

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


def texts(html: str) -> list[str]:
    """What a browser shows in the text boxes."""
    return [
        unescape(re.sub(r"<[^>]*>", "", body)) for body in re.findall(r'<div class="bt-text[^>]*>(.*?)</div>', html, re.DOTALL)
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("done", [True, False])
def test_model_text_is_shown_as_it_is(text, done):
    html = render.answers(update(text, text + " and more", done), VIEWS)
    assert texts(html) == [text, text + " and more"]


@pytest.mark.parametrize("text", HOSTILE)
def test_prompts_and_problems_are_shown_as_they_are(text):
    read = Update(update("a", "b").completions, {"base": text, "qa": text + "!"}, {"base": 3, "qa": 4}, True)
    assert texts(render.prompts(read, VIEWS)) == [text, text + "!"]
    assert text in unescape(render.problem(text))
    assert "<img" not in render.problem(text) + render.prompts(read, VIEWS)
    assert "<script" not in render.problem(text) + render.prompts(read, VIEWS)


def test_control_characters_become_visible():
    assert render.faithful("a\x00b\x1b[31m\x7f\r\n\tc") == "a␀b␛[31m␡␍\n\tc"


def test_marks_come_when_all_is_written_and_only_against_the_first():
    assert "<mark>" not in render.answers(update("one two", "one 2", done=False, reason=None), VIEWS)
    html = render.answers(update("one two", "one 2"), VIEWS)
    assert html.count("<mark>") == 1
    assert "<mark>2</mark>" in html
    assert "The same as base for 1 word; 1 of 2 words differs." in html
    assert "The others are compared with base." in html


def test_one_answer_alone_is_compared_with_nothing():
    alone = Update({"qa": completion("qa", "text")}, {"qa": "Q"}, {"qa": 1}, True)
    assert "compared" not in render.answers(alone, VIEWS)


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
    html = render.column(completion("qa", "text", reason), VIEWS["qa"], "text", "")
    assert f"<dd>{words}</dd>" in html
    assert "0.41 s" in html
    assert "12.3 tokens/s" in html
    assert ("bt-running" in html) == (reason is None)


def test_figures_that_are_not_known_yet_are_a_dash():
    html = render.figures(Completion("qa", "", 0, None, None, None))
    assert html.count("<dd>–</dd>") == 2


def test_an_answer_without_text_says_so():
    assert "No text" in render.column(completion("qa", "", "eos", 1), VIEWS["qa"], "", "")


def test_a_prompt_read_by_all_is_shown_once():
    assert render.prompts(update("a", "b"), VIEWS).count("Q: hi") == 1


def test_the_head_names_what_is_loaded():
    base = BaseFacts("smol <b>", 134_515_008, 30, "cpu", "float32", 2048, True, 9)
    facts = CheckpointFacts("qa", "folder", "bitune", "LoRA", 4_884_540, None, {})
    html = render.head(base, {"qa": facts}, VIEWS)
    for words in ("smol &lt;b&gt;", "135M parameters", "30 layers", "cpu, float32", "1 checkpoint", "4.88M trained parameters"):
        assert words in html
    assert "No checkpoint is loaded" in render.head(base, {}, VIEWS)


def test_views_keep_their_colours_and_order():
    two = MixingRatios.constant(2, 0.5)
    variants = {
        "base": BASE.with_mixing(None),
        "lora": METHODS["lora"].with_mixing(None),
        "mine": METHODS["bitune"].with_mixing(two),
        "own": METHODS["only_causal"].with_mixing(two),
    }
    checkpoint = CheckpointFacts("mine", "folder", "bitune", "LoRA", 1, None, {})
    views = views_of(variants, {"mine": checkpoint, "lora": CheckpointFacts("lora", "folder", "lora", "LoRA", 1, None, {})})
    assert [view.colour for view in views.values()] == [0, 1, 2, 3]
    assert views["mine"].passes == ("causal", "bidirectional")
    assert views["base"].about == "reads once, as it came"
    assert views["lora"].about == "reads once, with a trained adapter"
    assert views["own"].about == "reads twice and mixes"
    assert in_order(["own", "ghost", "base"], views) == ["base", "own", "ghost"]
    assert {colour_of(index) for index in range(1, 20)} == {1, 2, 3, 4, 5}


def test_drawings_show_what_each_pass_sees():
    assert passes_icon(["causal"]).count('class="bt-causal"') == 10
    assert passes_icon(["bidirectional"]).count('class="bt-bidirectional"') == 16
    assert passes_icon(["anticausal"]).count('class="bt-unseen"') == 6
    assert passes_icon(["causal", "bidirectional"]).count("<svg") == 2
    assert way_of_a_prompt().count("<figure>") == 4
