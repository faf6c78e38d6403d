"""What the length of an answer costs on the page: two variants answer in a real Chromium, and the browser notes when each number of
tokens stands there."""

from playwright.sync_api import Page, expect

from benchmarks.answers import PROMPT, last_and_first, lengths_of
from benchmarks.bases import Prompts, open_engine
from benchmarks.browser import opened
from benchmarks.measures import Measured, ratio
from benchmarks.setting import Setting

# [milliseconds, tokens in the first column] at every change of what stands there, until the run has ended.
WATCH = """() => {
    const results = document.querySelector("#bt-results");
    window.arrivals = [];
    new MutationObserver(() => {
        const figure = results.querySelector(".bt-answer dd");
        if (figure) window.arrivals.push([performance.now(), Number(figure.textContent)]);
    }).observe(results, {childList: true, subtree: true, characterData: true});
}"""


def on_the_page(browser_page: Page, prompt: str, tokens: int) -> list[tuple[float, int]]:
    """Run every variant; (seconds, tokens of the first answer) at each change on the screen."""
    browser_page.get_by_text("Length and sampling").click()
    browser_page.get_by_label("number input for New tokens").fill(str(tokens))
    browser_page.locator("#bt-template input[value=none]").check()
    browser_page.locator("#bt-prompt textarea").fill(prompt)
    browser_page.evaluate(WATCH)
    browser_page.locator("#bt-run").click()
    expect(browser_page.locator("#bt-run")).to_be_disabled()
    expect(browser_page.locator("#bt-run")).to_be_enabled(timeout=600_000)
    return [(milliseconds / 1000, tokens) for milliseconds, tokens in browser_page.evaluate("window.arrivals")]


def page(setting: Setting) -> dict[str, Measured]:
    """The base and Bitune, once: it takes a minute."""
    engine, (tokens, part) = open_engine(setting, ["bitune"]), lengths_of(setting)
    prompt = Prompts(engine.base.tokenizer).new(setting.tokens(PROMPT))
    with opened(engine) as browser_page:
        last, first = last_and_first(on_the_page(browser_page, prompt, tokens), tokens, part)
    return {"long-answer-page": ratio([last], [first])}
