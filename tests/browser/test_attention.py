"""Attention in a real Chromium, offline: the maps, the words on them, what is pointed at, downloads, BertViz, and hostile tokens."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from app.attention.recorded import record as record_map
from tests.browser.served import TEMPLATE, served, tiny_engine
from tests.browser.visitor import ARTIFACTS, HOSTILE, SIZES, ended, every_screen, run, slow, visit

pytestmark = pytest.mark.browser

NASTY = HOSTILE + "\n\u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f469\u200d\U0001f33e"
CANVASES = "#bt-attention .bt-map canvas"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def url(engine):
    with served(engine) as address:
        yield address


@pytest.fixture
def page(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        open_attention(page)
        yield page


def test_what_is_chosen_while_the_tab_is_opened_stays(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        slow(page)
        page.get_by_role("tab", name="Attention").click()
        page.locator("#bt-attention-variant input[value=lora]").check()
        page.locator("#bt-attention-beside input").click()
        page.get_by_role("option", name="bitune").click()
        page.wait_for_timeout(2_000)
        expect(page.locator("#bt-attention-variant input[value=lora]")).to_be_checked()
        expect(page.locator("#bt-attention-beside input")).to_have_value("bitune")


def open_attention(page: Page) -> None:
    page.get_by_role("tab", name="Attention").click()
    expect(page.locator("#bt-attention .bt-empty")).to_contain_text("Nothing has been read yet")


def read(page: Page, prompt: str, answer: str = "", variant: str = "bitune") -> None:
    """Press Read and wait for the maps."""
    page.locator("#bt-attention-prompt textarea").fill(prompt)
    page.locator("#bt-attention-answer textarea").fill(answer)
    page.locator(f"#bt-attention-variant input[value={variant}]").check()
    page.evaluate("document.querySelectorAll('#bt-attention canvas').forEach((canvas) => canvas.setAttribute('data-before', ''))")
    page.locator("#bt-read-attention").click()
    own = page.locator("#bt-attention canvas:not([data-before])")  # others are of the recorded map
    expect(own.or_(page.locator("#bt-attention [role=alert]:not([hidden])")).first).to_be_visible()
    expect(page.locator("#bt-read-attention")).to_be_enabled()


def cell(page: Page, layer: int, head: int):
    return page.locator(f'#bt-attention [data-layer="{layer}"][data-head="{head}"]')


def pixel(page: Page, panel: int, row: int, column: int) -> list[int]:
    script = "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
    return page.locator(CANVASES).nth(panel).evaluate(script, [column, row])


def labels(page: Page, panel: int, side: str) -> list[str]:
    return page.locator(f"#bt-attention .bt-map >> nth={panel} >> .bt-{side} span").all_text_contents()


def readout(page: Page) -> str:
    return page.locator("#bt-attention [data-part=readout]").inner_text()


def hover(page: Page, panel: int, row: int, column: int, rows: int) -> None:
    canvas = page.locator(CANVASES).nth(panel)
    size = canvas.bounding_box()["width"] / rows
    canvas.hover(position={"x": (column + 0.5) * size, "y": (row + 0.5) * size})


def test_a_click_on_a_square_opens_three_maps_with_their_tokens(page, engine):
    read(page, "hi", "a b")
    cell(page, 2, 1).click()
    expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layer 2, head 1")
    expect(page.locator("#bt-attention figcaption b")).to_have_text(["First reading", "Second reading", "Difference"])
    tokens = [*TEMPLATE.format(prompt="hi"), *"a b"][:-1]
    shown = [{"\n": "↵", " ": "␣"}.get(token, token) for token in tokens]
    for panel, side in ((0, "side"), (0, "above"), (1, "above"), (2, "above")):
        names = labels(page, panel, side)
        step = round(len(shown) / len(names))
        assert names == shown[::step]
    maps = engine.attention("hi", "bitune", [2], answer="a b")
    for name, (row, column) in {"causal": (5, 4), "bidirectional": (4, 9)}.items():
        weight = float(maps.passes[name][0, 1, row, column])
        hover(page, 0, row, column, len(tokens))
        numbers = re.findall(r"([\d.]+) %|(cannot look there)", readout(page))
        number, blind = numbers[name == "bidirectional"]
        assert not blind
        assert float(number) == pytest.approx(weight * 100, abs=0.6)
    assert "first reading: cannot look there" in readout(page), "token 4 is before token 9"


def test_the_picture_is_blue_orange_and_both(page, engine):
    read(page, "hi")
    rows = page.locator(CANVASES).first.evaluate("canvas => canvas.width")
    maps = engine.attention("hi", "bitune", range(4))
    cell(page, 1, 2).click()
    expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layer 1, head 2")
    expect(page.locator("#bt-attention [data-part=without-first]")).to_be_checked()
    first, second = (values[1, 2].astype(float) for values in maps.passes.values())
    strongest = divmod(int(second[:, 1:].argmax()), rows - 2)
    row, column = strongest[0], strongest[1] + 1
    red, _, blue, _ = pixel(page, 1, row, column)
    assert red > blue, "orange"
    left = first.copy()
    left[:, 0] = 0
    red, _, blue, _ = pixel(page, 0, *divmod(int(left.argmax()), rows - 1))
    assert blue > red, "blue"
    red, _, blue, _ = pixel(page, 2, row, column)
    assert (red > blue) == (second[row, column] > first[row, column])
    assert pixel(page, 0, 3, 0) == pixel(page, 1, 5, 0) == pixel(page, 0, 0, 5), "left out, and out of sight"


def test_the_keyboard_walks_through_heads_and_words(page):
    read(page, "hi")
    cell(page, 1, 1).click()
    title = page.locator("#bt-attention [data-part=title]")
    for key, words in (("ArrowRight", "Layer 1, head 2"), ("ArrowDown", "Layer 2, head 2"), ("ArrowUp", "Layer 1, head 2")):
        page.keyboard.press(key)
        expect(title).to_have_text(words)
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(title).to_have_text("Layer 1, mean over heads")
    expect(page.locator("#bt-attention [data-layer][tabindex='0']")).to_have_count(1)
    page.locator("#bt-attention .bt-tokens span").nth(3).click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#bt-attention .bt-tokens >> nth=0 >> .bt-looking")).to_have_attribute("data-token", "4")


def test_the_keyboard_walks_by_rows_and_to_the_ends(page):
    read(page, "hi")
    cell(page, 1, 1).click()
    title = page.locator("#bt-attention [data-part=title]")
    keys = {
        "End": "Layer 1, mean over heads",
        "Home": "Layer 1, head 0",
        "PageDown": "Layer 3, head 0",
        "PageUp": "Layer 0, head 0",
    }
    for key, words in keys.items():
        page.keyboard.press(key)
        expect(title).to_have_text(words)


def test_cells_of_a_map_are_reached_by_keys_and_read_out(page):
    read(page, "hi", "ab")
    page.mouse.move(0, 0)  # or what comes to lie under it is read out too
    page.locator(CANVASES).first.focus()
    words = page.locator("#bt-attention [data-part=readout]")
    expect(words).to_have_attribute("aria-live", "polite")
    names = [{"\n": "↵", " ": "␣"}.get(token, token) for token in [*TEMPLATE.format(prompt="hi"), *"ab"][:-1]]
    last = len(names) - 1
    steps = {
        "Control+Home": (0, 0),
        "End": (0, last),
        "ArrowDown": (1, last),
        "PageDown": (11, last),
        "ArrowLeft": (11, last - 1),
    }
    steps |= {"Home": (11, 0), "PageUp": (1, 0), "ArrowRight": (1, 1), "ArrowUp": (0, 1), "Control+End": (last, last)}
    for key, (row, column) in steps.items():
        page.keyboard.press(key)
        expect(words.locator("b")).to_have_text(f"“{names[row]}” looks at “{names[column]}”")


def test_a_pinned_cell_stays_until_it_is_let_go(page):
    read(page, "hi")
    rows = page.locator(CANVASES).first.evaluate("canvas => canvas.width")
    hover(page, 1, 4, 9, rows)
    expected = readout(page)
    size = page.locator(CANVASES).nth(1).bounding_box()["width"] / rows
    page.locator(CANVASES).nth(1).click(position={"x": 9.5 * size, "y": 4.5 * size})
    hover(page, 0, 7, 2, rows)
    pinned = page.locator("#bt-attention [data-part=pinned]")
    kept = pinned.locator("p").inner_text().replace("Pinned: ", "")
    assert kept.split() == expected.split() != readout(page).split()
    cell(page, 3, 3).click()
    expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layer 3, head 3")
    expect(pinned).to_contain_text(expected.splitlines()[0])
    page.locator(CANVASES).first.focus()
    page.keyboard.press("Escape")
    expect(pinned).to_be_hidden()
    page.keyboard.press("Enter")
    expect(pinned).not_to_have_attribute("hidden", "")
    hover(page, 0, 7, 2, rows)
    pinned.get_by_role("button").click()
    expect(pinned).to_be_hidden()


def test_pointing_at_a_word_shades_what_it_looks_at_in_both_readings(page):
    read(page, "hi")
    page.locator("#bt-attention .bt-tokens >> nth=0 >> span >> nth=4").hover()
    expect(page.locator("#bt-attention [data-part=readout] b")).to_have_text("“t” looks most at")

    def shades(text: int) -> list[int]:
        spans = page.locator(f"#bt-attention .bt-tokens >> nth={text} >> span").all()
        return [int(span.evaluate("token => parseInt(token.style.getPropertyValue('--look'))")) for span in spans]

    first, second = shades(0), shades(1)
    assert not any(first[5:]), "the first reading does not look ahead"
    assert any(second[5:]), "the second does"


def test_measures_and_their_difference(page, engine):
    read(page, "hi")
    maps = engine.attention("hi", "bitune")
    first, second = (summary.first_token for summary in maps.summaries.values())
    page.locator("#bt-attention [data-part=measure]").select_option("first_token")
    for which, values in (("1", second), ("0", first), ("difference", second - first)):
        page.locator("#bt-attention [data-part=which]").select_option(which)
        for layer, head in ((0, 0), (3, 2)):
            expect(cell(page, layer, head)).to_have_attribute(
                "aria-label", f"layer {layer}, head {head}: {values[layer, head]:.2f}"
            )


def test_one_reading_is_one_map_and_words_say_why(page):
    read(page, "hi", variant="base")
    expect(page.locator(CANVASES)).to_have_count(1)
    expect(page.locator("#bt-attention [data-part=map-words]")).to_contain_text("reads the prompt once")
    expect(page.locator("#bt-attention [data-part=which] option")).to_have_count(1)
    read(page, "hi")
    expect(page.locator(CANVASES)).to_have_count(3)


def test_downloads(page):
    read(page, "hi </svg>")
    files = {}
    for part in ("png", "svg", "arrays"):
        with page.expect_download() as download:
            page.locator(f"#bt-attention [data-part={part}]").click()
        files[download.value.suggested_filename.rsplit(".")[-1]] = download.value.path().read_bytes()
    assert files["png"].startswith(b"\x89PNG")
    drawing = files["svg"].decode()
    assert drawing.startswith("<svg")
    assert drawing.count("</svg>") == 1
    assert "Second reading" in drawing
    scales = page.locator("#bt-attention .bt-map .bt-see-legend").all()
    for scale in scales:
        for number in scale.locator("span").all_text_contents():
            assert number in drawing, "the scale stands in the figure"
    assert drawing.count("<linearGradient") == len(scales) == 3
    header = files["safetensors"]
    assert "pass.bidirectional" in json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


@pytest.mark.parametrize("kind", ["head", "model"])
def test_bertviz_draws_its_lines_in_a_closed_frame(page, kind):
    read(page, NASTY)
    page.locator("#bt-attention [data-part=bertviz-view]").select_option(kind)
    page.locator("#bt-attention [data-part=bertviz-reading]").select_option("bidirectional")
    page.locator("#bt-attention [data-part=bertviz-draw]").click()
    frame = page.locator("#bt-attention iframe")
    expect(frame).to_have_attribute("sandbox", "allow-scripts")
    inside = page.frame_locator("#bt-attention iframe")
    tokens = len(TEMPLATE.format(prompt=NASTY).encode()) - 1
    expected = 4 * tokens**2 * (1 if kind == "head" else 4)
    expect(inside.locator("line")).to_have_count(expected, timeout=30_000)
    if kind == "head":
        expect(inside.locator("text").filter(has_text="<")).not_to_have_count(0)
    assert inside.locator("img").count() == 0
    assert page.title() == "Bitune"


def test_bertviz_says_where_its_limit_is(page):
    read(page, "x" * 300)
    page.locator("#bt-attention [data-part=bertviz-draw]").click()
    expect(page.locator("#bt-attention [data-part=bertviz-words]")).to_contain_text("the browser stands still")
    expect(page.locator("#bt-attention iframe")).to_have_count(0)


def test_hostile_tokens_are_text_in_every_view(page):
    read(page, NASTY, NASTY)
    for place in range(2):
        text = page.locator("#bt-attention .bt-tokens").nth(place).evaluate("text => text.textContent")
        assert text.replace("↵\n", "\n").startswith(TEMPLATE.format(prompt=HOSTILE).partition("\n")[0])
        assert "\u4f60\u597d" in text and "�" not in text, "characters are several tokens here"
    second = page.locator("#bt-attention .bt-tokens >> nth=0 >> [data-piece='2']").first
    second.hover()
    assert re.match(r"“. 2/[2-4]” looks most at", readout(page))
    page.locator("#bt-attention .bt-tokens span").nth(14).hover()
    assert page.locator("#bt-attention img, #bt-attention script").count() == 0
    assert page.title() == "Bitune"


@pytest.mark.parametrize(("prompt", "words"), [("  ", "The prompt is empty"), ("y" * 700, "512")])
def test_a_bad_prompt_is_a_sentence(page, prompt, words):
    read(page, prompt)
    expect(page.locator("#bt-attention").get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#bt-attention [data-part=view]")).to_be_hidden()
    read(page, "hi")
    expect(page.locator("#bt-attention").get_by_role("alert")).to_be_hidden()
    expect(page.locator(CANVASES)).to_have_count(3)


def to_attention(page: Page) -> None:
    page.get_by_role("tab", name="Attention").click()


def test_compares_latest_run_is_read_on_arrival_once(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        run(page, "hello there")
        ended(page)
        to_attention(page)
        expect(page.locator("#bt-attention-prompt textarea")).to_have_value("hello there")
        expect(page.locator(CANVASES)).to_have_count(3, timeout=30_000)
        box = page.locator("#bt-attention-answer textarea")
        answer = box.input_value()
        assert answer
        text = page.locator("#bt-attention .bt-tokens").first.evaluate("text => text.textContent")
        assert text.replace("↵\n", "\n").startswith(TEMPLATE.format(prompt="hello there")), "this prompt, with this answer"
        assert page.locator("#bt-attention .bt-answered").count() >= len(answer)
        page.locator("#bt-attention-variant input[value=lora]").check()
        expect(box).not_to_have_value(answer)
        page.locator("#bt-read-attention").click()
        expect(page.locator(CANVASES)).to_have_count(1)
        page.get_by_role("tab", name="Compare").click()
        to_attention(page)
        expect(page.locator(CANVASES)).to_have_count(1)
        expect(page.locator("#bt-attention-variant input[value=lora]")).to_be_checked()
        page.get_by_role("tab", name="Compare").click()
        run(page, "x" * 300)
        ended(page)
        to_attention(page)
        expect(page.locator("#bt-attention .bt-empty")).to_contain_text("nothing was read by itself")
        expect(page.locator("#bt-read-attention")).to_be_enabled()


def test_two_variants_stand_beside_each_other_with_their_difference(page, engine):
    page.get_by_role("listbox", name="Beside it").or_(page.locator("#bt-attention-beside input")).first.click()
    page.get_by_role("option", name="bitune", exact=True).click()
    expect(page.locator("#bt-attention-beside input")).to_have_value("bitune")
    read(page, "hi", "ab", variant="lora")
    titles = page.locator("#bt-attention figcaption b")
    expect(titles).to_have_text(["lora", "bitune", "Difference"])
    cell(page, 2, 1).click()
    expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layer 2, head 1")
    one, other = (engine.attention("hi", name, [2], answer="ab") for name in ("lora", "bitune"))
    before = float(next(iter(one.passes.values()))[0, 1, 4, 2])
    after = float(other.passes["bidirectional"][0, 1, 4, 2])
    rows = page.locator(CANVASES).first.evaluate("canvas => canvas.width")
    hover(page, 0, 4, 2, rows)
    numbers = [float(number) for number in re.findall(r"([\d.]+) %", readout(page))]
    assert numbers == pytest.approx([before * 100, after * 100], abs=0.6)
    assert "lora, reading" in readout(page) and "bitune, second reading" in readout(page)
    red, green, *_ = pixel(page, 2, 4, 2)
    assert (red > green) == (after > before), "the second variant's purple where it looks more, else the first one's green"
    page.locator("#bt-attention [data-part=which]").select_option("beside")
    ahead = other.summaries["bidirectional"].distance - next(iter(one.summaries.values())).distance
    page.locator("#bt-attention [data-part=measure]").select_option("distance")
    expect(cell(page, 3, 2)).to_have_attribute("aria-label", f"layer 3, head 2: {ahead[3, 2]:.2f}")
    page.locator("#bt-attention [data-part=pair]").select_option("0")
    hover(page, 0, 4, 2, rows)
    assert "bitune, first reading" in readout(page)
    with page.expect_download() as download:
        page.locator("#bt-attention [data-part=svg]").click()
    assert "lora and bitune: layer 2, head 1" in download.value.path().read_text(encoding="utf-8")
    page.locator("#bt-attention [data-part=pair]").select_option("readings")
    expect(titles).to_have_text(["The one reading"])


def test_a_mean_over_chosen_layers(page, engine):
    read(page, "hi")
    page.locator("#bt-attention [data-part=mean-from]").select_option("1")
    page.locator("#bt-attention [data-part=mean-until]").select_option("2")
    page.locator("#bt-attention [data-part=mean-open]").click()
    expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layers 1 to 2, mean over heads")
    expect(page.locator("#bt-attention [aria-current]")).to_have_count(2)
    maps = engine.attention("hi", "bitune", [1, 2])
    weight = maps.passes["bidirectional"][:, :, 4, 9].astype(float).mean()
    hover(page, 0, 4, 9, page.locator(CANVASES).first.evaluate("canvas => canvas.width"))
    assert float(re.search(r"([\d.]+) %", readout(page))[1]) == pytest.approx(weight * 100, abs=0.6)


def test_a_map_fills_the_window_and_goes_back(page):
    read(page, "hi")
    page.locator("#bt-attention figcaption").nth(1).get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("canvas")).to_have_count(1)
    assert dialog.locator("canvas").bounding_box()["width"] > SIZES["desktop"]["width"] * 0.85
    dialog.locator("canvas").focus()
    page.keyboard.press("Control+Home")
    expect(dialog.locator("[data-part=large-words]")).to_contain_text("looks at “Q”")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#bt-attention [data-part=maps] canvas")).to_have_count(3)


def test_a_recorded_map_is_there_at_once(browser, engine):
    with served(engine, recorded_map=record_map(engine)) as address:
        for page in visit(browser, address, "desktop", "light"):
            to_attention(page)
            expect(page.locator("#bt-attention [data-part=recorded]")).to_contain_text("computed earlier")
            expect(page.locator(CANVASES)).to_have_count(3)
            expect(page.locator("#bt-attention [data-part=bertviz-draw], #bt-attention [data-part=arrays]").first).to_be_hidden()
            cell(page, 0, 0).click()
            expect(page.locator("#bt-attention").get_by_role("alert")).to_contain_text("Only this one map was recorded")
            read(page, "hi")
            expect(page.locator("#bt-attention [data-part=recorded]")).to_be_hidden()
            cell(page, 0, 0).click()
            expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layer 0, head 0")


def test_bertviz_is_dark_on_a_dark_page(browser, url):
    for page in visit(browser, url, "desktop", "dark"):
        open_attention(page)
        read(page, "hi")
        page.locator("#bt-attention [data-part=bertviz-draw]").click()
        body = page.frame_locator("#bt-attention iframe").locator("body")
        expect(body).to_have_css("background-color", "rgb(0, 0, 0)")


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        open_attention(page)
        read(page, NASTY, "the answer")
        hover(page, 0, 30, 12, page.locator(CANVASES).first.evaluate("canvas => canvas.width"))
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"attention-{size}-{scheme}.png", full_page=True)
