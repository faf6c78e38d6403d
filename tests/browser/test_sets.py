"""Many prompts in a real browser: pasted and from a file, stopped and gone on with, filtered, saved, sent to other tabs."""

import csv
import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.served import served, tiny_engine
from tests.browser.visitor import lengths, slow, visit

pytestmark = pytest.mark.browser

PROMPTS = "\n".join(f"What is {number} and {number}?\t{2 * number}" for number in range(30))
PARTS = ("#bt-run",)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tiny_engine(tmp_path_factory.mktemp("tiny"))) as url:
        yield url


@pytest.fixture
def page(browser, url):
    yield from on_tab(browser, url, "desktop", "light")


def on_tab(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme, parts=PARTS):
        page.get_by_role("tab", name="Many prompts").click()
        expect(page.locator("#bt-set textarea")).to_be_visible()
        yield page


def begin(page, text, tokens=4):
    page.locator("#bt-set textarea").fill(text)
    lengths(page)
    page.get_by_role("spinbutton", name="number input for New tokens").last.fill(str(tokens))
    page.locator("#bt-set-run").click()


def ended(page, rows):
    expect(page.locator("#bt-set-status")).to_contain_text(f"{rows} of {rows} prompts.", timeout=60_000)
    expect(page.locator("#bt-set-run")).to_be_enabled()
    expect(page.locator("#bt-set-stop")).to_be_disabled()


def test_a_set_is_answered_compared_and_looked_through(page):
    begin(page, PROMPTS)
    ended(page, 30)
    table = page.locator(".bt-set-table")
    expect(table.locator("tbody tr")).to_have_count(3)
    expect(table.locator("thead")).to_contain_text("Right, of 30")
    expect(page.locator(".bt-set-row")).to_have_count(20)
    expect(page.locator(".bt-set-row").first).to_contain_text("What is 0 and 0?")
    page.locator("#bt-set-next").click()
    expect(page.locator(".bt-set-row")).to_have_count(10)
    expect(page.locator("#bt-set-place")).to_have_text("21 to 30 of 30")
    page.locator("#bt-set-filter").get_by_text(re.compile("^all the same text")).click()
    expect(page.locator("#bt-set-filter input:checked")).to_have_count(1)
    expect(page.locator(".bt-set-row header", has_not_text="the same text")).to_have_count(0)
    with page.expect_download() as saved:
        page.locator("#bt-set-jsonl").click()
    head, *rows = map(json.loads, saved.value.path().read_text(encoding="utf-8").rstrip("\n").split("\n"))
    assert head["settings"]["max_new_tokens"] == 4 and [row["index"] for row in rows] == list(range(30))
    assert rows[3]["right"] == "6" and set(rows[3]["answers"]) == {"base", "lora", "bitune"}
    with page.expect_download() as saved:
        page.locator("#bt-set-csv").click()
    with saved.value.path().open(encoding="utf-8", newline="") as table:
        assert len(list(csv.reader(table))) == 31


def test_a_prompt_of_a_set_opens_in_another_tab(page):
    begin(page, "Why?\nWho is it?")
    ended(page, 2)
    page.get_by_role("button", name="Prompt 2 to Attention").click()
    expect(page.locator("#bt-attention-prompt textarea")).to_have_value("Who is it?")
    page.get_by_role("tab", name="Many prompts").click()
    page.get_by_role("button", name="Prompt 1 to Compare").click()
    expect(page.locator("#bt-prompt textarea")).to_have_value("Why?")
    expect(page.locator("#bt-results")).to_contain_text("comes from another tab")


def test_stop_keeps_what_was_answered_and_go_on_answers_the_rest(page):
    begin(page, PROMPTS, tokens=64)
    expect(page.locator(".bt-set-row").first).to_be_visible(timeout=60_000)
    page.locator("#bt-set-stop").click()
    expect(page.locator("#bt-set-status")).to_contain_text("Stopped.", timeout=30_000)
    done = int(re.search(r"(\d+) of 30", page.locator("#bt-set-status").inner_text())[1])
    assert 0 < done < 30
    expect(page.locator("#bt-set-run")).to_be_enabled()
    page.locator("#bt-set-go-on").click()
    ended(page, 30)
    expect(page.locator("#bt-set-go-on")).to_be_hidden()


def test_what_is_chosen_while_the_tab_is_opened_stays(browser, url):
    for page in visit(browser, url, "desktop", "light", parts=PARTS):
        slow(page)
        page.get_by_role("tab", name="Many prompts").click()
        page.locator("#bt-set-variants input[name=lora]").uncheck()
        page.wait_for_timeout(2_000)
        expect(page.locator("#bt-set-variants input[name=lora]")).not_to_be_checked()


def test_a_file_is_read_in_the_browser(page, tmp_path):
    (tmp_path / "set.csv").write_text("question,answer\nWhy?,because\nWho?,\n")
    page.locator("#bt-set-file input").set_input_files(tmp_path / "set.csv")
    expect(page.locator("#bt-set-note")).to_have_text("2 prompts, 1 of them with a right answer.")
    expect(page.locator("#bt-set textarea")).to_have_value("question,answer\nWhy?,because\nWho?,\n")
    (tmp_path / "set.csv").write_text("name\nWhy?\n")
    page.locator("#bt-set-file input").set_input_files(tmp_path / "set.csv")
    expect(page.locator("#bt-set-note")).to_contain_text("none is called prompt or question")
    before = page.locator("#bt-set textarea").input_value()
    (tmp_path / "set.txt").write_bytes("Où est-ce ?".encode("latin-1"))
    page.locator("#bt-set-file input").set_input_files(tmp_path / "set.txt")
    expect(page.locator("#bt-set-file")).to_contain_text("is no text in UTF-8")
    assert page.locator("#bt-set textarea").input_value() == before
    (tmp_path / "set.txt").write_bytes("\ufeffOù est-ce ?".encode())
    page.locator("#bt-set-file input").set_input_files(tmp_path / "set.txt")
    expect(page.locator("#bt-set-note")).to_have_text("1 prompt.")
    expect(page.locator("#bt-set textarea")).to_have_value("Où est-ce ?")
    expect(page.locator("#bt-set-file")).not_to_contain_text("is no text")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "holds no prompt"), ('{"prompt": 1}', "line 1: field 'prompt' is 1"), ("Why?\n" * 201, "at most 200 of a set")],
)
def test_what_cannot_be_asked_is_one_sentence(page, text, words):
    begin(page, text)
    expect(page.locator("#bt-set-status [role=alert]")).to_contain_text(words)
    expect(page.locator("#bt-set-run")).to_be_enabled()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(browser, url, size):
    for page in on_tab(browser, url, size, "dark"):
        begin(page, "A" * 300 + "\nWhy?\t" + "b" * 200)
        ended(page, 2)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_link_restores_the_choices_and_not_the_prompts(browser, url, page):
    page.locator("#bt-set textarea").fill("Why?")
    page.locator("#bt-set-variants input[name=lora]").uncheck()
    lengths(page)
    page.get_by_role("spinbutton", name="number input for New tokens").last.fill("7")
    page.locator("#bt-link").click()
    expect(page.locator("#bt-link")).to_have_text("Link copied")
    fragment = page.url.partition("#")[2]
    for other in visit(browser, url, "desktop", "light", "#" + fragment, parts=("#bt-link",)):
        expect(other.get_by_role("tab", name="Many prompts")).to_have_attribute("aria-selected", "true")
        expect(other.locator("#bt-set-variants input[name=lora]")).not_to_be_checked()
        expect(other.locator("#bt-set-variants input[name=bitune]")).to_be_checked()
        expect(other.locator("#bt-set textarea")).to_have_value("")
        lengths(other)
        expect(other.get_by_role("spinbutton", name="number input for New tokens").last).to_have_value("7")
