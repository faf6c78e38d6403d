"""What the tab Attention costs a visitor: python -m benchmarks.attention_page [--tokens 128] [--bertviz-tokens 64] [--switches 30]

Bytes that cross to the browser for a map; milliseconds from a click on another head to its picture on the screen, in a real
Chromium; and seconds from Draw to BertViz's lines, both views. The default base on the CPU, read twice without adapters.
"""

import argparse
import json
import os
import random
import shutil
import statistics

from playwright.sync_api import Page, expect, sync_playwright

import bitune
from app.attention.handlers import AttentionHandlers
from app.page import build_page
from app.server import serve
from app.settings import Settings
from bitune.schema.variants import MixingRatios, PromptPass, Variant

TEXT = "a river carries stones and sand from the hills to the sea and leaves them where the water slows down"
# From the click until the browser has drawn the frame after it.
SWITCH = """([layer, head]) => new Promise((done) => {
    const title = document.querySelector("#bt-attention [data-part=title]"), started = performance.now();
    new MutationObserver((_, observer) => {
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - started)));
    }).observe(title, {childList: true});
    document.querySelector(`#bt-attention [data-layer="${layer}"][data-head="${head}"]`).click();
})"""
DRAW = """(view) => new Promise((done) => {
    const part = (name) => document.querySelector(`#bt-attention [data-part=${name}]`), started = performance.now();
    part("bertviz-view").value = view;
    new MutationObserver((_, observer) => {
        if (part("bertviz-words").textContent === "Drawing …") return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => done([performance.now() - started, part("bertviz-words").textContent])));
    }).observe(part("bertviz-words"), {childList: true});
    part("bertviz-draw").click();
})"""


def prompt_of(engine: bitune.Engine, tokens: int) -> str:
    """Text of exactly so many tokens, and one for the answer to begin with."""
    words, text = [], TEXT.split()
    while len(engine.prompt_ids(" ".join([*words, "a"]), "base", template="none")) <= tokens + 1:
        words.append(text[len(words) % len(text)])
    return " ".join(words)


def payload(engine: bitune.Engine, prompt: str) -> str:
    """The largest map of all heads, as JSON."""
    handlers = AttentionHandlers(engine)
    *_, last = handlers.run(prompt=prompt, variant="twice", template="none", answer="")
    seen = last.value
    heads = [None, *range(seen["heads"])]
    pictures = [
        handlers.picture({"key": seen["key"], "layer": layer, "head": head}) for layer in range(seen["layers"]) for head in heads
    ]
    most = max(len(json.dumps(one)) for picture in pictures for one in picture["maps"])
    return f"one map of {seen['rows']} x {seen['rows']} tokens: at most {most / 1000:.1f} kB"


def read(page: Page, prompt: str) -> float:
    """Fill in the prompt and press Read; seconds until the maps are there."""
    page.locator("#bt-attention-prompt textarea").fill(prompt)
    page.locator("#bt-read-attention").click()
    expect(page.locator("#bt-read-attention")).to_be_disabled()
    started = page.evaluate("performance.now()")
    expect(page.locator("#bt-attention .bt-empty")).to_be_hidden(timeout=120_000)
    return (page.evaluate("performance.now()") - started) / 1000


def switches(page: Page, number: int, layers: int, heads: int) -> str:
    """Heads never opened before, so that each one is fetched."""
    places = [(layer, head) for layer in range(layers) for head in range(heads + 1)]
    times = sorted(page.evaluate(SWITCH, list(place)) for place in random.Random(0).sample(places, number))
    return f"another head: median {statistics.median(times):.0f} ms, slowest of {number} {times[-1]:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--bertviz-tokens", type=int, default=64)
    parser.add_argument("--switches", type=int, default=30)
    options = parser.parse_args()
    engine = bitune.Engine(bitune.load_base(device="cpu"))
    layers, heads = engine.base_facts.layers, engine.base_facts.heads
    passes = (PromptPass(None, "causal"), PromptPass(None, "bidirectional"))
    engine.add_variant("twice", Variant(passes, MixingRatios.constant(layers, 0.5), None))
    prompt = prompt_of(engine, options.tokens)
    print(payload(engine, prompt))
    demo = build_page(engine, {})
    address = serve(demo, Settings(port=0), wait=False)
    with sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        expect(page.locator("#bt-results p").first).to_be_visible(timeout=60_000)
        page.get_by_role("tab", name="Attention").click()
        page.locator("#bt-attention-variant input[value=twice]").check()
        page.locator("#bt-attention-template input[value=none]").check()
        print(f"{options.tokens} tokens read in {read(page, prompt):.1f} s, all layers kept")
        print(switches(page, options.switches, layers, heads))
        read(page, prompt_of(engine, options.bertviz_tokens))
        for view in ("head", "model"):
            times = [page.evaluate(DRAW, view) for _ in range(3)]
            taken = ", ".join(f"{time / 1000:.2f}" for time, _ in times)
            print(f"BertViz {view} view, {options.bertviz_tokens} tokens, {heads} heads: {taken} s ({times[0][1]})")
        browser.close()
    demo.close()


if __name__ == "__main__":
    main()
