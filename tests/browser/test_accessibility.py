"""What axe-core finds on the page and what keys do there, in a real Chromium, offline: every tab, both widths, both schemes."""

import json
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.votes.place import kept_in
from bitune import Engine
from tests.browser.served import METHODS, served, tiny_folders
from tests.browser.visitor import ended, every_screen, go, lengths, run, visit
from tests.tiny import tiny_base

pytestmark = pytest.mark.browser

GRAVE = ("moderate", "serious", "critical")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A page on which everything is there that can be: a training log, votes that are kept, the shipped results."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_folders(folder)
    log = [
        {"step": step, "loss": 3 - step / 50, "alpha_k": [step / 100] * 4, "alpha_v": [0.5] * 4} for step in range(10, 101, 10)
    ]
    (folder / "bitune" / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    engine = Engine(tiny_base())
    for method in METHODS:
        engine.add_checkpoint(folder / method)
    with served(engine, votes=kept_in(str(folder / "votes.sqlite3"))) as address:
        yield address


def looks(page: Page) -> Iterator[str]:
    """A visit in one go; the name of each thing to look at, once it is there."""
    yield "Compare, before a run"
    lengths(page)
    run(page, "hello there")
    ended(page)
    page.locator("#bt-read button").first.click()
    expect(page.locator("#bt-read .bt-text").first).to_be_visible()
    yield "Compare, after a run"
    page.locator("#bt-look-tokens").click()
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(3)
    expect(page.locator("#bt-look-tokens")).to_be_enabled()
    page.locator(".bt-distribution li button >> nth=1").click()
    expect(page.locator("#bt-gone-on .bt-difference")).to_contain_text("new token")
    yield "Compare, why they part"
    page.locator("#bt-question textarea").fill("and then?")
    page.locator("#bt-ask").click()
    expect(page.locator(".bt-asked")).to_be_visible()
    ended(page)
    page.locator("#bt-story details").evaluate("story => { story.open = true; }")
    yield "Compare, a second question"
    go(page, "Attention")
    expect(page.locator("#bt-read-attention")).to_be_visible()
    yield "Attention, before it is read"
    page.locator("#bt-attention-prompt textarea").fill("hi")
    page.locator("#bt-read-attention").click()
    expect(page.locator("#bt-attention .bt-empty")).to_be_hidden(timeout=30_000)
    expect(page.locator("#bt-read-attention")).to_be_enabled()
    yield "Attention, read"
    go(page, "Mixing")
    for chart in ("#bt-mixing-layers", ".bt-heat-maps", "#bt-losses"):  # Gradio fetches plotly when it draws the first one
        expect(page.locator(f"{chart} .main-svg").first).to_be_visible(timeout=30_000)
    yield "Mixing, before it is measured"
    page.locator("#bt-measure").click()
    page.locator("#bt-moved summary").click(timeout=30_000)
    page.locator("#bt-sweep-run").click()
    expect(page.locator("#bt-sweep-curve .point")).to_have_count(9, timeout=30_000)
    page.locator("#bt-add").click()
    expect(page.locator(".bt-slot .bt-chip:visible")).to_have_count(1)
    yield "Mixing, measured"
    go(page, "Many prompts")
    expect(page.locator("#bt-set textarea")).to_be_visible()
    yield "Many prompts, before a run"
    page.locator("#bt-set textarea").fill(f"What is 1 and 1?\t2\n{'What is 2 and 2? ' * 25}\t4")
    page.locator("#bt-set-run").click()
    expect(page.locator(".bt-set-row")).to_have_count(2)
    expect(page.locator("#bt-set-run")).to_be_enabled()
    yield "Many prompts, answered"
    go(page, "Evidence")
    expect(page.locator("#bt-items .bt-item").first).to_be_visible(timeout=30_000)
    expect(page.locator("#bt-whiskers .main-svg").first).to_be_visible(timeout=30_000)
    page.locator("#bt-items summary").first.click()
    yield "Evidence"


def grave(page: Page) -> list[str]:
    """What axe-core calls moderate, serious or critical: rule, selector, its own words. Of colours that stand still."""
    page.wait_for_function("() => !document.getAnimations().some(one => one instanceof CSSTransition)")
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} {' '.join(map(str, node['target']))}: {(node['any'] + node['all'] + node['none'])[0]['message']}"
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]


@every_screen
def test_axe_finds_nothing_grave(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        found = {look: words for look in looks(page) if (words := grave(page))}
        assert found == {}, json.dumps(found, indent=1, ensure_ascii=False)


# What keeps its size of letters when that of the browser doubles, in one go, as the page goes on changing; charts keep theirs.
KEPT = """() => {
    const size = (element) => parseFloat(getComputedStyle(element).fontSize);
    const written = [...document.body.querySelectorAll("*")].filter((element) =>
        [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
        && !element.closest("svg, script, style, .js-plotly-plot") && element.checkVisibility());
    const calm = document.head.appendChild(document.createElement("style"));
    calm.textContent = "* { transition: none !important; }"; // letters of buttons grow slowly
    const before = written.map(size);
    document.documentElement.style.fontSize = "200%";
    const kept = written.filter((element, place) => Math.abs(size(element) / before[place] - 2) > 0.04);
    document.documentElement.style.fontSize = "";
    calm.remove();
    return kept.map((element) => `${element.tagName}.${element.className}: ${element.textContent.slice(0, 30)}`);
}"""


def test_letters_double_when_those_of_the_browser_do(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        for look in looks(page):
            assert page.evaluate(KEPT) == [], look


@pytest.fixture
def page(browser, url):
    yield from visit(browser, url, "desktop", "light")


def test_tabs_obey_arrow_keys(page):
    names = page.get_by_role("tab").all_inner_texts()
    page.get_by_role("tab", name=names[0], exact=True).focus()
    last = len(names) - 1
    for key, place in (
        ("ArrowRight", 1),
        ("End", last),
        ("ArrowRight", 0),
        ("ArrowLeft", last),
        ("ArrowLeft", last - 1),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        tab = page.get_by_role("tab", name=names[place], exact=True)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")


RUNS = [
    ("Compare", "#bt-run", "#bt-results [data-part=said]", "All answers have ended."),
    ("Attention", "#bt-read-attention", "#bt-aloud", "Read: this has ended."),
    ("Mixing", "#bt-measure", "#bt-aloud", "Measure: this has ended."),
    ("Many prompts", "#bt-set-run", "#bt-aloud", "Run: this has ended."),
]


@pytest.mark.parametrize(("tab", "button", "place", "words"), RUNS, ids=[run[0] for run in RUNS])
def test_a_button_that_ran_keeps_the_focus_and_its_end_is_said(page, tab, button, place, words):
    go(page, tab)
    if tab == "Many prompts":
        page.locator("#bt-set textarea").fill("What is 1 and 1?")
    page.evaluate(
        """button => {
            window.lost = false;
            document.querySelector(button).addEventListener("click", () => window.since = performance.now());
            setInterval(() => {
                const now = document.activeElement;
                if (now === document.body) window.nowhere = (window.nowhere ?? 0) + 1; else window.nowhere = 0;
                if (window.since && window.nowhere > 10) window.lost = true; // for half a second
            }, 50);
        }""",
        button,
    )
    page.locator(button).focus()
    page.keyboard.press("Enter")
    expect(page.locator(place)).to_have_text(words, timeout=30_000)
    expect(page.locator(button)).to_be_enabled()
    expect(page.locator(button)).to_be_focused()
    assert not page.evaluate("window.lost"), "nor was it lost on the way"
    assert page.locator(place).get_attribute("role") == "status"


def test_sliders_of_the_ratios_obey_every_key(page):
    go(page, "Mixing")
    slider = page.locator("#bt-sliders input").first
    slider.focus()
    for key, value in (("Home", 0), ("PageUp", 0.1), ("ArrowRight", 0.11), ("End", 1), ("PageDown", 0.9), ("ArrowDown", 0.89)):
        page.keyboard.press(key)
        assert float(slider.input_value()) == pytest.approx(value), key
        expect(page.locator("#bt-sliders output").first).to_have_text(f"{value:.2f}")


def test_each_paragraph_of_a_visitor_has_its_own_direction(page):
    """Hebrew, then English: in the box, in the answers' prompt and where it is asked again."""
    both = "\u05e9\u05dc\u05d5\u05dd\nhello"
    boxes = page.locator("textarea").evaluate_all("all => all.map(e => getComputedStyle(e).unicodeBidi)")
    assert set(boxes) == {"plaintext"}
    run(page, both)
    ended(page)
    page.locator("#bt-question textarea").fill(both)
    page.locator("#bt-ask").click()
    expect(page.locator(".bt-asked")).to_be_visible()
    ended(page)
    page.locator("#bt-story details").evaluate("story => { story.open = true; }")
    page.locator("#bt-read button").first.click()
    for place in (".bt-asked", "#bt-story summary", "#bt-read .bt-text >> nth=0", "#bt-results .bt-text >> nth=0"):
        assert page.locator(place).get_attribute("dir") == "auto", place
