"""Why they part in a real Chromium: away before there is something to ask, then tokens, distributions, a token that is pressed, a file."""

import json

import pytest
from playwright.sync_api import expect

from app.ui.runner import Runner
from bitune import Engine
from tests.app.ui.visiting import held_up
from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ARTIFACTS, HOSTILE, SIZES, ended, every_screen, run, visit
from tests.tiny import tiny_base

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tiny_engine(tmp_path_factory.mktemp("tiny"))) as address:
        yield address


@pytest.fixture
def page(browser, url):
    yield from visit(browser, url, "desktop", "light")


def look(page, prompt="hello there"):
    """Run, then look at the tokens."""
    run(page, prompt)
    ended(page)
    page.locator("#bt-look-tokens").click()
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(3)
    expect(page.locator("#bt-look-tokens")).to_be_enabled()


COUNT_COPIES = (
    "() => { const copy = structuredClone; window.copies = 0; structuredClone = (...of) => (window.copies++, copy(...of)); }"
)


def test_a_press_does_not_copy_the_page(page):
    """Gradio copies values for each of its updates: once 139,000 a press, beside the numbers of the tokens; the page was busy for seconds."""
    look(page)
    page.evaluate(COUNT_COPIES)
    page.locator(".bt-distribution li button >> nth=1").click()
    expect(page.locator("#bt-gone-on .bt-difference")).to_contain_text("new token")
    copies = page.evaluate("window.copies")
    assert 0 < copies < 10_000, "Gradio copies otherwise now, or somebody's nested values or outputs are copied whole again"


def test_from_two_answers_to_why_they_part_and_on(page):
    expect(page.locator("#bt-why-note")).to_contain_text("These answers are recorded")
    look(page, HOSTILE)
    expect(page.locator(".bt-parts li")).to_have_count(2)
    expect(page.locator(".bt-distribution")).to_have_count(3)
    expect(page.locator(".bt-distribution >> nth=0 >> li.bt-said")).to_have_count(1)
    expect(page.locator(".bt-cross tbody tr")).to_have_count(3)
    opened = page.locator(".bt-strip button[aria-current]")
    place = int(opened.get_attribute("data-place"))
    opened.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[data-part=step-name]")).to_contain_text(f"Token {place + 2} of")
    expect(opened).to_be_focused()
    page.keyboard.press("Home")
    expect(page.locator("[data-part=step-name]")).to_contain_text("Token 1 of")
    page.locator(".bt-distribution.bt-v2 li button >> nth=3").click()
    gone_on = page.locator("#bt-gone-on article")
    expect(gone_on).to_contain_text("bitune goes on from the token that you chose")
    expect(gone_on.locator(".bt-difference")).to_contain_text("new tokens")
    expect(gone_on.locator("mark")).to_have_count(1)
    expect(page.locator("#bt-stop-going-on")).to_be_disabled()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert saved["prompt"] == HOSTILE and set(saved["scores"]["base"]) == {"base", "lora", "bitune"}
    run(page, "something else")
    ended(page)
    expect(page.locator("#bt-why")).to_be_visible()
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(0)
    expect(page.locator("#bt-gone-on article")).to_have_count(0)
    assert page.title() == "Bitune"


def test_a_look_ends_with_its_run(page, monkeypatch):
    """What was found of the run before shows nowhere below the next one, and the model is free."""
    run(page, "hello there")
    ended(page)
    began, goes_on = held_up(monkeypatch, Runner, "part")
    page.locator("#bt-look-tokens").click()
    expect(page.locator("#bt-stop-tokens")).to_be_enabled()
    assert began.wait(30)
    run(page, "something else")
    ended(page)
    goes_on.set()
    page.wait_for_timeout(1_000)
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(0)
    page.locator("#bt-look-tokens").click()
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    assert json.loads(download.value.path().read_text(encoding="utf-8"))["prompt"] == "something else"


def test_recorded_answers_are_looked_into_at_once(page):
    expect(page.locator("#bt-results .bt-recorded")).to_be_visible()
    page.locator("#bt-look-tokens").click()
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(3)
    expect(page.locator(".bt-parts li")).to_have_count(2)


def test_recorded_answers_of_other_weights_are_not(browser, tmp_path):
    with served(tiny_engine(tmp_path)) as first:
        for page in visit(browser, first, "desktop", "light"):
            run(page, "hello")
            ended(page)
            with page.expect_download() as saved:
                page.locator("#bt-save").click()
            content = saved.value.path().read_text(encoding="utf-8")
    with served(Engine(tiny_base(seed=3))) as second:
        for page in visit(browser, second, "desktop", "light"):
            page.locator("#bt-kept input[type=file]").set_input_files(
                {"name": "run.json", "mimeType": "application/json", "buffer": content.encode()}
            )
            expect(page.locator("#bt-why-note")).to_contain_text(
                "So these recorded answers cannot be looked into; press Run for new ones."
            )
            expect(page.locator("#bt-look-tokens")).to_have_count(0)


def test_the_reference_of_compare_is_that_of_the_panel(page):
    look(page)
    about = page.locator("#bt-tokens .bt-about >> nth=0")
    expect(about).to_contain_text("Compared with base")
    page.get_by_role("button", name="Compare with this").nth(2).click()
    expect(about).to_contain_text("Compared with bitune")
    expect(page.locator(".bt-parts li >> nth=0")).to_contain_text("parts from bitune")
    expect(page.locator(".bt-strip button[aria-current]")).to_have_attribute("data-answer", "2")
    look(page, "hello again")
    expect(about).to_contain_text("Compared with bitune")
    expect(page.get_by_role("button", name="Compare with this").nth(2)).to_have_attribute("aria-pressed", "true")


HEBREW = "שלום עולם"


def said_instead(content: str, text: str, ids: list[int], texts: list[str]) -> str:
    """A saved run whose first answer is another text."""
    kept = json.loads(content)
    name, completion = next(iter(kept["update"]["completions"].items()))
    completion |= {"text": text, "token_ids": ids, "tokens": len(ids)}
    kept["tokens"][name] = texts
    return json.dumps(kept)


def test_tokens_of_a_text_from_right_to_left_stand_from_right_to_left(browser, tmp_path):
    engine = tiny_engine(tmp_path)
    ids = engine.base.tokenizer(HEBREW).input_ids
    texts = [engine.base.tokenizer.decode([token]) for token in ids]
    with served(engine) as url:
        for page in visit(browser, url, "desktop", "light"):
            run(page, "hello")
            ended(page)
            with page.expect_download() as saved:
                page.locator("#bt-save").click()
            content = said_instead(saved.value.path().read_text(encoding="utf-8"), HEBREW, ids, texts)
            page.locator("#bt-kept input[type=file]").set_input_files(
                {"name": "run.json", "mimeType": "application/json", "buffer": content.encode()}
            )
            expect(page.locator("#bt-why-note")).to_contain_text("These answers are recorded")
            page.locator("#bt-look-tokens").click()
            tokens = page.locator(".bt-strip >> nth=0 >> button")
            expect(tokens).to_have_count(len(ids))
            expect(page.locator("#bt-strips-words")).to_contain_text("‥ on each of the others")
            lefts = tokens.evaluate_all("all => all.map((token) => token.getBoundingClientRect().left)")
            assert lefts == sorted(lefts, reverse=True), "each token stands at the left of the one before"
            tokens.first.click()
            page.keyboard.press("ArrowLeft")
            expect(page.locator("[data-part=step-name]")).to_contain_text(f"Token 2 of {len(ids)}")
            expect(page.locator(".bt-said code").first).to_have_text("<0xA9>")
            expect(page.locator("#bt-tokens [data-part=step]")).to_contain_text("is a token that is only part of a character")
            page.locator(".bt-strip").first.screenshot(path=ARTIFACTS / "why-right-to-left.png")


def test_hidden_names_stay_hidden(page):
    page.locator("#bt-blind input").check()
    run(page, "hello")
    ended(page)
    expect(page.locator("#bt-names")).to_be_visible()
    expect(page.locator("#bt-why")).to_have_count(0)
    page.locator("#bt-names").click()
    expect(page.locator("#bt-look-tokens")).to_be_visible()


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        look(page, "What does it read first?")
        page.locator(".bt-distribution li button >> nth=1").click()
        expect(page.locator("#bt-gone-on .bt-difference")).to_contain_text("new tokens")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"why-{size}-{scheme}.png", full_page=True)
