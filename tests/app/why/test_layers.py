"""Which layers matter, and what they would say, without a page: requests on a real tiny engine, words, shades and charts."""

import json
import re
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import pytest

from app.compare.handlers import CompareHandlers
from app.ui.plots import COLOURS, drawn
from app.why import layers_api, layers_view
from app.why.layers_run import EffectsRequest, mixing_of, screen_of
from app.why.layers_view import effects_chart, effects_html, signed
from app.why.lens_run import LensRequest, label_of, parting_place, tokens_of
from app.why.lens_view import exact, first_place, lens_chart, lens_html, powers
from app.why.run import run_of
from app.why.signs import Written, labelled
from bitune.data.encoding import text_ids
from bitune.errors import ConfigError, PromptError
from bitune.inference.layers import layer_lens, stream_mixing_effects
from bitune.schema.layers import Guess, LayerEffects, LayerReading, MixingEffects
from tests.app.ui import visiting
from tests.browser.served import tiny_engine

NASTY = "</script><img src=x onerror=alert(1)> ${1+1} {{7*7}}"
EFFECTS = MixingEffects(
    -3.5,
    -2.0,
    None,
    LayerEffects((-1.0, None), (0.25, None), (0.0, None), (-0.125, None)),
    (-4.0, 2.0, None),
    ("<b>", " hi\n", "there", "?"),
    (" honey",),
)


PROMPT = [Written("<b>", "<b>"), Written(" hi↵\n", "␣hi↵"), Written("there", "there"), Written("?", "?")]


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return CompareHandlers(tiny_engine(tmp_path_factory.mktemp("tiny")), {})


@pytest.fixture(scope="module")
def ended(handlers):
    """A run of three variants."""
    options = {"template": "own", "max_new_tokens": 6, "temperature": 0, "top_p": 1, "seed": 0}
    return run_of(visiting.run(handlers, prompt="Is <b> tall?", variants=["base", "lora", "bitune"], **options)[-1])


# --- effects ------------------------------------------------------------------------------------------------------------


def test_effects_are_the_engines_on_the_very_tokens_of_the_run(handlers, ended):
    shown = visiting.run(EffectsRequest(handlers), run=ended, of="bitune")
    assert [screen.running for screen in shown] == [True] * (len(shown) - 1) + [False]
    answer = ended.answers["bitune"]
    *_, expected = stream_mixing_effects(handlers.engine, "Is <b> tall?", "bitune", answer)
    assert shown[-1].effects == expected
    undone = next(bar for bar in shown[-1].chart.data if bar.xaxis == "x2" and "first" in bar.name)
    assert list(undone.y) == list(expected.layers.undone_values)
    text = unescape(re.sub(r"<[^>]*>", "", re.search(r'<div class="bt-shaded-prompt".*?</div>', shown[-1].html, re.S)[0]))
    assert text.replace("↵", "").strip("\n") == "".join(expected.prompt), "the prompt reads as it was"


def test_only_a_variant_that_mixes_is_measured(handlers, ended):
    assert mixing_of(ended) == ["bitune"]
    assert visiting.run(EffectsRequest(handlers), run=ended, of="lora")[-1].effects is not None
    (_, refused) = visiting.run(EffectsRequest(handlers), run=None, of=None)
    assert "mixes two readings" in refused.html


def test_what_was_stopped_keeps_what_was_measured(handlers):
    request = EffectsRequest(handlers)
    kept = request.finish(screen_of(EFFECTS, PROMPT, running=True))
    assert not kept.running
    assert "Measured so far: 7 of 13" in kept.html
    assert "Stopped before anything" in request.finish(request.announce()).html


def test_tokens_are_shaded_by_the_largest_change_and_named():
    text = effects_html(EFFECTS, PROMPT)
    tokens = re.findall(
        r'<span class="bt-shaded([^"]*)" style="--share: ([\d.]+)"[^>]*data-note="([^"]*)"[^>]*>([^<]*)</span>', text
    )
    assert [(kind.strip(), share, note, unescape(said)) for kind, share, note, said in tokens] == [
        ("bt-loses", "1.000", "−4.00", "<b>"),
        ("bt-gains", "0.500", "+2.00", " hi↵\n"),
        ("", "0.000", "–", "there"),
        ("", "0.000", "–", "?"),
    ]
    assert text.count('tabindex="0"') == 3, "the tokens and both tables are a stop each"
    assert signed(-0.004) == "−0.00"
    assert unescape(text).count("<code>␣hi↵</code>") == 1


def test_shades_of_tokens_have_neither_the_colours_of_the_passes_nor_of_variants():
    styles = (Path(layers_view.__file__).parent / "layers.css").read_text(encoding="utf-8")
    rules = re.findall(r"^(?:\.bt-loses|\.bt-gains|\.bt-mark)[^{]*{[^}]*}", styles, re.M)
    assert len(rules) == 3 and set(re.findall(r"var\(--bt-([\w-]+)\)", "".join(rules))) == {"ink", "sheet"}
    words = re.sub(r"<[^>]*>", "", effects_html(EFFECTS, PROMPT))
    assert "Shaded: the answer becomes less likely" in words and "Underlined: more likely" in words


def test_tokens_of_the_prompt_that_are_part_of_a_character_show_their_bytes(handlers):
    options = {"template": "own", "max_new_tokens": 2, "temperature": 0, "top_p": 1, "seed": 0}
    run = run_of(visiting.run(handlers, prompt="€?", variants=["bitune"], **options)[-1])
    text = visiting.run(EffectsRequest(handlers), run=run, of="bitune")[-1].html
    row = re.search(r'<div class="bt-shaded-prompt".*?</div>', text, re.S)[0]
    assert "€‥‥?" in "".join(re.findall(r">([^<]*)</span>", row)), "the prompt can still be read"
    assert all(f"<code>{escape(byte)}</code>" in text for byte in ("<0xE2>", "<0x82>", "<0xAC>"))
    assert "is a token that is only part of a character" in text and "‥ on each of the others" in text


def test_the_chart_shows_what_is_measured():
    figure = json.loads(effects_chart(EFFECTS).to_json())
    assert [bar["y"] for bar in figure["data"]] == [[-1.0, None], [0.0, None], [0.25, None], [-0.125, None]]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < -1.0 and high > 0.25, "every bar ends on the axis"
    assert figure["layout"]["yaxis2"]["range"] == [low, high]
    assert [bar["marker"]["color"] for bar in figure["data"]] == [COLOURS["causal"], COLOURS["bidirectional"]] * 2
    nothing = MixingEffects(-3.5, None, None, LayerEffects(*[(None, None)] * 4), (None,), ("a", "b"), ("c",))
    assert drawn(effects_chart(nothing), "file")["visible"] is False


def test_the_work_is_all_that_is_read(handlers, ended, monkeypatch):
    work = EffectsRequest(handlers).work(ended, "bitune")
    tokens, answer = len(handlers.engine.prompt_ids("Is <b> tall?", "bitune")), len(ended.answers["bitune"])
    wanted = 2 * tokens + (2 + 4 * 4 + tokens) * answer
    assert wanted <= work.reading < wanted + tokens + answer
    monkeypatch.setattr("app.why.layers_run.MAX_READ", 300)
    with pytest.raises(PromptError, match="A prompt of 400 tokens and an answer of 2 are 1,6"):
        layers_api.work_of_layers(handlers)(prompt="y" * 400, variant="bitune", answer="no", template="none", what_ifs=None)


# --- the lens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "place"),
    [([(1, 2, 3)], 0), ([(1, 2, 4)], 2), ([(1, 2)], 2), ([(1, 2, 3), (1, 9)], 1), ([(1, 2, 3, 4)], 0), ([], 0)],
)
def test_an_answer_is_followed_where_it_parts_from_another(ended, others, place):
    answers = {"bitune": (1, 2, 3), **{f"other {number}": tokens for number, tokens in enumerate(others)}}
    assert parting_place(replace(ended, answers=answers), "bitune") == place


def test_the_lens_follows_one_answer_on_every_cache(handlers, ended):
    last = visiting.run(LensRequest(handlers), run=ended, of="bitune", place=2)[-1]
    expected = layer_lens(handlers.engine, "Is <b> tall?", ["base", "lora", "bitune"], ended.answers["bitune"], 2)
    assert not last.running
    for line, one in zip(last.chart.data, expected, strict=True):
        assert list(line.y) == pytest.approx(list(one.probabilities), rel=1e-5)  # computed twice: seen 3e-7 apart
    assert [line.line.dash for line in last.chart.data] == ["solid", "solid", "solid", "dot"]
    assert last.html.count("<td ") == 4 * 4
    labels = tokens_of(handlers, ended, "bitune")
    assert [place for _, place in labels] == list(range(len(ended.answers["bitune"])))
    assert labels[2][0] == f"3: {label_of(handlers, ended.answers['bitune'][2])}"
    assert f"<code>{escape(label_of(handlers, ended.answers['bitune'][2]))}</code>" in last.html


def test_a_place_that_is_gone_is_the_first_one(handlers, ended):
    asked = LensRequest(handlers)
    first, other = (visiting.run(asked, run=ended, of=of, place=place)[-1] for of, place in (("base", 0), ("ghost", 99)))
    assert first.html == other.html
    assert "no answer on the page" in visiting.run(asked, run=None, of=None, place=None)[-1].html


def reading_of(probabilities, likeliest, variant="bitune", cache="own"):
    """A reading whose likeliest token after each layer has these probabilities."""
    return LayerReading(variant, cache, "x", tuple(probabilities), tuple((Guess(7, " ", value),) for value in likeliest))


def write(token: int, text: str) -> str:
    """As the page does, where token 9 is the first byte of two of a character."""
    return labelled(token, text, {9: "Ã"}.get)


@pytest.mark.parametrize(
    ("probabilities", "likeliest", "layer"),
    [
        ([0.1, 0.5, 0.6], [0.2, 0.5, 0.6], 1),
        ([0.2, 0.1, 0.6], [0.2, 0.5, 0.6], 2),
        ([0.2, 0.5, 0.1], [0.2, 0.5, 0.6], None),
        ([0.2, 0.5], [0.2, 0.5], 0),
    ],
)
def test_first_place_is_taken_where_it_is_kept(probabilities, likeliest, layer):
    assert first_place(reading_of(probabilities, likeliest)) == layer


def test_a_sentence_says_from_which_layer_on_the_followed_token_is_the_likeliest(ended):
    early, late = reading_of([0.5, 0.6], [0.5, 0.6]), reading_of([0.1, 0.6], [0.5, 0.6], "base")
    never = reading_of([0.1, 0.1], [0.5, 0.6], cache="first_pass")
    text = re.sub(r"<[^>]*>", "", lens_html([late, early, never], ended.views, "x", write))
    assert (
        "likeliest token: from layer 0 on in bitune; from layer 1 on in base; not after the last layer in bitune (first reading alone)."
        in text
    )


def test_the_chart_tells_small_probabilities_apart(ended):
    figure = lens_chart([reading_of([2e-6, 0.0, 3e-3, 0.9], [1, 1, 1, 1])], ended.views)
    axis = figure.layout.yaxis
    assert axis.type == "log" and axis.ticktext[:3] == ("100 %", "1 %", "0.01 %")
    low, high = axis.range
    assert all(10**low <= value <= 10**high for value in figure.data[0].y), "all that is drawn is on the axis"
    assert list(figure.data[0].customdata) == ["0.0002 %", "0 %", "0.3 %", "90 %"]


@pytest.mark.parametrize(
    ("least", "marked"),
    [(1.0, [0, -2]), (0.5, [0, -2]), (2e-6, [0, -2, -4, -6]), (1e-12, [0, -2, -4, -6, -8, -10, -12])],
)
def test_marks_of_the_scale(least, marked):
    assert powers(least) == marked


def test_probabilities_in_percent():
    assert [exact(value) for value in (1.0, 0.5, 0.0123, 1e-4, 1e-8, 0.0)] == [
        "100 %",
        "50 %",
        "1.2 %",
        "0.01 %",
        "0.000001 %",
        "0 %",
    ]


def test_model_text_stays_text(ended):
    guesses = ((Guess(7, NASTY, 0.5), Guess(8, "\n", 0.001), Guess(9, "\ufffd", 0.0001)),)
    reading = LayerReading("bitune", "first_pass", NASTY, (0.75,), guesses)
    shown = lens_html([reading], ended.views, NASTY, write)
    assert "<img" not in shown
    assert (
        unescape(re.search(r'data-note="([^"]*)"', shown)[1])
        == f"{NASTY.replace(' ', '␣')} 50 %, ↵ <1 %, <0xC3> <1 %; followed: 75 %"
    )
    assert "<img" not in effects_html(
        MixingEffects(-1, 0, 0, EFFECTS.layers, (0.5,), (NASTY, NASTY), (NASTY,)), [Written(NASTY, NASTY)] * 2
    )
    assert lens_chart([reading], ended.views).data[0].name == "bitune, first reading alone"


# --- for programs -------------------------------------------------------------------------------------------------------


def test_layers_for_programs_is_plain(handlers):
    call = layers_api.layers_function(handlers)
    found = call("Is it tall?", "bitune", "yes")
    (answer,) = text_ids(["yes"], handlers.engine.base.tokenizer)
    *_, expected = stream_mixing_effects(handlers.engine, "Is it tall?", "bitune", answer)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == set(layers_api.LayersAnswer.__annotations__)
    assert found["undone_keys"] == list(expected.layers.undone_keys)
    assert found["tokens"] == list(expected.tokens)
    what_ifs = {"half": {"of": "bitune", "keys": [0.5] * 4, "values": [0.5] * 4}}
    assert call("Is it tall?", "half", "yes", what_ifs=what_ifs)["log_probability"] != found["log_probability"]
    with pytest.raises(ConfigError, match="answer must be text"):
        call("Is it tall?", "bitune", 3)


def test_the_lens_for_programs_is_plain(handlers):
    found = layers_api.lens_function(handlers)("Is it tall?", ["base", "bitune"], "yes", 1)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == set(layers_api.LensAnswer.__annotations__)
    assert [(one["variant"], one["cache"], one["token"]) for one in found["readings"]] == [
        ("base", "own", "e"),
        ("bitune", "own", "e"),
        ("bitune", "first_pass", "e"),
    ]
    assert all(set(one) == set(layers_api.LayerReadingValue.__annotations__) for one in found["readings"])
    assert (
        layers_api.work_of_lens_call(handlers)(
            prompt="Is it tall?", variants=["base"], answer="yes", position=1, template="own", what_ifs=None
        ).passes
        == 2
    )
