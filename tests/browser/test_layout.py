"""How the page is laid out, in a real Chromium: what the first look shows, a newcomer's way, what hints that a table scrolls."""

import pytest
from playwright.sync_api import expect

from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ANSWERS, SIZES, ended, run, visit
from tests.browser.walk import walk

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tiny_engine(tmp_path_factory.mktemp("tiny"))) as address:
        yield address


def test_from_opening_the_page_to_why_two_answers_differ(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        assert list(walk(page)) == ["opened", "answered", "tokens", "where they part", "layers"]


def test_the_first_look_shows_all_of_an_answer_without_scrolling(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        for answer in page.locator(ANSWERS).all():
            box = answer.bounding_box()
            assert box["y"] + box["height"] < SIZES["desktop"]["height"]


def test_a_table_that_is_wider_than_a_phone_fades_until_its_end_is_reached(browser, url):
    for page in visit(browser, url, "phone", "light"):
        run(page, "hello")
        ended(page)
        page.locator("#bt-look-tokens").click()
        table = page.locator("#bt-tokens .bt-scroll")
        expect(table).to_be_visible()
        faded = "box => getComputedStyle(box).getPropertyValue('--bt-more')"
        for width, fade in (("900px", "48px"), ("100%", "0px")):
            table.locator("table").evaluate("(table, width) => { table.style.minWidth = width; }", width)
            page.wait_for_function(f"fade => ({faded})(document.querySelector('#bt-tokens .bt-scroll')) === fade", arg=fade)
        table.locator("table").evaluate("table => { table.style.minWidth = '900px'; }")
        table.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
        page.wait_for_function(f"() => ({faded})(document.querySelector('#bt-tokens .bt-scroll')) === '0px'")
