"""A newcomer's way from opening the page to why two answers differ. What is asserted is what a person sees at each step."""

from collections.abc import Iterator

from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import ANSWERS, ended


def walk(page: Page) -> Iterator[str]:
    """The name of each step, once it is to be seen; `page` has just been opened, with recorded answers."""
    expect(page.locator(".bt-recorded")).to_contain_text("computed earlier")
    in_view(page.locator(ANSWERS).first)
    yield "opened"
    page.locator("#bt-run").click()
    expect(page.locator(".bt-recorded")).to_have_count(0)
    ended(page)
    texts = page.locator(ANSWERS).all_inner_texts()
    assert len(set(texts)) > 1, texts
    in_view(page.locator(ANSWERS).first)
    yield "answered"
    page.get_by_role("button", name="Look at the tokens").click()
    expect(page.locator("#bt-tokens .bt-parts")).to_contain_text("parts from")
    expect(page.locator("#bt-look-tokens")).to_be_enabled()
    in_view(page.locator("#bt-tokens .bt-parts li").first)
    yield "tokens"
    expect(page.locator(".bt-distribution.bt-v0 .bt-said")).to_have_count(1)
    page.locator(".bt-distributions").scroll_into_view_if_needed()
    in_view(page.locator(".bt-distribution").first)
    yield "where they part"
    page.get_by_role("button", name="Measure the layers").click()
    expect(page.locator("#bt-layers-result .bt-measured")).to_have_text("Measured.", timeout=120_000)
    expect(page.locator("#bt-layers-chart .main-svg").first).to_be_visible(timeout=60_000)
    in_view(page.locator("#bt-layers-chart .main-svg").first)
    yield "layers"


def in_view(what: Locator) -> None:
    """Seen without scrolling by hand; the page may still be bringing it up."""
    expect(what).to_be_in_viewport(timeout=10_000)
