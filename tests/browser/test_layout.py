"""How the page is laid out, in a real Chromium: what the first look shows, a newcomer's way, what hints that a table scrolls."""

import pytest
from playwright.sync_api import expect

from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ANSWERS, SIZES, ended, run, visit
from tests.browser.walk import walk

pytestmark = pytest.mark.browser

FADED = "fade => getComputedStyle(document.querySelector('#bt-tokens .bt-scroll')).getPropertyValue('--bt-more') === fade"


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
        for width, fade in (("20px", ""), ("900px", "3rem")):  # whatever the font of this machine makes of it
            table.locator("table").evaluate(
                "(table, width) => { table.style = `display: block; overflow: hidden; width: ${width}`; }", width
            )
            page.wait_for_function(FADED, arg=fade)
        table.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
        page.wait_for_function(FADED, arg="0px")


def test_seconds_pass_without_a_word_from_the_server(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<p class=bt-seconds>so far</p>')")
        for seconds in (1, 2):
            page.wait_for_function(
                "words => getComputedStyle(document.querySelector('.bt-seconds'), '::after').counterReset === words",
                arg=f"bt-passed {seconds}",
            )
