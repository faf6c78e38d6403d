"""Which layers matter, and what they would say, in a real Chromium, offline: below the answers of a run, by mouse and by keys."""

import re
from itertools import zip_longest

import pytest
from playwright.sync_api import Page, expect

from bitune.inference.layers import layer_lens, stream_mixing_effects
from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ARTIFACTS, SIZES, ended, run, visit

pytestmark = pytest.mark.browser

PROMPT = "Is <b> tall?\nOr not?"
TOKENS = "#bt-layers-result .bt-shaded"
CELLS = "#bt-lens-result td"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def url(engine):
    with served(engine) as address:
        yield address


@pytest.fixture
def page(browser, url):
    yield from visit(browser, url, "desktop", "light")


def answered(page: Page) -> None:
    """A run that has ended, and both parts below it."""
    run(page, PROMPT)
    ended(page)
    for button in ("#bt-layers-run", "#bt-lens-run"):
        expect(page.locator(button)).to_be_visible()


def measured(page: Page) -> None:
    page.locator("#bt-layers-run").click()
    expect(page.locator("#bt-layers-result .bt-measured")).to_have_text("Measured.", timeout=30_000)
    expect(page.locator("#bt-layers-chart .main-svg").first).to_be_visible(timeout=30_000)
    page.locator("#bt-lens-run").click()
    expect(page.locator(CELLS).first).to_be_visible(timeout=30_000)
    expect(page.locator("#bt-lens-chart .main-svg").first).to_be_visible(timeout=30_000)


def assert_drawn(page: Page, figure: str, wanted: list[list[float]]) -> None:
    """The heights of every trace, once the figure is this one."""
    drawn = """([figure, wanted]) => {
        const traces = document.querySelector(`${figure} .js-plotly-plot`)?._fullData ?? [];
        return traces.length === wanted.length && wanted.every((values, trace) => traces[trace].y.length === values.length
            && values.every((value, at) => Math.abs(traces[trace].y[at] - value) < 1e-3 * Math.max(1, Math.abs(value))));
    }"""
    page.wait_for_function(drawn, arg=[figure, [list(values) for values in wanted]], timeout=30_000)


def tokens_of(engine, name: str) -> tuple[int, ...]:
    *_, last = engine.stream(PROMPT, ["base", "lora", "bitune"], max_new_tokens=64)
    return last[name].token_ids


def noted(page: Page, place: str) -> str:
    """What stands beside an element now."""
    return page.locator(place).evaluate("element => getComputedStyle(element, '::after').content").strip('"')


def test_a_run_is_measured_and_followed(page, engine):
    answered(page)
    measured(page)
    *_, effects = stream_mixing_effects(engine, PROMPT, "bitune", tokens_of(engine, "bitune"))
    layers = effects.layers
    wanted = [layers.undone_keys, layers.completed_keys, layers.undone_values, layers.completed_values]
    assert_drawn(page, "#bt-layers-chart", wanted)
    expect(page.locator(TOKENS)).to_have_count(len(effects.prompt))
    answers = {name: tokens_of(engine, name) for name in ("base", "lora", "bitune")}
    ends = zip_longest(*answers.values())
    followed(page, engine, "bitune", next(place for place, tokens in enumerate(ends) if len(set(tokens)) > 1))
    expect(page.locator(CELLS)).to_have_count(4 * 4)
    expect(page.locator("#bt-lens-result")).to_contain_text("Where it is the likeliest token:")
    assert_every_cell_shows_a_token(page)
    assert_shades_without_colour(page)
    by_mouse_and_keys(page)
    page.locator("#bt-lens-of label").filter(has_text="base").click()
    page.locator("#bt-lens-token input").click()
    page.get_by_role("option").nth(2).click()
    page.locator("#bt-lens-run").click()
    expect(page.locator("#bt-lens-run")).to_be_enabled(timeout=30_000)
    followed(page, engine, "base", 2)
    run(page, "Another one")
    ended(page)
    expect(page.locator(TOKENS)).to_have_count(0)
    expect(page.locator(CELLS)).to_have_count(0)
    expect(page.locator("#bt-layers-chart .main-svg")).to_have_count(0)


def followed(page: Page, engine, name: str, place: int) -> None:
    """The chart is that of this place of this answer."""
    readings = layer_lens(engine, PROMPT, ["base", "lora", "bitune"], tokens_of(engine, name), place)
    assert_drawn(page, "#bt-lens-chart", [one.probabilities for one in readings])


def assert_every_cell_shows_a_token(page: Page) -> None:
    """None of them is a percentage alone."""
    texts = page.locator(f"{CELLS} code").all_inner_texts()
    assert len(texts) == 4 * 4 and all(text and text.isprintable() and not text.isspace() for text in texts)


def assert_shades_without_colour(page: Page) -> None:
    """What is less and what is more likely differ in a pattern; neither is painted in the colour of a pass or a variant."""
    backgrounds = page.locator(".bt-mark").evaluate_all(
        "all => all.map((mark) => [getComputedStyle(mark).backgroundColor, getComputedStyle(mark).backgroundImage])"
    )
    (shaded, plain), (_, underlined) = backgrounds
    assert plain == "none" and "linear-gradient" in underlined
    red, green, blue = (float(number) for number in re.findall(r"[\d.]+", shaded)[:3])
    assert max(red, green, blue) - min(red, green, blue) < (0.05 if shaded.startswith("color(") else 12), shaded


def by_mouse_and_keys(page: Page) -> None:
    """Numbers come by pointing at a token and by going to it."""
    page.locator(TOKENS).nth(3).hover()
    assert noted(page, f"{TOKENS} >> nth=3") == page.locator(TOKENS).nth(3).get_attribute("data-note")
    assert noted(page, f"{TOKENS} >> nth=4") == "none"
    page.locator(TOKENS).first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(TOKENS).nth(1)).to_be_focused()
    assert noted(page, f"{TOKENS} >> nth=1") == page.locator(TOKENS).nth(1).get_attribute("data-note")
    page.locator(CELLS).first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(CELLS).nth(4)).to_be_focused()
    page.locator("#bt-layers-result summary").click()
    expect(page.locator("#bt-layers-result table").nth(1).locator("tbody tr")).to_have_count(4)


@pytest.mark.parametrize(("size", "scheme"), [("phone", "light"), ("phone", "dark"), ("desktop", "dark")])
def test_it_fits_the_window(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        answered(page)
        measured(page)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZES[size]["width"], "nothing makes the page scroll sideways"
        page.locator("#bt-why").screenshot(path=ARTIFACTS / f"layers-{size}-{scheme}.png")
