"""Mixing in a real Chromium, offline: the bars are the checkpoint's ratios, and a what-if answers in Compare."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from bitune import Engine
from tests.browser.served import TEMPLATE, served, tiny_folders
from tests.browser.visitor import ANSWERS, ARTIFACTS, SIZES, ended, every_screen, go, run, visit
from tests.tiny import bitune_on, tiny_base

pytestmark = pytest.mark.browser

NASTY = "</script><img src=x onerror=\"document.title='broken'\"> ${1+1} {{7*7}}"
LEARNED, SLIDERS = "#bt-ratios .bt-bar", "#bt-sliders .bt-bar"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """LoRA and Bitune with logs, and a Bitune without one whose name is not kind."""
    folder = tiny_folders(tmp_path_factory.mktemp("tiny"))
    log = [
        {"step": step, "loss": 3 - step / 50, "alpha_k": [step / 100] * 4, "alpha_v": [0.5] * 4}
        | ({"eval_loss": 2.0} if step == 50 else {})
        for step in range(10, 101, 10)
    ]
    (folder / "bitune" / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    engine = Engine(tiny_base())
    for method in ("lora", "bitune"):
        engine.add_checkpoint(folder / method)
    bitune_on(tiny_base(), "bitune", seed=5, prompt_template=TEMPLATE).save_pretrained(folder / "nasty")
    engine.add_checkpoint(folder / "nasty", name=NASTY)
    return engine


@pytest.fixture(scope="module")
def url(engine):
    with served(engine) as address:
        yield address


@pytest.fixture
def page(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        opened(page)
        yield page


def opened(page: Page) -> None:
    """Open the tab and wait for what is in it."""
    go(page, "Mixing")
    expect(page.locator(LEARNED).first).to_be_visible()
    expect(page.locator("#bt-add")).to_be_visible()
    for chart in ("#bt-mixing-layers", ".bt-heat-maps", "#bt-losses"):  # Gradio fetches plotly when it draws the first one
        expect(page.locator(f"{chart} .main-svg").first).to_be_visible(timeout=30_000)


def ratios(page: Page, bars: str) -> list[float]:
    """Where the caps stand on the bars as drawn, from 0 to 1."""
    place = """bars => bars.map(bar => {
        const [all, cap] = [bar, bar.querySelector("i")].map(e => e.getBoundingClientRect());
        return (cap.x + cap.width / 2 - all.x) / all.width;
    })"""
    return page.locator(bars).evaluate_all(place)


def in_rows(*mixings) -> list[float]:
    """Ratios as the table has them, layer by layer."""
    return [value for layer in range(4) for mixing in mixings for value in (mixing.keys[layer], mixing.values[layer])]


def add(page: Page, name: str) -> None:
    """Press Add and wait until the what-if is listed."""
    page.locator("#bt-add").click()
    expect(page.locator(".bt-slot .bt-chip").filter(has_text=name)).to_be_visible()


def test_the_bars_are_the_checkpoints_alphas(page, engine):
    wanted = in_rows(engine.mixing("bitune"), engine.mixing(NASTY))
    assert ratios(page, LEARNED) == pytest.approx(wanted, abs=0.005)
    numbers = page.locator("#bt-ratios output").all_inner_texts()
    assert numbers == [f"{value:.2f}" for value in wanted]
    expect(page.locator("#bt-ratios")).to_contain_text("lora: the prompt is read once and nothing is mixed")
    page.locator("#bt-mixing-chosen input").nth(2).uncheck()
    expect(page.locator(LEARNED)).to_have_count(8)
    assert ratios(page, LEARNED) == pytest.approx(in_rows(engine.mixing("bitune")), abs=0.005)


def data_of(page: Page, figure: str) -> list[dict]:
    """What plotly draws in a figure."""
    return page.locator(f"{figure} .js-plotly-plot").first.evaluate(
        "plot => plot._fullData.map(d => ({name: d.name, x: [...(d.x ?? [])], y: [...(d.y ?? [])], z: d.z, colour: d.line && d.line.color}))"
    )


def test_a_training_is_drawn_and_its_absence_said(page):
    notes = page.locator("#bt-mixing-training .bt-training")
    expect(notes).to_have_count(2)
    for note, name in zip(notes.all(), ("lora", NASTY), strict=True):
        expect(note).to_contain_text(name)
        expect(note).to_contain_text("without a training log")
    maps = page.locator(".bt-heat-maps .heatmaplayer image")
    expect(maps).to_have_count(2)
    boxes = [image.bounding_box() for image in maps.all()]
    assert boxes[0]["y"] + boxes[0]["height"] < boxes[1]["y"], "keys above values"
    assert abs(boxes[0]["x"] - boxes[1]["x"]) < 1 and abs(boxes[0]["width"] - boxes[1]["width"]) < 1, "one axis of steps"
    keys, values = data_of(page, ".bt-heat-maps")
    assert keys["x"] == values["x"] == list(range(10, 101, 10))
    assert keys["z"] == [[step / 100 for step in range(10, 101, 10)]] * 4
    assert values["z"] == [[0.5] * 10] * 4


def test_losses_share_their_axes_and_have_a_legend(page):
    training, held_out = data_of(page, "#bt-losses")
    assert training["y"] == pytest.approx([3 - step / 50 for step in range(10, 101, 10)])
    assert (held_out["x"], held_out["y"]) == ([50], [2.0])
    expect(page.locator("#bt-losses .xaxislayer-above")).to_have_count(1)
    assert page.locator("#bt-losses .legendtext").all_text_contents() == ["bitune, training", "bitune, held out"]


def test_lines_by_layer_are_the_ratios_and_follow_the_choice(page, engine):
    lines = data_of(page, "#bt-mixing-layers")
    wanted = [side for name in ("bitune", NASTY) for side in (engine.mixing(name).keys, engine.mixing(name).values)]
    assert [line["y"] for line in lines] == [pytest.approx(side) for side in wanted]
    legend = page.locator("#bt-mixing-layers .legendtext")
    assert legend.all_text_contents() == ["bitune", NASTY]
    assert len({line["colour"] for line in lines}) == 2
    page.locator("#bt-mixing-chosen input").nth(2).uncheck()
    expect(legend).to_have_count(1)
    page.locator("#bt-mixing-chosen input").nth(1).uncheck()
    expect(page.locator("#bt-mixing-layers")).to_have_count(0)
    expect(page.locator(".bt-heat-maps .heatmaplayer")).to_have_count(0)


def test_a_chart_is_saved_as_a_picture(page):
    with page.expect_download() as download:
        page.locator("#bt-losses .modebar-btn").click()
    assert download.value.suggested_filename == "bitune-loss.png"
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_charts_wear_the_colours_of_the_scheme(browser, url):
    colours = {}
    for scheme in ("light", "dark"):
        for page in visit(browser, url, "desktop", scheme):
            opened(page)
            line = page.locator("#bt-mixing-layers .js-line").first
            expect(line).to_be_visible()
            colours[scheme] = line.evaluate("e => getComputedStyle(e).stroke")
            own = page.locator("#bt-ratios .bt-chip i").first.evaluate("e => getComputedStyle(e).backgroundColor")
            assert colours[scheme] == own, "a variant keeps the colour of its chip"
            text = page.locator("#bt-mixing-layers .legendtext").first.evaluate("e => getComputedStyle(e).fill")
            assert text == page.locator("#bt-ratios .bt-chip").first.evaluate("e => getComputedStyle(e).color")
    assert colours["light"] != colours["dark"]


def test_how_far_a_prompt_of_compare_is_moved(page, engine):
    go(page, "Compare")
    page.locator("#bt-prompt textarea").fill("hello there")
    go(page, "Mixing")
    page.locator("#bt-take").click()
    expect(page.locator("#bt-mixing-prompt textarea")).to_have_value("hello there")
    page.locator("#bt-measure").click()
    expect(page.locator("#bt-moved .bt-length")).to_have_count(2 * 2 * 4, timeout=30_000)
    moved = engine.attention("hello there", "bitune").moved_keys.mean(1)
    expect(page.locator("#bt-moved-layers .main-svg").first).to_be_visible()
    keys = data_of(page, "#bt-moved-layers")[0]
    assert keys["y"] == pytest.approx(list(moved), abs=1e-4)
    page.locator("#bt-moved summary").click()
    first_rows = page.locator("#bt-moved tbody tr td:nth-child(2) output").all_inner_texts()
    assert first_rows == [f"{value:.2f}" for value in moved]


def test_what_comes_of_a_button_stands_below_it(page):
    """The words at once, the result where they were."""
    for start, result, ready in (
        ("#bt-measure", "#bt-moved", "#bt-moved summary"),
        ("#bt-sweep-run", "#bt-sweep", "#bt-sweep-curve .point >> nth=8"),
    ):
        page.evaluate(
            """result => {
                window.said = [];
                const place = document.querySelector(result);
                new MutationObserver(() => window.said.push(place.innerText)).observe(place, {childList: true, subtree: true});
            }""",
            result,
        )
        page.locator(start).click()
        expect(page.locator(ready)).to_be_visible(timeout=30_000)
        words = "Measuring" if start == "#bt-measure" else "Reading the prompt"
        assert any(words in said or "Waiting" in said for said in page.evaluate("window.said"))
        expect(page.locator(start)).to_be_enabled()
        # Both at once, since the page scrolls to the result.
        top = "name => document.querySelector(name).getBoundingClientRect().top"
        gap = page.evaluate(f"([start, result]) => ({top})(result) - ({top})(start)", [start, result])
        assert 0 < gap < 100, "right below it"


def test_the_parts_stand_in_the_order_of_the_questions(page):
    heads = page.locator("h2.bt-heading:visible").all_inner_texts()
    assert heads == ["What was learned?", "How did it come?", "What if it were mixed otherwise?", "What does it do to a prompt?"]
    ratios_, lines = page.locator("#bt-ratios").bounding_box(), page.locator("#bt-mixing-layers").bounding_box()
    assert ratios_["x"] + ratios_["width"] <= lines["x"], "bars and lines beside each other"
    map_, losses = page.locator(".bt-heat-maps .main-svg").first.bounding_box(), page.locator("#bt-losses").bounding_box()
    assert map_["x"] + map_["width"] <= losses["x"] and abs(map_["y"] - losses["y"]) < 60
    assert page.evaluate("document.documentElement.scrollHeight") < 2800


@pytest.mark.parametrize(("prompt", "words"), [("  ", "The prompt is empty"), ("y" * 700, "512")])
def test_a_bad_prompt_is_a_sentence(page, prompt, words):
    page.locator("#bt-mixing-prompt textarea").fill(prompt)
    page.locator("#bt-measure").click()
    expect(page.locator("#bt-moved [role=alert]")).to_contain_text(words, timeout=30_000)
    page.locator("#bt-sweep-run").click()
    expect(page.locator("#bt-sweep [role=alert]")).to_contain_text(words, timeout=30_000)
    expect(page.locator("#bt-sweep-run")).to_be_enabled()


def test_a_what_if_answers_beside_the_learned_one(page, engine):
    page.get_by_role("button", name="Causal only").click()
    expect(page.locator("#bt-sliders output").first).to_have_text("0.00")
    assert ratios(page, SLIDERS) == pytest.approx([0.0] * 8, abs=0.005)
    add(page, "bitune: causal only")
    go(page, "Compare")
    chip = page.locator("#bt-variants label").filter(has_text="bitune: causal only")
    expect(chip.locator("input")).to_be_checked()
    run(page, "hello there")
    ended(page)
    texts = dict(zip(page.locator("#bt-results h3").all_inner_texts(), page.locator(ANSWERS).all_inner_texts(), strict=True))
    assert list(texts) == ["base", "lora", "bitune", NASTY, "bitune: causal only"]
    assert texts["bitune: causal only"] != texts["bitune"]
    assert "bitune: causal only" not in engine.variants, "it is this visitor's alone"
    colours = {
        page.locator(place).last.evaluate("e => getComputedStyle(e).getPropertyValue('--bt-own')")
        for place in ("#bt-variants label", "#bt-results .bt-answer")
    }
    assert len(colours) == 1, "one colour in both places"
    go(page, "Mixing")
    page.locator(".bt-slot button:visible").click()
    expect(page.locator(".bt-slot:visible")).to_have_count(0)
    go(page, "Compare")
    expect(page.locator("#bt-variants label")).to_have_count(4)
    run(page, "hello there")
    ended(page)
    expect(page.locator(ANSWERS)).to_have_count(4)


def test_sliders_move_by_key_and_hand_and_stay_when_tabs_change(page, engine):
    sliders = page.locator("#bt-sliders input")
    sliders.nth(0).focus()
    before = float(sliders.nth(0).input_value())
    page.keyboard.press("ArrowLeft")
    assert float(sliders.nth(0).input_value()) == pytest.approx(before - 0.01)
    page.get_by_label("Move keys and values together").check()
    box = sliders.nth(2).bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    moved = ratios(page, SLIDERS)
    assert moved[2:4] == pytest.approx([0.9, 0.9], abs=0.06), "within the width of the thumb"
    assert moved[4:] == pytest.approx(in_rows(engine.mixing("bitune"))[4:], abs=0.005)
    go(page, "Compare")
    go(page, "Mixing")
    assert ratios(page, SLIDERS) == moved
    add(page, "bitune: own curve")
    page.get_by_role("button", name="Learned", exact=True).click()
    expect(page.locator("#bt-sliders output").nth(2)).to_have_text(f"{engine.mixing('bitune').keys[1]:.2f}")
    add(page, "bitune: learned")
    expect(page.locator(".bt-slot:visible")).to_have_count(2)


def test_layers_are_set_to_a_ratio(page, engine):
    for label, value in (("Learned, but layers", "1"), ("to", "2"), ("at ratio", "1")):
        page.locator(".bt-layers").get_by_label(label, exact=True).fill(value)
    page.locator("#bt-set").click()
    expect(page.locator("#bt-sliders output").nth(2)).to_have_text("1.00")
    assert ratios(page, SLIDERS) == pytest.approx(in_rows(engine.mixing("bitune").with_layers(1, 2, 1.0)), abs=0.005)
    page.locator(".bt-layers").get_by_label("Learned, but layers", exact=True).fill("3")
    page.locator("#bt-set").click()
    expect(page.locator("#bt-what-if-note [role=alert]")).to_contain_text("Layers 3 to 2")


def test_a_sweep_draws_its_curve_and_can_be_stopped(page, slow_tokens):
    page.locator("#bt-sweep-run").click()
    expect(page.locator("#bt-sweep-curve .point")).to_have_count(9, timeout=30_000)
    expect(page.locator("#bt-sweep tbody tr")).to_have_count(9)
    expect(page.locator("#bt-sweep-run")).to_be_enabled()
    page.locator("#bt-sweep-run").click()
    page.locator("#bt-sweep-stop").click()
    expect(page.locator("#bt-sweep-run")).to_be_enabled(timeout=30_000)
    expect(page.locator("#bt-sweep-stop")).to_be_disabled()
    expect(page.locator("#bt-sweep .bt-running")).to_have_count(0)


def test_nasty_names_and_prompts_are_text(page):
    page.locator("#bt-of label").nth(1).click()
    expect(page.locator("#bt-sliders .bt-chip")).to_have_text(NASTY)
    add(page, f"{NASTY}: learned")
    page.locator("#bt-mixing-prompt textarea").fill(NASTY)
    page.locator("#bt-measure").click()
    expect(page.locator("#bt-moved summary")).to_be_visible(timeout=30_000)
    page.locator("#bt-sweep-run").click()
    expect(page.locator("#bt-sweep-curve .point")).to_have_count(9, timeout=30_000)
    go(page, "Compare")
    expect(page.locator("#bt-variants label").last).to_have_text(f"{NASTY}: learned")
    run(page, NASTY)
    ended(page)
    expect(page.locator("#bt-results h3").last).to_have_text(f"{NASTY}: learned")
    assert page.locator("main img").count() == 0
    assert page.title() == "Bitune"


def test_what_ifs_belong_to_one_visitor(browser, url, page):
    add(page, "bitune: learned")
    for other in visit(browser, url, "desktop", "light"):
        expect(other.locator("#bt-variants label")).to_have_count(4)
        opened(other)
        expect(other.locator(".bt-slot:visible")).to_have_count(0)


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        opened(page)
        page.locator("#bt-measure").click()
        expect(page.locator("#bt-moved summary")).to_be_visible(timeout=30_000)
        page.locator("#bt-sweep-run").click()
        expect(page.locator("#bt-sweep-curve .point")).to_have_count(9, timeout=30_000)
        page.get_by_role("button", name=re.compile("Half and half")).click()
        expect(page.locator("#bt-sliders output").first).to_have_text("0.50")
        add(page, "bitune: half and half")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        edges = page.locator(
            "main h1, #bt-ratios, #bt-mixing-chosen label, #bt-sweep, #bt-editor, .bt-figure, .bt-figure .main-svg"
        ).evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
        assert max(edges) <= SIZES[size]["width"], "and nothing is cut off"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"mixing-{size}-{scheme}.png", full_page=True)
