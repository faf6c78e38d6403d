"""A newcomer's way from opening the page to why two answers differ, and a round of all tabs. What is asserted is what a person sees."""

from collections.abc import Iterator

from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import ANSWERS, ended, go, run


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


PROMPT = "Which planet is closest to the Sun?"
SET = "Where does rain come from?\nWhat is the past tense of go?\twent\nName a colour of the rainbow."


def tabs(page: Page) -> Iterator[str]:
    """The name of each tab, once what it is for is to be seen; `page` has just been opened."""
    run(page, PROMPT)
    ended(page)
    yield "compare"
    go(page, "Attention")
    expect(page.locator("#bt-attention .bt-empty")).to_be_hidden(timeout=60_000)
    expect(page.locator("#bt-read-attention")).to_be_enabled(timeout=60_000)
    yield "attention"
    go(page, "Mixing")
    expect(page.locator("#bt-losses .main-svg").first).to_be_visible(timeout=60_000)
    page.locator("#bt-measure").click()
    expect(page.locator("#bt-moved summary")).to_be_visible(timeout=60_000)
    yield "mixing"
    go(page, "Many prompts")
    page.locator("#bt-set textarea").fill(SET)
    page.locator("#bt-set-run").click()
    expect(page.locator(".bt-set-row")).to_have_count(3, timeout=120_000)
    expect(page.locator("#bt-set-run")).to_be_enabled(timeout=120_000)
    yield "many-prompts"
    go(page, "Evidence")
    expect(page.locator("#bt-whiskers .main-svg").first).to_be_visible(timeout=60_000)
    expect(page.locator("#bt-items .bt-item").first).to_be_visible(timeout=60_000)
    yield "evidence"


def in_view(what: Locator) -> None:
    """Seen without scrolling by hand; the page may still be bringing it up."""
    expect(what).to_be_in_viewport(timeout=10_000)
