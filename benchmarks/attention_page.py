"""What the tab Attention costs a visitor: bytes that cross to the browser for a map; milliseconds from a click on another head to its
picture on the screen, in a real Chromium; and seconds from Draw to BertViz's lines. The base is read twice without adapters.
"""

import json
import random

from playwright.sync_api import Page, expect

import bitune
from app.attention.handlers import AttentionHandlers
from benchmarks.bases import Prompts, open_engine
from benchmarks.browser import opened
from benchmarks.measures import Measured, amount
from benchmarks.setting import Setting
from bitune.schema.variants import MixingRatios, PromptPass, Variant

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


def payload(engine: bitune.Engine, prompt: str) -> float:
    """Kilobytes of the largest map of all heads, as JSON."""
    handlers = AttentionHandlers(engine)
    *_, last = handlers.run(prompt=prompt, variant="twice", template="none", answer="")
    seen = last.value
    heads = [None, *range(seen["heads"])]
    pictures = [
        handlers.picture({"key": seen["key"], "layer": layer, "head": head}) for layer in range(seen["layers"]) for head in heads
    ]
    return max(len(json.dumps(one)) for picture in pictures for one in picture["maps"]) / 1000


def read(page: Page, prompt: str) -> None:
    """Fill in the prompt, press Read, and wait until the maps are there."""
    page.locator("#bt-attention-prompt textarea").fill(prompt)
    page.evaluate("document.querySelectorAll('#bt-attention canvas').forEach((canvas) => canvas.setAttribute('data-before', ''))")
    page.locator("#bt-read-attention").click()
    # Not whether the button is pressed: a tiny base has read before anybody can look.
    expect(page.locator("#bt-attention canvas:not([data-before])").first).to_be_visible(timeout=120_000)


def on_screen(browser_page: Page, prompts: tuple[str, str], places: list[tuple[int, int]]) -> dict[str, Measured]:
    """Heads that were never opened before, so that each is fetched; then BertViz's head view."""
    browser_page.get_by_role("tab", name="Attention").click()
    browser_page.locator("#bt-attention-variant input[value=twice]").check()
    browser_page.locator("#bt-attention-template input[value=none]").check()
    long, short = prompts
    read(browser_page, long)
    times = [browser_page.evaluate(SWITCH, list(place)) for place in places]
    read(browser_page, short)
    drawn = [browser_page.evaluate(DRAW, "head")[0] / 1000 for _ in range(3)]
    return {"switch": amount(times, "ms"), "bertviz": amount(drawn, "s")}


def page(setting: Setting) -> dict[str, Measured]:
    """A map as it is sent, and the tab on the screen."""
    engine = open_engine(setting, [])
    facts = engine.base_facts
    passes = (PromptPass(None, "causal"), PromptPass(None, "bidirectional"))
    engine.add_variant("twice", Variant(passes, MixingRatios.constant(facts.layers, 0.5), None))
    prompts = Prompts(engine.base.tokenizer)
    long, short = prompts.new(setting.tokens(128)), prompts.new(setting.tokens(64))
    places = [(layer, head) for layer in range(facts.layers) for head in range(facts.heads + 1)]
    some = random.Random(0).sample(places, min(30, len(places)))
    with opened(engine) as browser_page:
        return {"map-size": amount([payload(engine, long)], "kB")} | on_screen(browser_page, (long, short), some)
