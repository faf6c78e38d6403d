"""The tab Mixing without a page: figures against their numbers, words where there is nothing, requests on a real tiny engine."""

import json
import re
from html import escape, unescape
from itertools import pairwise

import pytest

from app.mixing.charts import factor_in_words, heat, loss_panel, sweep, ticks, training
from app.mixing.figures import Channel, desk, editor
from app.mixing.handlers import MixingHandlers, SweepScreen
from app.mixing.log import for_programs, series, thinned
from app.page import build_page
from app.ui.variants import VariantView
from bitune import Engine
from bitune.errors import ConfigError, DataError, PromptError, UnknownNameError
from bitune.inference.sweep import sweep as swept
from bitune.schema.results import Completion, SweepPoint
from bitune.schema.variants import MixingRatios
from tests.browser.served import TEMPLATE, tiny_folders
from tests.tiny import bitune_on, tiny_base

NASTY = "</script><img src=x onerror=alert(1)> ${1+1} {{7*7}}"
VIEW = VariantView("qa", "reads twice", ("causal", "bidirectional"), 1)
RATIOS = MixingRatios((0.0, 0.123456, 1.0), (0.5, 0.25, 0.75))


def entry(step: int, alpha: float, **more) -> dict:
    return {"step": step, "alpha_k": [alpha, 0.5, 1.0], "alpha_v": [0.0, alpha, 0.25], **more}


LOG = [
    entry(1, 0.5, loss=3.0),
    entry(10, 0.4, loss=2.0, learning_rate=1e-3),
    entry(10, 0.4, eval_loss=1.5),
    entry(20, 0.1, loss=1.0),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A LoRA, a Bitune with a log, and one of a nasty name without."""
    folder = tiny_folders(tmp_path_factory.mktemp("tiny"))
    log = [{"step": step, "loss": 3 / step, "alpha_k": [0.5] * 4, "alpha_v": [1 / step] * 4} for step in (1, 2, 4)]
    (folder / "bitune" / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "lora" / "training_log.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 3, "loss": 0.5}\n')
    engine = Engine(tiny_base())
    for method in ("lora", "bitune"):
        engine.add_checkpoint(folder / method)
    base = tiny_base()
    model = bitune_on(base, "bitune", seed=5, prompt_template=TEMPLATE)
    model.save_pretrained(folder / "nasty")
    engine.add_checkpoint(folder / "nasty", name=NASTY)
    return engine


@pytest.fixture
def handlers(engine):
    return MixingHandlers(engine)


def bars(html: str) -> list[float]:
    return [float(a) / 100 for a in re.findall(r'class="bt-bar[^"]*" style="--a:([\d.]+)', html)]


def test_the_bars_are_the_ratios():
    html = desk([Channel(VIEW, RATIOS), Channel(VIEW, RATIOS.scaled(0))])
    wanted = [value for layer in zip(RATIOS.keys, RATIOS.values, (0,) * 3, (0,) * 3, strict=True) for value in layer]
    assert bars(html) == pytest.approx(wanted, abs=1e-4)
    assert re.findall(r"<output>([\d.]+)</output>", html) == [f"{value:.2f}" for value in wanted]
    assert html.count("<tr>") == 2 + 3


def test_the_longest_way_fills_its_bar():
    html = desk([Channel(VIEW, RATIOS, ([0.1, None, 0.4], [0.2, 0.0, 0.3]))])
    assert re.findall(r"width:([\d.]+)%", html) == ["25.00", "50.00", "0.00", "100.00", "75.00"]
    assert html.count("<output>–</output>") == 1, "a layer that keeps nothing of the prompt"


def test_the_faders_keep_every_digit_and_show_what_was_learned():
    html = editor(VIEW, RATIOS.scaled(0), RATIOS, 1)
    assert bars(html) == [0.0] * 6
    assert [float(x) for x in re.findall(r"--learned:([\d.]+)", html)] == [0.0, 50.0, 12.35, 25.0, 100.0, 75.0]
    exact = re.findall(r'data-exact="([^"]+)" data-kind="keys"', editor(VIEW, RATIOS, RATIOS, 2))
    assert tuple(map(float, exact)) == RATIOS.keys
    assert editor(VIEW, RATIOS, RATIOS, 1) != editor(VIEW, RATIOS, RATIOS, 2), "drawn anew each time"


def cells(svg: str) -> dict[tuple[int, float], float]:
    """(layer, left edge) -> ratio of every rectangle, and its right edge under (layer, -1 - left)."""
    found = {}
    for level, way in re.findall(r'--a:(\d+)" d="([^"]+)"', svg):
        for left, layer, right in re.findall(r"M([\d.]+) (\d+)H([\d.]+)v1", way):
            found[int(layer), float(left), float(right)] = int(level) / 100
    return found


def test_heat_maps_show_every_ratio_at_its_step():
    found = series(LOG, 3)
    assert found.steps == (1, 10, 20)
    assert found.loss == ((1, 3.0), (10, 2.0), (20, 1.0))
    assert found.eval_loss == ((10, 1.5),)
    drawn = cells(heat(found.keys, [0, *found.steps], 20, "Keys"))
    assert drawn == {(0, 0, 1): 0.5, (0, 1, 10): 0.4, (0, 10, 20): 0.1, (1, 0, 20): 0.5, (2, 0, 20): 1.0}
    html = training(VIEW, found)
    assert html.count("<svg") == 3
    assert ">Values<" in html
    assert "Step" in html


def test_a_long_training_stays_small():
    log = [entry(step, (step % 101) / 100, loss=step % 7) for step in range(1, 5000)]
    html = training(VIEW, series(log, 3))
    assert len(html) < 60_000
    assert thinned(range(1000), 10) == list(range(99, 1000, 100))
    assert thinned(range(3), 10) == [0, 1, 2]


@pytest.mark.parametrize(
    "log",
    [
        "text",
        [3],
        [{"step": "1"}],
        [{"step": -1}],
        [{"step": True}],
        [{"loss": 1.0}],
        [{"step": 1, "alpha_k": [0.5] * 3}],
        [{"step": 1, "alpha_k": [0.5] * 2, "alpha_v": [0.5] * 3}],
        [{"step": 1, "alpha_k": [0.5, NASTY, 0.5], "alpha_v": [0.5] * 3}],
        [{"step": 1, "alpha_k": [0.5, float("nan"), 0.5], "alpha_v": [0.5] * 3}],
        [{"step": 1, "alpha_k": [10**400, 0.5, 0.5], "alpha_v": [0.5] * 3}],
    ],
)
def test_a_damaged_log_is_refused(log):
    with pytest.raises(DataError):
        series(log, 3)


def test_a_loss_that_is_no_number_is_a_gap():
    log = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": NASTY}, {"step": 3, "loss": 10**400}, {"step": 4, "loss": 1}]
    assert series(log, 3).loss == ((4, 1.0),)
    assert for_programs(log) == {"step": [1, 2, 3, 4], "loss": [None, None, None, 1]}
    assert "no loss" in loss_panel(series([], 3))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.03, 2.9), (-17.2, -0.4), (1e-9, 3e-9), (0, 54321), (2, 2)])
def test_ticks_are_round_and_span_what_is_drawn(low, high):
    found = ticks(low, high, 3)
    assert found[0] <= low <= high <= found[-1] or low == high
    assert len(found) <= 8
    assert all(a < b for a, b in pairwise(found))


def point(factor: float, text: str, log_probability: float | None, reason="eos") -> SweepPoint:
    return SweepPoint(factor, Completion("x", text, 1, 0.1, None, reason), log_probability)


def test_a_sweep_is_a_curve_and_a_row_for_each_factor():
    html = sweep(VIEW, [point(0, "a wooden spoon", -3.0), point(1, "a copper wire", -1.0), point(2, NASTY, -2.5)])
    assert "−3.00" in html
    assert html.count("<tr") == 1 + 3
    assert "<mark>wooden spoon</mark>" in html
    assert "<img" not in html and "onerror" in unescape(html)
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", re.search(r'd="(M[^"]+)"', html)[1])]
    assert ys[1] < ys[2] < ys[0], "higher is likelier"
    early = sweep(VIEW, [point(0, "", None, None), point(1, "a", None, None)])
    assert "<svg" not in early and "bt-running" in early
    assert "bt-running" not in sweep(VIEW, [point(0, "", None, None)], stopped=True)
    assert [factor_in_words(f) for f in (0, 0.25, 1, 1.75, 2)] == [
        "causal only", "75% towards causal", "learned", "75% towards bidirectional", "bidirectional only",
    ]  # fmt: skip


def test_the_desk_shows_the_checkpoints_alphas(handlers, engine):
    html = handlers.desk(["lora", "bitune"], {})
    learned = engine.mixing("bitune")
    assert bars(html) == pytest.approx([v for pair in zip(learned.keys, learned.values, strict=True) for v in pair], abs=1e-4)
    assert "lora reads the prompt once and mixes nothing" in html
    assert "choose at least one" in handlers.desk([], {})
    assert "--checkpoint" in MixingHandlers(Engine(tiny_base())).desk([], {})


def test_nasty_names_are_text(handlers):
    for html in (
        handlers.desk([NASTY], {}),
        handlers.training([NASTY]),
        handlers.editor(NASTY),
        handlers.add({}, NASTY, 3).words,
    ):
        assert "<img" not in html and "<script" not in html
    added = handlers.add({}, NASTY, {"keys": [0] * 4, "values": [0] * 4})
    assert escape(f"{NASTY}: causal only") in added.words
    assert escape(NASTY) in handlers.shown(added.what_ifs)[0]
    assert NASTY not in handlers.colours(added.what_ifs)


def test_a_training_or_words(handlers, engine, monkeypatch):
    assert handlers.training(["bitune"]).count("<svg") == 3
    assert handlers.training(["lora"]).count("<svg") == 1, "nothing is mixed, but the loss fell"
    assert "without a training log" in handlers.training([NASTY])
    monkeypatch.setattr(engine, "training_log", lambda name: json.loads("[1]"))
    assert "cannot be read" in handlers.training(["bitune"])
    monkeypatch.setattr(engine, "training_log", lambda name: json.loads("no json"))
    assert "not JSON" in handlers.training(["bitune"])


def test_how_far_a_prompt_is_moved(handlers, engine):
    moved, said = handlers.measure("hello you", handlers.checkpoints, "own")
    maps = engine.attention("hello you", "bitune")
    assert moved["bitune"][0] == pytest.approx(maps.moved_keys.mean(1))
    assert moved["bitune"][1] == pytest.approx(maps.moved_values.mean(1))
    assert set(moved) == {"bitune", NASTY}
    assert "average" in said
    assert handlers.desk(["bitune"], moved).count("bt-length") == 2 * 4
    assert handlers.measure("x", ["bitune"], "none")[0]["bitune"] == ([None] * 4, [None] * 4), "the one token is the answer's"


@pytest.mark.parametrize(
    ("prompt", "chosen", "template", "words"),
    [
        ("", ["bitune"], "own", "empty"),
        (None, ["bitune"], "own", "empty"),
        ("x" * 1_000_000, ["bitune"], "own", "shorten"),
        ("a\x00b", ["bitune"], "own", "control"),
        ("hi", ["lora"], "own", "None of the chosen"),
        ("hi", ["bitune"], "mine", "no template"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(handlers, prompt, chosen, template, words):
    moved, said = handlers.measure(prompt, chosen, template)
    assert moved == {}
    assert words in said
    *_, last = handlers.sweep(prompt, chosen[0], template)
    assert 'role="alert"' in last.html
    assert not last.running


def test_a_prompt_too_long_to_measure(handlers, monkeypatch):
    monkeypatch.setattr("app.mixing.handlers.MAX_TOKENS", 4)
    with pytest.raises(PromptError, match="up to 4"):
        handlers.moved("hello you", "bitune", "own")
    *_, last = handlers.sweep("hello you", "bitune", "own")
    assert "up to 4" in last.html


def test_a_page_without_anything_mixed_still_stands(engine):
    assert build_page(Engine(tiny_base()), {})
    few = Engine(tiny_base())
    few.add_checkpoint(engine.checkpoints["lora"].source)
    assert build_page(few, {})


def test_presets_and_layers_set_the_faders(handlers, engine):
    learned = engine.mixing("bitune")
    assert bars(handlers.editor("bitune", "causal only")) == [0.0] * 8
    assert bars(handlers.editor("bitune", "half and half")) == [0.5] * 8
    drawn, said = handlers.editor_with_layers("bitune", 1, 2, 0.75)
    wanted = learned.with_layers(1, 2, 0.75)
    assert bars(drawn) == pytest.approx([v for pair in zip(wanted.keys, wanted.values, strict=True) for v in pair], abs=1e-4)
    assert said == ""
    for values in ((2, 1, 0.5), (0, 9, 0.5), (0, 1, 7), (None, 1, 0.5), (0, 1, float("nan"))):
        drawn, said = handlers.editor_with_layers("bitune", *values)
        assert drawn is None
        assert 'role="alert"' in said


def test_what_ifs_come_and_go(handlers, engine):
    none = {"keys": [0] * 4, "values": [0] * 4}
    added = handlers.add({}, "bitune", none)
    assert added.what_ifs == {"bitune: causal only": {"of": "bitune", "keys": [0.0] * 4, "values": [0.0] * 4, "colour": 0}}
    assert added.name == "bitune: causal only"
    assert "already" in handlers.add(added.what_ifs, "bitune", none).words
    assert handlers.remove(added.what_ifs, 0).what_ifs == {}
    assert "bitune: causal only" not in engine.variants
    for of, curve in (("lora", none), ("ghost", none), ("bitune", None), ("bitune", {"keys": [0], "values": [0]})):
        refused = handlers.add({}, of, curve)
        assert (refused.what_ifs, refused.name) == ({}, None)
        assert 'role="alert"' in refused.words


def test_a_sweep_streams_ends_and_settles(handlers, engine):
    screens = list(handlers.sweep("hello", "bitune", "own"))
    assert [screen.running for screen in screens] == [True] * (len(screens) - 1) + [False]
    wanted = swept(engine, "hello", "bitune")
    assert [p.completion.text for p in screens[-1].points] == [p.completion.text for p in wanted]
    assert screens[-1].html.count("<tr") == 1 + 9
    assert "<svg" in screens[-1].html
    assert handlers.settle_sweep(screens[-1]) is screens[-1]
    stopped = handlers.settle_sweep(screens[0])
    assert not stopped.running and "bt-running" not in stopped.html
    assert "before the first token" in handlers.settle_sweep(handlers.announce_sweep()).html
    assert handlers.settle_sweep(SweepScreen("")).html == ""


def test_answers_for_programs_are_plain_json(handlers, engine):
    answer = handlers.answer(None, "", "own")
    assert json.loads(json.dumps(answer)) == answer
    assert list(answer) == ["lora", "bitune", NASTY]
    assert answer["bitune"]["keys"] == list(engine.mixing("bitune").keys)
    assert answer["bitune"]["training_log"]["alpha_v"] == [[1.0] * 4, [0.5] * 4, [0.25] * 4]
    assert answer["lora"] == {
        "method": "lora", "keys": None, "values": None, "moved_keys": None, "moved_values": None,
        "training_log": {"step": [1, 3], "loss": [2.5, 0.5]},
    }  # fmt: skip
    moved = handlers.answer(["bitune"], "hello", "own")["bitune"]
    assert len(moved["moved_keys"]) == len(moved["moved_values"]) == 4
    with pytest.raises(UnknownNameError, match="ghost"):
        handlers.answer(["ghost"], "", "own")
    with pytest.raises(ConfigError, match="list of names"):
        handlers.answer("bitune", "", "own")
