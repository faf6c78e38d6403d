"""What the length of an answer costs, page included: python -m benchmarks.long_answer [--new-tokens 512]

All variants answer one prompt on the page in a real Chromium, and the browser notes when each number of tokens stands there; then
the same request without a page. The bound: the last 64 tokens take at most 1.15 times as long as the first 64.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from playwright.sync_api import Page, expect, sync_playwright

import bitune
from app.page import build_page
from app.server import serve
from app.settings import Settings, shipped_checkpoints

PROMPT = "Tell me a long story about an old lighthouse keeper."
PART = 64  # tokens at either end that are compared
# [milliseconds, tokens in the first column, characters in all columns] at every change of what stands there, until the run has ended.
WATCH = """() => {
    const results = document.querySelector("#bt-results");
    window.arrivals = [];
    new MutationObserver(() => {
        const figure = results.querySelector(".bt-answer dd");
        if (!figure) return;
        const texts = [...results.querySelectorAll(".bt-text")].map((box) => box.textContent.length);
        window.arrivals.push([performance.now(), Number(figure.textContent), texts.reduce((sum, one) => sum + one, 0)]);
    }).observe(results, {childList: true, subtree: true, characterData: true});
}"""


@contextmanager
def endless(engine: bitune.Engine) -> Iterator[None]:
    """No token ends an answer: all of them get as long as they may."""
    config, tokenizer = engine.base.model.generation_config, engine.base.tokenizer
    before = config.eos_token_id, tokenizer.eos_token
    config.eos_token_id = tokenizer.eos_token = None
    try:
        yield
    finally:
        config.eos_token_id, tokenizer.eos_token = before


@contextmanager
def opened(engine: bitune.Engine) -> Iterator[Page]:
    """The page on this engine, in a Chromium."""
    demo = build_page(engine, {})
    address = serve(demo, Settings(port=0), wait=False)
    try:
        with sync_playwright() as playwright:
            program = os.environ.get("CHROMIUM") or shutil.which("chromium") or playwright.chromium.executable_path
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(address)
            expect(page.locator("#bt-results p").first).to_be_visible(timeout=60_000)
            yield page
            browser.close()
    finally:
        demo.close()


def on_the_page(page: Page, new_tokens: int) -> list[tuple[float, int]]:
    """Run every variant; (seconds, tokens of the first answer) at each change on the screen."""
    page.get_by_text("Length and sampling").click()
    page.get_by_label("number input for New tokens").fill(str(new_tokens))
    page.locator("#bt-template input[value=none]").check()
    page.locator("#bt-prompt textarea").fill(PROMPT)
    page.evaluate(WATCH)
    page.locator("#bt-run").click()
    expect(page.locator("#bt-run")).to_be_disabled()
    expect(page.locator("#bt-run")).to_be_enabled(timeout=600_000)
    return [(milliseconds / 1000, tokens) for milliseconds, tokens, _ in page.evaluate("window.arrivals")]


def alone(engine: bitune.Engine, new_tokens: int) -> list[tuple[float, int]]:
    """The same request without a page: (seconds, tokens of the first answer) at each update."""
    names = list(engine.variants)
    updates = engine.stream(PROMPT, names, template="none", max_new_tokens=new_tokens)
    return [(time.perf_counter(), update[names[0]].tokens) for update in updates]


def last_to_first(arrivals: Sequence[tuple[float, int]], new_tokens: int) -> float:
    """Seconds of the last 64 tokens over those of the first 64 after the first one."""

    def reached(tokens: int) -> float:
        """When so many stood there; between two updates tokens come evenly."""
        (before, fewer), (after, more) = next(
            pair for pair in zip(arrivals, arrivals[1:], strict=False) if pair[0][1] < tokens <= pair[1][1]
        )
        return before + (after - before) * (tokens - fewer) / (more - fewer)

    first = reached(1 + PART) - reached(1)
    return (reached(new_tokens) - reached(new_tokens - PART)) / first


def long_answer(engine: bitune.Engine, new_tokens: int = 512) -> dict[str, float]:
    """What the length of an answer costs.

    Args:
        engine: All of its variants answer together.
        new_tokens: Length of the answers in tokens.

    Returns:
        `page` and `engine`: time of the last 64 tokens over that of the first 64, on the screen and without a page.
        `seconds_a_token_page` and `seconds_a_token_engine`: mean over the whole answer.
    """
    result = {}
    with endless(engine):
        with opened(engine) as page:
            works = {"page": on_the_page(page, new_tokens)}
        works["engine"] = alone(engine, new_tokens)
    for name, arrivals in works.items():
        begun = next(seconds for seconds, tokens in arrivals if tokens)
        result[name] = last_to_first(arrivals, new_tokens)
        result[f"seconds_a_token_{name}"] = (arrivals[-1][0] - begun) / (new_tokens - 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=512)
    options = parser.parse_args()
    engine = bitune.Engine(bitune.load_base(device="cpu", dtype="float32"))
    for folder in shipped_checkpoints():
        engine.add_checkpoint(folder)
    for name, value in long_answer(engine, options.new_tokens).items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
