"""Judging in a real Chromium, offline: a vote, a blind vote, the tally, and what is said where voting is off."""

import json
import re
from contextlib import contextmanager

import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect

from app.ui.templates import faithful
from app.votes.place import Kept, kept_in
from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ANSWERS, ARTIFACTS, SIZES, ended, every_screen, lengths, run, visit

pytestmark = pytest.mark.browser
NAMES = ["base", "lora", "bitune"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return kept_in(str(tmp_path_factory.mktemp("votes") / "votes.sqlite3"))


@pytest.fixture(scope="module")
def url(engine, kept):
    with served(engine, votes=kept) as address:
        yield address


@pytest.fixture
def page(browser, url):
    """The page at desktop size. Whatever it asks of another host is refused, and fails the test at its end."""
    yield from visit(browser, url, "desktop", "light")


def run_blind(page: Page, prompt: str = "hello there") -> None:
    page.get_by_label("Hide the names until I have judged").check()
    run(page, prompt)
    ended(page)


def names(page: Page) -> list[str]:
    """What stands above the columns."""
    return page.locator("#bt-results h3").all_inner_texts()


def test_a_run_is_judged_once(page, kept):
    expect(page.locator("#bt-vote")).to_have_count(0)
    run(page, "hello there")
    ended(page)
    page.locator("#bt-vote").click()
    expect(page.locator("#bt-said")).to_contain_text("Nothing is chosen")
    page.locator("#bt-better").get_by_label("bitune").check()
    page.locator("#bt-reasons").get_by_label("Clearer").check()
    page.locator("#bt-vote").click()
    expect(page.locator("#bt-said")).to_have_text("Thanks, your vote is kept: bitune is better. Why: Clearer.")
    expect(page.locator("#bt-vote")).to_be_hidden()
    *_, last = kept.store.votes()
    assert [variant.name for variant in last.variants] == NAMES
    assert (last.verdict, last.place, last.reasons, last.blind) == ("better", 2, ("clear",), False)
    assert last.prompt is None and last.answers is None
    run(page, "hello again")
    ended(page)
    expect(page.locator("#bt-said")).to_have_text("")
    expect(page.locator("#bt-better input:checked, #bt-reasons input:checked, #bt-keep-texts input:checked")).to_have_count(0)


def test_two_clicks_are_one_vote(page, kept):
    run(page, "hello there")
    ended(page)
    page.locator("#bt-better").get_by_label("All are bad").check()
    # The answer to the first click has not come yet when the second one is made.
    page.evaluate("document.querySelector('#bt-vote').click(); document.querySelector('#bt-vote').click()")
    # Whichever answer comes last, or Gradio has passed over the second click as the first was under way.
    expect(page.locator("#bt-said")).to_have_text(re.compile("Thanks, your vote is kept|judged already"))
    assert sum(vote.verdict == "bad" for vote in kept.store.votes()) == 1


def test_a_blind_run_is_judged_before_the_names_appear(page, kept):
    run_blind(page)
    assert sorted(names(page)) == ["Answer A", "Answer B", "Answer C"]
    drawn = (
        page.locator("#bt-results").inner_html() + page.locator("#bt-ballot").inner_html() + page.locator("#bt-said").inner_html()
    )
    assert not [words for words in (*NAMES, "reads", "First token", "tokens/s", "bt-v0", "bt-v1") if words in drawn]
    expect(page.locator("#bt-read")).to_be_hidden()
    answers = page.locator(ANSWERS).all_inner_texts()
    page.get_by_role("tab", name="Attention").click()
    expect(page.locator("#bt-attention-prompt textarea")).not_to_have_value("hello there")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#bt-better").get_by_label("Answer B").check()
    page.locator("#bt-keep-texts input").check()
    page.locator("#bt-vote").click()
    expect(page.locator("#bt-said")).to_contain_text("Thanks, your vote is kept: Answer B (")
    shown = names(page)
    expect(page.locator("#bt-said")).to_contain_text(
        f"Answer B ({shown[1]}) is better. The prompt and the answers are kept with it."
    )
    assert sorted(shown) == sorted(NAMES)
    assert page.locator(ANSWERS).all_inner_texts() == answers, "columns stay where they were"
    expect(page.locator("#bt-said")).to_contain_text(f"A was {shown[0]}, B was {shown[1]}, C was {shown[2]}")
    *_, last = kept.store.votes()
    assert [variant.name for variant in last.variants] == shown
    assert (last.place, last.blind, last.prompt) == (1, True, "hello there")
    assert [faithful(text).split() for text in last.answers] == [text.split() for text in answers]
    page.get_by_role("tab", name="Attention").click()
    expect(page.locator("#bt-attention-prompt textarea")).to_have_value("hello there")


def test_names_can_be_shown_without_a_vote_and_the_vote_is_then_not_blind(page, kept):
    run_blind(page)
    page.locator("#bt-names").click()
    expect(page.locator("#bt-results h3").first).not_to_contain_text("Answer")
    page.locator("#bt-better").get_by_label("About the same").check()
    page.locator("#bt-vote").click()
    expect(page.locator("#bt-said")).to_have_text("Thanks, your vote is kept: the answers are about the same.")
    *_, last = kept.store.votes()
    assert (last.verdict, last.blind) == ("tie", False)
    expect(page.locator("#bt-kept summary")).to_have_text("Your runs (1)"), "kept once, when its names were there"


def test_a_blind_run_is_saved_after_the_vote_and_says_why_not_before(page):
    run_blind(page)
    page.locator("#bt-save").click()
    note = page.locator("#bt-note").get_by_role("alert")
    expect(note).to_contain_text("While the names are hidden the run cannot be saved")
    page.locator("#bt-better").get_by_label("Answer A").check()
    page.locator("#bt-vote").click()
    expect(page.locator("#bt-said")).to_contain_text("Thanks")
    expect(note).to_have_count(0)
    with page.expect_download() as download:
        page.locator("#bt-save").click()
    answers = json.loads(download.value.path().read_text("utf-8"))["update"]["completions"]
    assert sorted(answers) == sorted(NAMES)


def test_a_follow_up_says_that_it_is_not_judged(page):
    run(page, "hello there")
    ended(page)
    expect(page.locator("#bt-vote")).to_be_visible()
    page.locator("#bt-question textarea").fill("and then?")
    page.locator("#bt-ask").click()
    expect(page.locator("#bt-story")).to_contain_text("hello there")
    ended(page)
    expect(page.locator("#bt-said")).to_have_text(
        "Answers to a follow-up question are not judged, as each variant has read its own earlier answers."
    )
    expect(page.locator("#bt-vote")).to_be_hidden()
    run(page, "hello there")
    ended(page)
    expect(page.locator("#bt-said")).to_have_text("")
    expect(page.locator("#bt-vote")).to_be_visible()


def test_a_stopped_blind_run_shows_its_names_and_is_not_judged(page, slow_tokens):
    page.get_by_label("Hide the names until I have judged").check()
    lengths(page)
    page.get_by_label("number input for New tokens").fill("400")
    run(page, "a long story")
    expect(page.locator("#bt-results dl").first).to_contain_text("still writing")
    page.locator("#bt-stop").click()
    ended(page)
    expect(page.locator("#bt-vote")).to_be_hidden()
    expect(page.locator("#bt-said")).to_contain_text("This run was stopped")
    page.locator("#bt-names").click()
    expect(page.locator("#bt-results h3").first).not_to_contain_text("Answer")


def test_the_tally_is_on_the_page_and_for_programs(page, url):
    run(page, "hello there")
    ended(page)
    page.locator("#bt-better").get_by_label("lora").check()
    page.locator("#bt-vote").click()
    expect(page.locator("#bt-said")).to_contain_text("Thanks")
    page.locator("#bt-votes button").first.click()
    expect(page.locator("#bt-votes table")).to_contain_text("Win rate")
    expect(page.locator("#bt-votes table tbody tr").filter(has_text="lora").first).to_be_visible()
    answer = Client(url, verbose=False, analytics_enabled=False).predict(api_name="/votes")
    assert {pair["second"]["name"] for pair in answer["pairs"]} >= {"base"}
    assert "hello" not in json.dumps(answer)


@contextmanager
def a_page(browser, engine, kept: Kept):
    with served(engine, votes=kept) as address:
        yield from visit(browser, address, "desktop", "light")


def test_where_voting_is_off_the_page_says_why_and_goes_on(browser, engine, tmp_path):
    (tmp_path / "file").touch()
    with a_page(browser, engine, kept_in(str(tmp_path / "file" / "votes"))) as page:
        run_blind(page)
        expect(page.locator("#bt-said")).to_contain_text("Voting is off: ")
        assert str(tmp_path) not in page.content()
        expect(page.locator("#bt-vote")).to_be_hidden()
        page.locator("#bt-names").click()
        expect(page.locator("#bt-results h3").first).not_to_contain_text("Answer")


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    ARTIFACTS.mkdir(exist_ok=True)
    for page in visit(browser, url, size, scheme):
        run_blind(page)
        page.locator("#bt-votes button").first.click()
        expect(page.locator("#bt-votes .bt-note, #bt-votes .bt-empty").first).to_be_visible()
        page.locator("#bt-better").get_by_label("Answer A").check()
        page.locator("#bt-reasons").get_by_label("Clearer").check()
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        page.screenshot(path=ARTIFACTS / f"judging-{size}-{scheme}.png", full_page=True)
        page.locator("#bt-vote").click()
        expect(page.locator("#bt-said")).to_contain_text("Thanks")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        page.screenshot(path=ARTIFACTS / f"judged-{size}-{scheme}.png", full_page=True)
