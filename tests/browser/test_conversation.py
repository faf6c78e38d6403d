"""More than one turn in a real Chromium: a follow-up, an edited question, another seed, and what stands above the answers."""

import pytest
from playwright.sync_api import expect

from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ANSWERS, ARTIFACTS, HOSTILE, SIZES, ended, every_screen, lengths, run, visit

pytestmark = pytest.mark.browser
QUESTION = "#bt-question textarea"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tiny_engine(tmp_path_factory.mktemp("tiny"))) as address:
        yield address


@pytest.fixture
def page(browser, url):
    yield from visit(browser, url, "desktop", "light")


def begin(page, prompt="hello there"):
    run(page, prompt)
    ended(page)
    expect(page.locator(QUESTION)).to_be_visible()


def ask(page, question, button="#bt-ask"):
    """Ask and wait for the end: the box is emptied there."""
    page.locator(QUESTION).fill(question)
    page.locator(button).click()
    expect(page.locator(QUESTION)).to_have_value("")
    ended(page)


def test_nothing_goes_on_before_something_was_answered(page):
    expect(page.locator(QUESTION)).to_have_count(0)
    expect(page.locator("#bt-story section")).to_have_count(0)


def test_a_follow_up_goes_on_in_every_column(page):
    begin(page)
    before = page.locator(ANSWERS).all_inner_texts()
    ask(page, HOSTILE)
    expect(page.locator(".bt-asked")).to_have_text(HOSTILE)
    expect(page.locator("#bt-story section")).to_contain_text("Question 2 of a conversation")
    expect(page.locator("#bt-story section")).to_contain_text("recompute")
    expect(page.locator("#bt-story section")).to_contain_text("tested neither")
    story = page.locator("#bt-story details")
    expect(story).to_have_count(1)
    expect(story.locator(".bt-text").first).to_be_hidden()
    story.locator("summary").click()
    assert story.locator(".bt-text").all_inner_texts() == before
    page.locator("#bt-read button").click()
    read = page.locator("#bt-read .bt-text")
    expect(read).to_have_count(3)
    for text, answer in zip(read.all_inner_texts(), before, strict=True):
        assert text == f"Question: hello there\nAnswer:{answer}\n\nQuestion: {HOSTILE}\nAnswer:"
    assert page.title() == "Bitune"


def test_the_way_turns_before_are_read_can_be_chosen(page):
    begin(page)
    page.locator("#bt-earlier").get_by_text("alternating").click()
    page.locator(QUESTION).fill("and then?")
    page.keyboard.press("Enter")
    expect(page.locator("#bt-story section")).to_contain_text("alternating")
    ended(page)
    expect(page.locator(".bt-asked")).to_have_text("and then?")


def test_regenerate_draws_again_and_says_where_it_cannot(page):
    begin(page)
    page.locator("#bt-again").click()
    expect(page.get_by_role("alert")).to_contain_text("At temperature 0 every seed gives the same answers")
    ended(page)
    expect(page.locator(ANSWERS)).to_have_count(3)
    before = page.locator(ANSWERS).all_inner_texts()
    lengths(page)
    page.get_by_label("number input for Temperature").fill("1.5")
    page.locator("#bt-again").click()
    expect(page.get_by_label("Seed")).to_have_value("1")
    ended(page)
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.locator(ANSWERS).all_inner_texts() != before


def test_a_question_can_be_edited_and_asked_again(page):
    begin(page)
    ask(page, "and then?")
    page.locator("#bt-edit").click()
    expect(page.locator(QUESTION)).to_have_value("and then?")
    expect(page.get_by_text("Edit question 2 and ask again")).to_be_visible()
    ask(page, "and now?")
    expect(page.locator(".bt-asked")).to_have_text("and now?")
    expect(page.locator("#bt-story details")).to_have_count(1)
    expect(page.get_by_text("Ask a follow-up")).to_be_visible()
    page.locator("#bt-story summary").click()
    page.locator("#bt-story button").click()
    expect(page.locator(QUESTION)).to_have_value("hello there")
    ask(page, "hello again")
    expect(page.locator("#bt-story section")).to_have_count(0)
    expect(page.locator("#bt-prompt textarea")).to_have_value("hello again")


def test_a_follow_up_can_be_stopped_and_run_begins_anew(page, slow_tokens):
    lengths(page)
    begin(page)
    page.get_by_label("number input for New tokens").fill("400")
    page.locator(QUESTION).fill("a long story")
    page.locator("#bt-ask").click()
    expect(page.locator("#bt-results dl").first).to_contain_text("still writing")
    for button in ("#bt-run", "#bt-ask", "#bt-again", "#bt-edit"):
        expect(page.locator(button)).to_be_disabled()
    page.locator("#bt-stop").click()
    ended(page)
    expect(page.locator("#bt-results")).to_contain_text("by you")
    page.get_by_label("number input for New tokens").fill("6")
    begin(page, "something else")
    expect(page.locator("#bt-story section")).to_have_count(0)


def test_a_bad_question_is_a_sentence_beside_the_answers(page):
    begin(page)
    page.locator(QUESTION).fill("y" * 700)
    page.locator("#bt-ask").click()
    expect(page.get_by_role("alert")).to_contain_text("512")
    expect(page.locator(QUESTION)).to_have_value("y" * 700)
    expect(page.locator(ANSWERS)).to_have_count(3)
    ended(page)


@every_screen
def test_a_conversation_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        lengths(page)
        page.get_by_label("number input for New tokens").fill("16")  # the tiny base reads 512 tokens in all
        page.get_by_role("button", name="Length and sampling").click()
        begin(page, "What does it read first? " * 3)
        ask(page, "And what does it read after that, when everything was read once?")
        ask(page, "And then?")
        page.locator("#bt-story summary").last.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        for part in ("#bt-prompt textarea", "#bt-story section", "#bt-story summary", "#bt-go-on", "#bt-earlier label"):
            for box in (element.bounding_box() for element in page.locator(part).all()):
                assert box["x"] >= 0, f"{part} lies within the screen"
                assert box["x"] + box["width"] <= SIZES[size]["width"], f"{part} lies within the screen"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"conversation-{size}-{scheme}.png", full_page=True)
