"""Attention in a real Chromium, offline: the maps, the words on them, what is pointed at, downloads, BertViz, and hostile tokens."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.served import TEMPLATE, served, tiny_engine
from tests.browser.visitor import ARTIFACTS, HOSTILE, SIZES, ended, run, visit

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


def open_attention(page: Page) -> None:
    page.get_by_role("tab", name="Attention").click()
    expect(page.locator("#bt-attention .bt-empty")).to_contain_text("Nothing has been read yet")


def read(page: Page, prompt: str, answer: str = "", variant: str = "bitune") -> None:
    """Press Read and wait for the maps."""
    page.locator("#bt-attention-prompt textarea").fill(prompt)
    page.locator("#bt-attention-answer textarea").fill(answer)
    page.locator(f"#bt-attention-variant input[value={variant}]").check()
    page.locator("#bt-read-attention").click()
    expect(page.locator("#bt-attention .bt-empty")).to_be_hidden(timeout=30_000)
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
    page.locator("#bt-attention [data-part=without-first]").check()
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
        assert "�" in text, "an emoji is several tokens here"
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


def test_compares_latest_run_comes_along_and_stays_what_was_read(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        run(page, "hello there")
        ended(page)
        page.get_by_role("tab", name="Attention").click()
        expect(page.locator("#bt-attention-prompt textarea")).to_have_value("hello there")
        box = page.locator("#bt-attention-answer textarea")
        expect(box).not_to_have_value("")
        answer = box.input_value()
        page.locator("#bt-attention-variant input[value=lora]").check()
        expect(box).not_to_have_value(answer)
        page.locator("#bt-read-attention").click()
        expect(page.locator(CANVASES)).to_have_count(1)
        page.get_by_role("tab", name="Compare").click()
        page.get_by_role("tab", name="Attention").click()
        expect(page.locator(CANVASES)).to_have_count(1)
        expect(page.locator("#bt-attention-variant input[value=lora]")).to_be_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        open_attention(page)
        read(page, NASTY, "the answer")
        hover(page, 0, 30, 12, page.locator(CANVASES).first.evaluate("canvas => canvas.width"))
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"attention-{size}-{scheme}.png", full_page=True)
