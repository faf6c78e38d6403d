"""Compare in a real Chromium, offline: what a visitor sees, does and is told."""

import re

import pytest
from playwright.sync_api import expect

from app.ui.examples import EXAMPLES
from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ANSWERS, ARTIFACTS, HOSTILE, SIZES, ended, every_screen, lengths, run, visit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tiny_engine(tmp_path_factory.mktemp("tiny"))) as address:
        yield address


@pytest.fixture
def page(browser, url):
    """The page at desktop size. Whatever it asks of another host is refused, and fails the test at its end."""
    yield from visit(browser, url, "desktop", "light")


def test_a_recorded_example_stands_there_before_anything_runs(page):
    expect(page.locator(".bt-recorded")).to_contain_text("Nothing has run yet")
    expect(page.locator(ANSWERS)).to_have_count(3)
    expect(page.locator("#bt-prompt textarea")).to_have_value(EXAMPLES[0].prompt)
    expect(page.locator("#bt-stop")).to_be_disabled()


def test_a_prompt_gets_different_answers_side_by_side(page):
    run(page, "hello there")
    ended(page)
    expect(page.locator(".bt-recorded")).to_have_count(0)
    texts = page.locator(ANSWERS).all_inner_texts()
    assert len(texts) == 3
    assert len(set(texts)) == 3
    boxes = [article.bounding_box() for article in page.locator(".bt-answer").all()]
    assert len({box["y"] for box in boxes}) == 1, "side by side"
    expect(page.locator("#bt-results .bt-difference")).to_contain_text(["compared with base", "base", "base"])
    expect(page.locator("#bt-results .bt-batch")).to_contain_text("tokens/s")
    page.locator("#bt-read button").click()
    expect(page.locator("#bt-read .bt-text")).to_have_text("Question: hello there\nAnswer:")


def test_ctrl_enter_runs_only_the_chosen_variants(page):
    page.locator("#bt-variants input[name=lora]").uncheck()
    page.locator("#bt-prompt textarea").fill("hello")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".bt-recorded")).to_have_count(0)
    ended(page)
    expect(page.locator("#bt-results h3")).to_have_text(["base", "bitune"])


def test_stop_keeps_what_was_written(page, slow_tokens):
    lengths(page)
    page.get_by_label("number input for New tokens").fill("400")
    run(page, "a long story")
    expect(page.locator("#bt-results dl").first).to_contain_text("still writing")
    page.locator("#bt-stop").click()
    ended(page)
    expect(page.locator("#bt-results")).to_contain_text("by you")
    kept = page.locator(ANSWERS).all_inner_texts()
    page.wait_for_timeout(500)
    assert page.locator(ANSWERS).all_inner_texts() == kept, "nothing comes after Stop"
    run(page, "hello")
    expect(page.locator("#bt-results")).not_to_contain_text("by you")
    page.locator("#bt-stop").click()
    ended(page)


@pytest.mark.parametrize(("prompt", "words"), [("   ", "The prompt is empty"), ("x" * 1_000_000, "shorten"), ("y" * 700, "512")])
def test_a_bad_prompt_is_a_sentence(page, prompt, words):
    run(page, prompt)
    expect(page.get_by_role("alert")).to_contain_text(words)
    ended(page)
    run(page, "hello")
    expect(page.locator(ANSWERS)).to_have_count(3)
    ended(page)


def test_no_variant_chosen_is_a_sentence(page):
    for box in page.locator("#bt-variants input").all():
        box.uncheck()
    run(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("No variant is chosen")
    ended(page)


def test_hostile_text_is_shown_and_runs_nothing(page):
    run(page, HOSTILE)
    expect(page.locator("#bt-read")).to_be_visible(timeout=30_000)
    page.locator("#bt-read button").click()
    assert page.locator("#bt-read .bt-text").inner_text() == f"Question: {HOSTILE}\nAnswer:"
    assert page.locator("#bt-results img, #bt-read img").count() == 0
    assert page.title() == "Bitune"


def test_an_example_fills_the_prompt_and_says_that_nothing_ran(page):
    page.get_by_role("button", name=EXAMPLES[2].title).click()
    expect(page.locator("#bt-prompt textarea")).to_have_value(EXAMPLES[2].prompt)
    expect(page.locator(".bt-empty")).to_contain_text("Nothing has run yet")


@pytest.mark.parametrize(
    ("setting", "words"),
    [("temperature=hot", "which is not a number"), (f"seed={'9' * 30}", "which is above"), ("top_p=nan", "nan")],
)
def test_what_is_broken_in_a_link_of_before_is_a_sentence(browser, url, setting, words):
    for page in visit(browser, url, "desktop", "light", f"?prompt=hi&variants=lora&{setting}"):
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.locator("#bt-prompt textarea")).to_have_value("hi")
        expect(page.locator("#bt-variants input:checked")).to_have_count(1)


def test_a_link_to_a_variant_that_is_not_here_says_so_and_runs_no_other(browser, url):
    for page in visit(browser, url, "desktop", "light", "?prompt=hi&variants=ghost"):
        expect(page.get_by_role("alert")).to_have_text("Not loaded here: 'ghost'.")
        expect(page.locator("#bt-prompt textarea")).to_have_value("hi")
        expect(page.locator("#bt-variants input:checked")).to_have_count(0)


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        run(page, "hello there")
        ended(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", background)[:3])) > 3 * 128
        assert light == (scheme == "light")
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"compare-{size}-{scheme}.png", full_page=True)
