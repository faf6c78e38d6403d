"""The tab Mixing without a page: figures against their numbers, words where there is nothing, requests on a real tiny engine."""

import json
import re
from html import escape, unescape

import pytest

from app.mixing.charts import (
    MovedColumn,
    RatioColumn,
    factor_in_words,
    losses,
    moved_by_layer,
    ratios_by_layer,
    ratios_over_training,
    sweep_curve,
    thinned,
)
from app.mixing.handlers import MixingHandlers
from app.mixing.html import moved_table, ratio_table, sliders, sweep_table
from app.mixing.requests import MeasureRequest, SweepRequest
from app.mixing.training_log import read_log
from app.page import build_page
from app.ui.plots import COLOURS, drawn
from app.ui.variants import VariantView
from bitune import Engine
from bitune.errors import BituneError, ConfigError, DataError, UnknownNameError
from bitune.files import parse_lines
from bitune.inference.sweep import sweep as swept
from bitune.schema.results import Completion, SweepPoint
from bitune.schema.variants import MixingRatios
from tests.app.ui import visiting
from tests.browser.served import TEMPLATE, tiny_folders
from tests.closeness import assert_close
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
    html = ratio_table([RatioColumn(VIEW, RATIOS), RatioColumn(VIEW, RATIOS.scaled(0))])
    wanted = [value for layer in zip(RATIOS.keys, RATIOS.values, (0,) * 3, (0,) * 3, strict=True) for value in layer]
    assert_close(bars(html), wanted, allowed=2e-4)  # printed with four digits
    assert re.findall(r"<output>([\d.]+)</output>", html) == [f"{value:.2f}" for value in wanted]
    assert html.count("<tr>") == 2 + 3


def test_the_longest_way_fills_its_bar():
    html = moved_table([MovedColumn(VIEW, [0.1, None, 0.4], [0.2, 0.0, 0.3])])
    assert re.findall(r"width:([\d.]+)%", html) == ["25.00", "50.00", "0.00", "100.00", "75.00"]
    assert html.count("<output>–</output>") == 1, "a layer that keeps nothing of the prompt"
    assert "width" not in moved_table([MovedColumn(VIEW, [None], [None])])


def test_what_was_moved_is_drawn_on_axes_of_one_scale_that_begin_at_nothing():
    other = VariantView(NASTY, "", (), 2)
    figure = moved_by_layer([MovedColumn(VIEW, [0.1, None], [0.2, 0.3]), MovedColumn(other, [None, None], [None, None])])
    assert [list(line.y) for line in figure.data[:2]] == [[0.1, None], [0.2, 0.3]]
    assert [line.name for line in figure.data] == ["qa", "qa", escape(NASTY), escape(NASTY)]
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range and figure.layout.yaxis.range[0] == 0
    assert 0.3 < figure.layout.yaxis.range[1] < 0.4
    assert moved_by_layer([MovedColumn(VIEW, [None], [0.0])]).layout.yaxis.range == (0, 1)


def test_the_sliders_keep_every_digit_and_show_what_was_learned():
    html = sliders(VIEW, RATIOS.scaled(0), RATIOS, 1)
    assert bars(html) == [0.0] * 6
    assert [float(x) for x in re.findall(r"--learned:([\d.]+)", html)] == [0.0, 50.0, 12.35, 25.0, 100.0, 75.0]
    exact = re.findall(r'data-exact="([^"]+)" data-kind="keys"', sliders(VIEW, RATIOS, RATIOS, 2))
    assert tuple(map(float, exact)) == RATIOS.keys
    assert sliders(VIEW, RATIOS, RATIOS, 1) != sliders(VIEW, RATIOS, RATIOS, 2), "drawn anew each time"


def heat_maps(figure) -> list[dict[tuple[int, int], float]]:
    """(layer, step) -> ratio as each heat map draws it."""
    return [
        {(layer, step): alpha for layer, row in enumerate(heat.z) for step, alpha in zip(heat.x, row, strict=True)}
        for heat in figure.data
    ]


def test_heat_maps_show_every_ratio_at_its_step():
    log = read_log(LOG, 3)
    assert [entry.step for entry in log.mixed] == [1, 10, 20]
    assert log.loss == [(1, 3.0), (10, 2.0), (20, 1.0)]
    assert log.eval_loss == [(10, 1.5)]
    figure = ratios_over_training(log)
    keys, values = heat_maps(figure)
    assert keys == {
        (layer, step): ratio
        for layer, row in enumerate(([0.5, 0.4, 0.1], [0.5] * 3, [1.0] * 3))
        for step, ratio in zip((1, 10, 20), row, strict=True)
    }
    assert values == {
        (layer, step): ratio
        for layer, row in enumerate(([0.0] * 3, [0.5, 0.4, 0.1], [0.25] * 3))
        for step, ratio in zip((1, 10, 20), row, strict=True)
    }
    assert [title.text for title in figure.layout.annotations] == ["Keys", "Values"]
    assert figure.layout.xaxis.matches == "x2", "one axis of steps"
    assert figure.layout.xaxis2.title.text == "Step"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert [colour for _, colour in figure.layout.coloraxis.colorscale][::2] == [COLOURS["causal"], COLOURS["bidirectional"]]


def test_losses_of_all_trainings_share_their_axes():
    other = VariantView("other", "", ("causal",), 3)
    logs = {"qa": read_log(LOG, 3), "other": read_log([{"step": 5, "loss": 4.0}], 3)}
    figure = losses(logs, {"qa": VIEW, "other": other})
    assert [(line.name, tuple(zip(line.x, line.y, strict=True)), line.line.dash) for line in figure.data] == [
        ("qa, training", ((1, 3.0), (10, 2.0), (20, 1.0)), "solid"),
        ("qa, held out", ((10, 1.5),), "dash"),
        ("other, training", ((5, 4.0),), "solid"),
    ]
    assert [line.line.color for line in figure.data] == [COLOURS["1"], COLOURS["1"], COLOURS["3"]], "the colours of their chips"
    assert "markers" in figure.data[2].mode, "one point alone is seen"
    assert {line.xaxis for line in figure.data} == {None} and figure.layout.showlegend


def test_lines_by_layer_are_the_ratios():
    figure = ratios_by_layer([RatioColumn(VIEW, RATIOS), RatioColumn(VariantView(NASTY, "", (), 2), RATIOS.scaled(0))])
    assert [line.y for line in figure.data] == [RATIOS.keys, RATIOS.values, (0,) * 3, (0,) * 3]
    assert [line.yaxis for line in figure.data] == ["y", "y2", "y", "y2"], "keys above values"
    assert [line.name for line in figure.data] == ["qa", "qa", escape(NASTY), escape(NASTY)]
    assert figure.layout.xaxis.matches == "x2"
    assert ratios_by_layer([]) is None


def test_a_long_training_stays_small():
    log = read_log([entry(step, (step % 101) / 100, loss=step % 7) for step in range(1, 5000)], 3)
    plots = [drawn(figure, "x")["value"].plot for figure in (ratios_over_training(log), losses({"qa": log}, {"qa": VIEW}))]
    assert sum(map(len, plots)) < 60_000
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
        read_log(log, 3)


def test_a_loss_that_is_no_number_is_a_gap():
    log = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": NASTY}, {"step": 3, "loss": 10**400}, {"step": 4, "loss": 1}]
    assert read_log(log, 3).loss == [(4, 1.0)]
    assert read_log(log, 3).as_json() == {"step": [1, 2, 3, 4], "loss": [None, None, None, 1]}
    assert losses({"qa": read_log([], 3)}, {"qa": VIEW}) is None


def point(factor: float, text: str, log_probability: float | None, reason="eos") -> SweepPoint:
    return SweepPoint(factor, Completion("x", text, 1, 0.1, None, reason), log_probability)


def test_a_sweep_is_a_curve_and_a_row_for_each_factor():
    points = [point(0, "it is a wooden spoon", -3.0), point(1, "it is a copper wire", -1.0), point(2, NASTY, -2.5)]
    html = sweep_table(VIEW, points)
    assert "−3.00" in html
    assert html.count("<tr") == 1 + 3
    assert "<mark>wooden spoon</mark>" in html
    assert "<img" not in html and "onerror" in unescape(html)
    (curve,) = sweep_curve(VIEW, points).data
    assert dict(zip(curve.x, curve.y, strict=True)) == {0: -3.0, 1: -1.0, 2: -2.5}
    assert curve.text == ("causal only", "learned", "bidirectional only")
    assert sweep_curve(VIEW, points).layout.yaxis.autorange is None, "higher is likelier"
    unfinished = [point(0, "", None, None), point(1, "a", None, None)]
    assert sweep_curve(VIEW, unfinished) is None and "bt-running" in sweep_table(VIEW, unfinished)
    assert "bt-running" not in sweep_table(VIEW, [point(0, "", None, None)], stopped=True)
    assert [factor_in_words(f) for f in (0, 0.25, 1, 1.75, 2)] == [
        "causal only", "75% towards causal", "learned", "75% towards bidirectional", "bidirectional only",
    ]  # fmt: skip


def test_the_table_shows_the_checkpoints_alphas(handlers, engine):
    html = handlers.ratio_table(["lora", "bitune"])
    learned = engine.mixing("bitune")
    assert_close(
        bars(html), [v for pair in zip(learned.keys, learned.values, strict=True) for v in pair], allowed=2e-4
    )  # printed with four digits
    assert "lora: the prompt is read once and nothing is mixed" in html
    assert "choose at least one" in handlers.ratio_table([])
    assert "--checkpoint" in MixingHandlers(Engine(tiny_base())).ratio_table([])


def test_nasty_names_are_text(handlers):
    for html in (
        handlers.ratio_table([NASTY]),
        handlers.training([NASTY]).notes,
        handlers.sliders(NASTY),
    ):
        assert "<img" not in html and "<script" not in html
    added = handlers.add({}, NASTY, {"keys": [0] * 4, "values": [0] * 4})
    assert escape(f"{NASTY}: causal only") in added.words
    assert escape(NASTY) in handlers.chips(added.what_ifs)[0]
    assert {line.name for line in handlers.by_layer([NASTY]).data} == {escape(NASTY, quote=False)}


def test_a_training_or_words(handlers, engine, monkeypatch):
    drawn = handlers.training(handlers.checkpoints)
    assert list(drawn.heat_maps) == ["bitune"]
    assert [line.name for line in drawn.losses.data] == ["lora, training", "bitune, training"]
    lora, nasty = re.findall(r"<section.*?</section>", drawn.notes, re.DOTALL)
    assert "lora" in lora and "only the loss" in lora, "nothing is mixed, but the loss fell"
    assert escape(NASTY) in nasty and "without a training log" in nasty
    monkeypatch.setattr(engine, "training_log", lambda name: json.loads("[1]"))
    damaged = handlers.training(["bitune"])
    assert "cannot be read" in damaged.notes and "training_log.jsonl" in damaged.notes
    assert (damaged.heat_maps, damaged.losses) == ({}, None)
    monkeypatch.setattr(engine, "training_log", lambda name: parse_lines("no json", "the log"))
    assert "not JSON" in handlers.training(["bitune"]).notes
    monkeypatch.setattr(engine, "training_log", lambda name: [{"step": 1, "alpha_k": [0.5] * 4, "alpha_v": [0.5] * 4}])
    assert "wrote down no loss" in handlers.training(["bitune"]).notes


def measure(handlers, prompt, chosen, template):
    *_, last = visiting.run(MeasureRequest(handlers), prompt=prompt, chosen=chosen, template=template)
    return last


def sweep(handlers, prompt, of, template):
    return visiting.run(SweepRequest(handlers), prompt=prompt, of=of, template=template)


def test_how_far_a_prompt_is_moved(handlers, engine):
    screen = measure(handlers, "hello you", handlers.checkpoints, "own")
    maps = engine.attention("hello you", "bitune")
    assert_close(screen.moved["bitune"][0], maps.moved_keys.mean(1))
    assert_close(screen.moved["bitune"][1], maps.moved_values.mean(1))
    assert set(screen.moved) == {"bitune", NASTY}
    assert "average" in screen.html and not screen.running
    assert screen.html.count("bt-length") == 2 * 2 * 4
    assert_close(screen.chart.data[0].y, maps.moved_keys.mean(1))
    assert measure(handlers, "x", ["bitune"], "none").moved["bitune"] == ([None] * 4, [None] * 4), "the one token is the answer's"


def test_who_measures_is_told_of_what_and_keeps_what_is_done(handlers):
    request = MeasureRequest(handlers)
    first, second, last = request.run("hello you", handlers.checkpoints, "own")
    assert "Measuring bitune, 1 of 2" in first.html and first.chart is None
    assert f"Measuring {escape(NASTY)}, 2 of 2" in second.html and second.chart is not None
    assert list(second.moved) == ["bitune"] and list(last.moved) == ["bitune", NASTY]
    assert [screen.running for screen in (first, second, last)] == [True, True, False]
    assert "Measuring" not in last.html and "bt-seconds" in first.html
    stopped = request.finish(second)
    assert list(stopped.moved) == ["bitune"] and stopped.chart is not None and not stopped.running
    assert "Measuring" not in stopped.html
    assert "before anything was measured" in request.finish(first).html


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
    screen = measure(handlers, prompt, chosen, template)
    assert screen.moved == {}
    assert words in screen.html and 'role="alert"' in screen.html
    *_, last = sweep(handlers, prompt, chosen[0], template)
    assert 'role="alert"' in last.html
    assert not last.running


def test_a_prompt_too_long_for_a_sweep_can_be_measured(handlers, monkeypatch):
    monkeypatch.setattr("app.mixing.handlers.MAX_TOKENS", 4)
    assert handlers.moved("hello you", ["bitune"], "own")["bitune"]
    *_, last = sweep(handlers, "hello you", "bitune", "own")
    assert "up to 4" in last.html


def test_a_page_without_anything_mixed_still_stands(engine):
    assert build_page(Engine(tiny_base()), {})
    few = Engine(tiny_base())
    few.add_checkpoint(engine.checkpoints["lora"].source)
    assert build_page(few, {})


def test_presets_and_layers_set_the_sliders(handlers, engine):
    learned = engine.mixing("bitune")
    assert bars(handlers.sliders("bitune", "causal only")) == [0.0] * 8
    assert bars(handlers.sliders("bitune", "half and half")) == [0.5] * 8
    drawn = handlers.sliders_with_layers("bitune", 1, 2, 0.75)
    wanted = learned.with_layers(1, 2, 0.75)
    assert_close(
        bars(drawn), [v for pair in zip(wanted.keys, wanted.values, strict=True) for v in pair], allowed=2e-4
    )  # printed with four digits
    for values in ((2, 1, 0.5), (0, 9, 0.5), (0, 1, 7), (None, 1, 0.5), (0, 1, float("nan"))):
        with pytest.raises(ConfigError):
            handlers.sliders_with_layers("bitune", *values)


def test_what_ifs_come_and_go(handlers, engine):
    none = {"keys": [0] * 4, "values": [0] * 4}
    added = handlers.add({}, "bitune", none)
    assert added.what_ifs == {"bitune: causal only": {"of": "bitune", "keys": [0.0] * 4, "values": [0.0] * 4, "colour": 0}}
    assert added.name == "bitune: causal only"
    assert "already" in handlers.add(added.what_ifs, "bitune", none).words
    assert handlers.remove(added.what_ifs, 0).what_ifs == {}
    assert "bitune: causal only" not in engine.variants
    for of, ratios in (("lora", none), ("ghost", none), ("bitune", None), ("bitune", {"keys": [0], "values": [0]}), (NASTY, 3)):
        with pytest.raises(BituneError):
            handlers.add({}, of, ratios)


def test_a_sweep_streams_ends_and_finishes(handlers, engine):
    shown = sweep(handlers, "hello", "bitune", "own")
    assert [screen.running for screen in shown] == [True] * (len(shown) - 1) + [False]
    wanted = swept(engine, "hello", "bitune")
    assert [p.completion.text for p in shown[-1].points] == [p.completion.text for p in wanted]
    assert shown[-1].html.count("<tr") == 1 + 9
    assert_close(shown[-1].curve.data[0].y, [p.log_probability for p in wanted])
    request = SweepRequest(handlers)
    stopped = request.finish(shown[0])
    assert not stopped.running and "bt-running" not in stopped.html
    assert "before the first token" in request.finish(request.announce()).html


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
