"""What a visitor does with answers that stand side by side, in a real Chromium: compares them with another one, copies, reads them as Markdown."""

from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from app.compare.recorded import Recording, record
from app.limits import Limits
from app.page import build_page
from app.server import serve
from app.settings import Settings
from app.ui.admission import Admission
from app.ui.examples import EXAMPLES
from tests.browser.served import MANY, tiny_engine
from tests.browser.visitor import ANSWERS, SIZES, ended, run, visit

pytestmark = pytest.mark.browser

NAME = "distance_from_the_sun_in_million_kilometres_measured_along_the_ecliptic"
TEXTS = {
    "base": f"The planet is **Mercury**.\n\n```python\ndef {NAME}():\n    return 57.9\n```\n<img src=x onerror=\"document.title='broken'\">",
    "lora": "The planet is Venus, says [a page](javascript:alert(1)).",
    "bitune": "Mercury",
}


def crafted(recording: Recording) -> Recording:
    """The recording with other texts, and a template of its own for Bitune."""
    update = recording.update
    completions = {name: replace(completion, text=TEXTS[name]) for name, completion in update.completions.items()}
    prompts = {**update.prompts, "bitune": recording.request.prompt}
    return replace(recording, update=replace(update, completions=completions, prompts=prompts))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    engine = tiny_engine(tmp_path_factory.mktemp("tiny"))
    recordings = {EXAMPLES[0].key: crafted(record(engine, EXAMPLES[0]))}
    page = build_page(engine, recordings, admission=Admission(MANY))
    try:
        yield serve(page, Settings(port=0, limits=Limits()))
    finally:
        page.close()


@pytest.fixture
def page(browser, url):
    yield from visit(browser, url, "desktop", "light")


def answer(page: Page, place: int):
    return page.locator("#bt-results .bt-answer").nth(place)


def test_answers_are_compared_with_the_one_that_is_chosen(page):
    expect(answer(page, 1)).to_contain_text("The same as base up to word 3")
    expect(answer(page, 2)).to_contain_text("A different answer: 1 word")
    assert answer(page, 0).locator("mark").count() and answer(page, 1).locator("mark").count(), "marks on both sides"
    assert answer(page, 2).locator("mark").count() == 0
    assert answer(page, 0).locator(".bt-part").count() == answer(page, 1).locator(".bt-part").count() == 1
    button = answer(page, 1).get_by_role("button", name="Compare with this")
    button.focus()
    page.keyboard.press("Enter")
    expect(answer(page, 1)).to_contain_text("The others are compared with lora")
    expect(answer(page, 0)).to_contain_text("The same as lora up to word 3")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_be_focused()
    expect(page.locator(".bt-recorded")).to_contain_text("Nothing has run yet")


def test_a_run_can_be_compared_with_any_of_its_answers(page):
    run(page, "hello there")
    ended(page)
    texts = page.locator(ANSWERS).all_inner_texts()
    answer(page, 2).get_by_role("button", name="Compare with this").click()
    expect(answer(page, 2)).to_contain_text("The others are compared with bitune")
    assert page.locator(ANSWERS).all_inner_texts() == texts
    expect(page.locator(".bt-batch")).to_have_count(1)
    expect(page.locator(".bt-batch")).to_contain_text("All 3 answers come out of one batch")
    assert "tokens/s" not in "".join(page.locator("#bt-results dl").all_inner_texts())


def test_each_column_says_what_it_read(page):
    expect(page.locator(".bt-apart")).to_be_visible()
    expect(answer(page, 0).locator(".bt-read-as")).to_contain_text("Question: [prompt]↵Answer:")
    expect(answer(page, 2).locator(".bt-read-as")).to_contain_text("the text as it is")
    run(page, "hello there")
    ended(page)
    expect(page.locator(".bt-apart")).to_have_count(0)
    expect(page.locator(".bt-read-as")).to_have_text(["29 prompt tokens · Question: [prompt]↵Answer:"] * 3)
    page.locator("#bt-template").get_by_label("none").click()
    run(page, "hello there")
    ended(page)
    expect(page.locator(".bt-read-as")).to_have_text(["11 prompt tokens · the text as it is"] * 3)


def test_markdown_is_shown_when_asked_for_and_runs_nothing(page):
    expect(answer(page, 0).locator(".bt-text")).to_be_visible()
    page.get_by_label("Show Markdown as it is meant to look").check()
    expect(answer(page, 0).locator(".bt-text")).to_be_hidden()
    expect(answer(page, 0).locator(".bt-rendered strong")).to_have_text("Mercury")
    code = answer(page, 0).locator(".bt-rendered pre")
    expect(code).to_contain_text(NAME)
    assert code.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0"), "it scrolls, by keys too"
    assert page.locator("#bt-results img, #bt-results .bt-rendered a").count() == 0
    assert page.title() == "Bitune"
    expect(answer(page, 2).locator(".bt-text")).to_be_visible()
    page.reload()
    expect(answer(page, 0).locator(".bt-rendered strong")).to_be_visible()


def test_a_long_name_is_scrolled_and_not_broken(page):
    box = answer(page, 0).locator(".bt-text")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0")


def test_copy_puts_the_answer_into_the_clipboard(page):
    answer(page, 0).get_by_role("button", name="Copy").click()
    expect(answer(page, 0).get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == TEXTS["base"]


def test_answers_to_an_earlier_prompt_say_so(page):
    expect(page.locator(".bt-stale")).to_be_hidden()
    page.locator("#bt-prompt textarea").press("End")
    page.keyboard.type("!")
    expect(page.locator(".bt-stale")).to_be_visible()
    page.keyboard.press("Backspace")
    expect(page.locator(".bt-stale")).to_be_hidden()
    run(page, "hello there")
    ended(page)
    expect(page.locator(".bt-stale")).to_be_hidden()
    page.locator("#bt-prompt textarea").fill("hello")
    expect(page.locator(".bt-stale")).to_be_visible()
    page.get_by_role("button", name=EXAMPLES[0].title).click()
    expect(page.locator(".bt-recorded")).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.locator(".bt-stale")).to_be_hidden()


def test_the_head_is_a_line_after_the_first_look(page):
    pictures, more = page.locator(".bt-way"), page.locator(".bt-more")
    expect(pictures).to_be_visible()
    page.get_by_role("tab", name="Mixing").click()
    expect(pictures).to_be_hidden()
    assert page.locator(".bt-head").bounding_box()["height"] < 60
    more.click()
    expect(pictures).to_be_visible()
    page.reload()
    expect(page.locator("#bt-run")).to_be_visible()
    expect(pictures).to_be_hidden()
    expect(page.get_by_role("link", name="The paper")).to_have_attribute("href", "https://arxiv.org/abs/2405.14862")


@pytest.mark.parametrize("size", SIZES)
def test_answers_come_into_view_and_the_focus_stays(browser, url, size):
    for page in visit(browser, url, size, "light"):
        page.locator("#bt-prompt textarea").fill("hello there")
        page.locator("#bt-run").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".bt-recorded")).to_have_count(0)
        ended(page)
        page.wait_for_timeout(1500)
        box = page.locator("#bt-results").bounding_box()
        assert box["y"] >= 0 and (box["y"] < 50 or box["y"] + box["height"] <= 900), "what was asked for can be seen"
        expect(page.locator("#bt-run")).to_be_focused()
        expect(page.locator("#bt-results [role=status]")).to_have_text("All answers have ended.")


def test_answers_take_the_width_of_the_window(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        for width in (1440, 1920, 1000, 420):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            box = page.locator("#bt-results .bt-answers").bounding_box()
            if width > 1160:
                assert box["width"] > 1160 and box["x"] >= 0
