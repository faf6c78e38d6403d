"""A visitor in a real Chromium, offline: opens the page, runs a prompt, waits for the end."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

ARTIFACTS = Path(__file__).parent.parent.parent / "test-artifacts"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 420, "height": 900}}
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"> ${1+1} {{7*7}}"
ANSWERS = "#bt-results .bt-answer .bt-text"
every_screen = pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desktop", "light"),
        ("phone", "dark"),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("desktop", "dark"), ("phone", "light"))),
    ],
)
"""Both widths and both schemes; each of them once, unless all are wanted (`make test-long`)."""


# Gradio draws the tab before what is in it.
COMPARE = ("#bt-prompt textarea", "#bt-variants input >> nth=0", "#bt-run", "#bt-results p >> nth=0")


def visit(
    browser: Browser, url: str, size: str, scheme: str, query: str = "", parts: Sequence[str] = COMPARE, *, restarts: bool = False
):
    """A page that is open, and closed at the end.

    `query`: the rest of its address; `parts`: what is waited for; `restarts`: the server goes away and comes back, so that a part of the page
    which is fetched just then may not come.
    """
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, permissions=["clipboard-read", "clipboard-write"])
    foreign, broken = [], []

    def guard(route):
        if route.request.url.startswith((url, "data:", "blob:")):
            return route.continue_()
        foreign.append(route.request.url)
        return route.abort()

    context.route("**/*", guard)
    page = context.new_page()
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(url + query)
    for part in parts:
        expect(page.locator(part)).to_be_visible()
    yield page
    context.close()
    if restarts:
        broken = [error for error in broken if not error.startswith("Failed to fetch dynamically imported module")]
    assert foreign == [], foreign
    assert broken == [], broken


def slow(page: Page) -> None:
    """From now on every request of the page leaves a second later: a long way to the server."""
    page.evaluate(
        """() => {
            const fetched = window.fetch;
            window.fetch = async (...request) => {
                await new Promise((done) => setTimeout(done, 1000));
                return fetched(...request);
            };
        }"""
    )


def go(page: Page, tab: str) -> None:
    """Open a tab by its name."""
    page.get_by_role("tab", name=tab, exact=True).click()


def lengths(page: Page) -> None:
    """Open "Length and sampling" of the tab that is shown.

    Gradio puts the first values into the fields again one frame after it has drawn them, so what is typed within that frame is lost.
    """
    page.locator("button", has_text="Length and sampling").locator("visible=true").click()
    expect(page.get_by_label("number input for New tokens").locator("visible=true")).to_be_visible()
    page.wait_for_timeout(500)


def run(page: Page, prompt: str) -> None:
    """Press Run and wait until what stood there before is gone: redrawing removes what the page did not put there."""
    page.locator("#bt-prompt textarea").fill(prompt)
    page.evaluate(
        "document.querySelectorAll('#bt-results [data-part=answers] *').forEach((element) => element.setAttribute('data-before', ''))"
    )
    page.locator("#bt-run").click()
    expect(page.locator("#bt-results [data-before].bt-answer, #bt-results p[data-before]")).to_have_count(0)


def ended(page: Page) -> None:
    """Wait for the end of the run that was begun last."""
    expect(page.locator("#bt-results .bt-running")).to_have_count(0, timeout=30_000)
    expect(page.locator("#bt-run")).to_be_enabled(timeout=30_000)
    expect(page.locator("#bt-stop")).to_be_disabled()
