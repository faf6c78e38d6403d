"""What every tab is made of: text arrives as it is and runs nothing, the head names what is loaded, variants keep their colours."""

from html import unescape
from types import SimpleNamespace

import pytest

from app.ui.markdown import card
from app.ui.templates import chip, environment, faithful, problem, render
from app.ui.variants import VariantView, colour_of, in_order, trained_on, views_of, with_what_ifs
from bitune.schema.results import BaseFacts, CheckpointFacts
from bitune.schema.variants import BASE, METHODS, MixingRatios
from tests.app.compare.test_html import HOSTILE, VIEWS


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_problems_are_shown_as_they_are(text):
    for html in (problem(text), chip(VariantView(text, "", (), 1))):
        assert text in unescape(html)
        assert "<img" not in html
        assert "<script" not in html


def passes_icon(passes: list[str]) -> str:
    return environment.get_template("ui/figures.html").module.passes_icon(passes)


def test_control_characters_become_visible():
    assert faithful("a\x00b\x1b[31m\x7f\r\n\tc") == "a␀b␛[31m␡␍\n\tc"


def test_the_head_names_what_is_loaded():
    base = BaseFacts("smol <b>", 134_515_008, 30, "cpu", "float32", 2048, True, 9)
    facts = CheckpointFacts("qa", "folder", "bitune", "LoRA", 4_884_540, None, {})
    cards = {"qa": card("---\nlicense: mit\n---\n# Of **qa**\n<script>alert(1)</script> [x](javascript:alert(1))")}
    html = render("ui/loaded.html", base=base, checkpoints={"qa": facts}, views=VIEWS, cards=cards)
    assert "<h4>Of <strong>qa</strong></h4>" in html and "license" not in html
    assert "<script" not in html and "href" not in html
    for words in ("smol &lt;b&gt;", "135M parameters", "30 layers", "cpu, float32", "1 checkpoint", "4.88M trained parameters"):
        assert words in html
    assert "No checkpoint is loaded" in render("ui/loaded.html", base=base, checkpoints={}, views=VIEWS)
    assert render("ui/head.html").count("<figure>") == 4


def test_until_then_it_says_what_is_being_done_or_why_it_failed():
    loading = render("ui/loading.html", words="Loading <x>: 3 s", problem=None)
    assert "Loading &lt;x&gt;: 3 s" in loading and 'role="status"' in loading
    failed = render("ui/loading.html", words="Loading ...", problem="The base <x> is damaged.", goes_on=False)
    assert "The base &lt;x&gt; is damaged. Nothing runs here any more" in failed and 'role="alert"' in failed
    followed = render("ui/loading.html", words="Loading ...", problem="The base is damaged.", goes_on=True)
    assert "The base is damaged." in followed and "Nothing runs" not in followed


def test_views_keep_their_colours_and_order():
    two = MixingRatios.constant(2, 0.5)
    variants = {
        "base": BASE.with_mixing(None),
        "lora": METHODS["lora"].with_mixing(None),
        "mine": METHODS["bitune"].with_mixing(two),
        "own": METHODS["only_causal"].with_mixing(two),
    }
    checkpoint = CheckpointFacts("mine", "folder", "bitune", "LoRA", 1, None, {})
    checkpoints = {"mine": checkpoint, "lora": CheckpointFacts("lora", "folder", "lora", "LoRA", 1, None, {})}
    views = views_of(
        SimpleNamespace(variants=variants, checkpoints=checkpoints, places={"base": 0, "lora": 1, "mine": 3, "own": 4})
    )
    assert [view.colour for view in views.values()] == [0, 1, 3, 4], "by the place in the engine, which has lost a checkpoint"
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


def test_what_a_checkpoint_was_trained_on_is_told_where_it_says_so():
    assert trained_on({"data": {"sources": ["folder/arc_easy.train.jsonl", "t0.train.jsonl"]}}) == "trained on arc_easy and t0"
    assert trained_on({"data": {"sources": ["one"]}}) == "trained on one"
    assert trained_on({"data": {"sources": list("abcdef")}}) == "trained on a, b, c, d and more"
    for other in ({}, {"data": []}, {"data": {"sources": "text"}}, {"data": {"sources": [1]}}, {"data": {"sources": []}}):
        assert trained_on(other) == ""


def test_a_what_if_has_the_colour_of_its_checkpoint_and_a_pattern_of_its_own():
    what_ifs = {name: {"of": "qa", "colour": colour} for colour, name in enumerate(("one", "two"))}
    views = with_what_ifs(VIEWS, what_ifs)
    assert {views[name].colour for name in ("qa", "one", "two")} == {1}
    assert [views[name].pattern for name in what_ifs] == [1, 2]
    assert "bt-v1 bt-what-if bt-p2" in chip(views["two"]) and "bt-p" not in chip(views["qa"])
