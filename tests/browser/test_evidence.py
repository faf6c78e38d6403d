"""Evidence in a real Chromium, offline: the table, the items behind it, and a question on its way to the other tabs; on made-up results
and, at the end, on those that are shipped."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from app.evidence.items import PAGE
from tests.browser.served import TEMPLATE, served, tiny_engine
from tests.browser.visitor import ARTIFACTS, HOSTILE, SIZES, ended, every_screen, run, visit
from tests.evidence_files import VARIANTS, evidence, records, sums, write_evidence, write_records

pytestmark = pytest.mark.browser

ITEMS = "#bt-items .bt-item"
QUIZ = [{"task": "quiz", "question": HOSTILE, "choices": [HOSTILE, "b", "c"], "label": 0}, *records(60)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two settings, the texts of one of them."""
    folder = tmp_path_factory.mktemp("study")
    write_records(folder / "quiz.test.jsonl", QUIZ)
    write_records(folder / "hard.test.jsonl", records(30, "hard"))
    variants = [*VARIANTS, (HOSTILE, "custom", None, None, 7, [0], 0.5)]
    choices = evidence("choices", {"Quiz": QUIZ, "Hard-quiz": records(30, "hard")}, variants)
    choices["text"] = HOSTILE
    write_evidence(folder / "results", choices, evidence("arithmetic", {"Sums": sums(25)}))
    return folder


@pytest.fixture(scope="module")
def url(study, tmp_path_factory):
    engine = tiny_engine(tmp_path_factory.mktemp("tiny"))
    with served(engine, data=[str(study)], results=study / "results") as address:
        yield address


@pytest.fixture
def page(browser, url):
    for page in visit(browser, url, "desktop", "light"):
        opened(page)
        yield page


def opened(page: Page) -> None:
    """Open the tab and wait for what is in it."""
    page.get_by_role("tab", name="Evidence").click()
    expect(page.locator(ITEMS).first).to_be_visible(timeout=30_000)
    expect(page.locator("#bt-whiskers .main-svg").first).to_be_visible(timeout=30_000)


def show(page: Page, filter: str) -> int:
    """Choose another filter and wait until the items are its own; how many it promises."""
    page.evaluate("items => document.querySelectorAll(items).forEach((item) => item.setAttribute('data-before', ''))", ITEMS)
    label = page.locator(f"#bt-filter label:has(input[value={filter}])")
    label.click()
    expect(page.locator(f"#bt-filter input[value={filter}]")).to_be_checked()
    expect(page.locator(f"{ITEMS}[data-before]")).to_have_count(0)
    return int(label.inner_text().rsplit("(")[-1].rstrip(")"))


def value(study) -> dict:
    return json.loads((study / "results" / "choices.json").read_text())


def test_the_table_has_a_row_a_variant_and_its_numbers(page, study):
    rows = page.locator(".bt-evidence tbody tr")
    expect(rows).to_have_count(len(VARIANTS) + 1)
    for place, row in enumerate(value(study)["rows"]):
        expect(rows.nth(place).locator("th .bt-chip")).to_have_text(row["name"])
        cells = rows.nth(place).locator("td b").all_inner_texts()
        shares = [100 * row["accuracy"][key]["mean"] for key in ("average", "quiz", "hard_quiz")]
        assert cells[-3:] == [f"{share:.1f}" for share in shares]
        if row["minus"]:
            drawn = 100 * row["minus"]["average"]["mean"]
            assert cells[0].replace("\u2212", "-") == f"{drawn:+.1f}"
    expect(page.locator("#bt-whiskers .errorbar")).to_have_count(len(VARIANTS))


def test_whiskers_stand_on_one_zero_line(page, study):
    """And each has its dot at the difference of the file, its ends inside of the drawing."""
    expect(page.locator("#bt-whiskers .zl")).to_have_count(1)
    zero = page.locator("#bt-whiskers .zl").bounding_box()["x"]
    area = page.locator("#bt-whiskers .bglayer rect, #bt-whiskers .nsewdrag").last.bounding_box()
    script = """lines => lines.map(line => { const r = line.getBoundingClientRect(); return [r.left, r.right, r.y + r.height / 2]; })"""
    ends = sorted(page.locator("#bt-whiskers .xerror").evaluate_all(script), key=lambda end: end[2])
    shares = [row["minus"]["average"] for row in value(study)["rows"] if row["minus"]]
    for (left, right, _), share in zip(ends, shares, strict=True):
        assert area["x"] <= left < right <= area["x"] + area["width"]
        for end, side in ((left, share["low"]), (right, share["high"])):
            assert abs(end - zero) < 3 or (end > zero) == (side > 0)
    spans = [(right - left) / (share["high"] - share["low"]) for (left, right, _), share in zip(ends, shares, strict=True)]
    assert max(spans) - min(spans) < 0.01 * max(spans), "one scale"


def test_the_whiskers_are_saved_as_a_picture(page):
    with page.expect_download() as download:
        page.locator("#bt-whiskers .modebar-btn").click()
    assert download.value.suggested_filename == "bitune-study-choices.png"
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_filter_changes_the_list(page):
    found = {name: show(page, name) for name in ("second", "neither", "both", "first")}
    expect(page.locator("#bt-place")).to_contain_text(f"of {found['first']}")
    assert sum(found.values()) == show(page, "all") == 91
    expect(page.locator("#bt-place")).to_have_text("1 to 10 of 91")
    expect(page.locator(ITEMS)).to_have_count(PAGE)
    for name, first, second in (("first", True, False), ("second", False, True)):
        show(page, name)
        expect(page.locator("#bt-place")).to_contain_text(f"of {found[name]}")
        for item in page.locator(ITEMS).all():
            right = item.locator(".bt-is-right").inner_text()
            assert [any(f"{row} {n}/3" in " ".join(right.split()) for n in (2, 3)) for row in ("Bitune", "LoRA r16")] == [
                first,
                second,
            ]


def test_pages_and_other_choices(page):
    show(page, "all")
    expect(page.locator("#bt-place")).to_have_text("1 to 10 of 91")
    expect(page.locator("#bt-back")).to_be_disabled()
    for place in [*(f"{first} to {first + 9}" for first in range(11, 91, 10)), "91 to 91"]:
        page.locator("#bt-next").click()
        expect(page.locator("#bt-place")).to_have_text(f"{place} of 91")
    expect(page.locator("#bt-next")).to_be_disabled()
    expect(page.locator(ITEMS)).to_have_count(1)
    page.locator("#bt-task label").filter(has_text="Hard-quiz").click()
    expect(page.locator("#bt-place")).to_have_text("1 to 10 of 30")
    expect(page.locator("#bt-items-note .bt-note")).to_have_count(0)
    page.locator("#bt-first-row input").click()
    page.get_by_role("option", name="Base").click()
    expect(page.locator("#bt-filter label").first).to_contain_text("Base right, LoRA r16 wrong")
    page.locator("#bt-setting input[value=arithmetic]").check()
    expect(page.locator(".bt-evidence thead")).to_contain_text("Sums")
    expect(page.locator("#bt-place")).to_have_text("1 to 10 of 30")


def test_of_questions_without_a_text_the_figures_stay_and_nothing_is_listed(page, study):
    page.locator("#bt-questions input[value=arithmetic]").check()
    expect(page.locator("#bt-filter label").first).to_contain_text("Bitune right, LoRA r16 wrong")
    expect(page.locator("#bt-task")).to_have_count(0)
    expect(page.locator("#bt-items-note")).to_contain_text("holds 0 of these 25")
    expect(page.locator(ITEMS)).to_have_count(0)
    expect(page.locator("#bt-next")).to_have_count(0)
    found = json.loads((study / "results" / "arithmetic.json").read_text())
    right = [sum(seed) for row in found["rows"] if row["name"] == "IA3" for seed in row["predictions"]["sums"]][0]
    page.locator("#bt-first-row input").click()
    page.get_by_role("option", name="IA3", exact=True).click()
    expect(page.locator(".bt-counted dt").first).to_have_text("IA3 right")
    expect(page.locator(".bt-counted dd b").first).to_have_text(f"{100 * right / 25:.1f} %")
    expect(page.locator(".bt-evidence thead")).to_contain_text("Quiz")  # the table above is chosen by itself


def test_a_question_goes_to_compare_and_runs_there(page):
    show(page, "all")
    expect(page.locator(ITEMS)).to_have_count(PAGE)
    page.locator(ITEMS).nth(1).get_by_role("button", name="To Compare").click()
    box = page.locator("#bt-prompt textarea")
    expect(box).to_be_visible()
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    measured = (
        "Question: Which number is 0 in quiz?\n\nChoices:\nthe number 0\nthe number 1\nthe number 2\nthe number 3\n\nAnswer:"
    )
    assert TEMPLATE.format(prompt=box.input_value()) == measured
    expect(page.locator("#bt-template input[value=own]")).to_be_checked()
    expect(page.locator("#bt-results .bt-empty")).to_contain_text("Press Run")
    page.locator("#bt-run").click()
    ended(page)
    page.locator("#bt-read button").click()
    assert page.locator("#bt-read .bt-text").inner_text() == measured
    expect(page.locator("#bt-results .bt-answer")).to_have_count(3)


def test_a_question_goes_to_attention_and_is_not_replaced_by_what_ran_in_compare(page):
    page.get_by_role("tab", name="Compare").click()
    run(page, "something else")
    ended(page)
    opened(page)
    show(page, "all")
    expect(page.locator(ITEMS)).to_have_count(PAGE)
    page.locator(ITEMS).nth(2).get_by_role("button", name="To Attention").click()
    box = page.locator("#bt-attention-prompt textarea")
    expect(box).to_be_visible()
    expect(page.get_by_role("tab", name="Attention")).to_have_attribute("aria-selected", "true")
    expect(box).to_have_value("Which number is 1 in quiz?\n\nChoices:\nthe number 1\nthe number 2\nthe number 3\nthe number 4\n")
    expect(page.locator("#bt-attention-answer textarea")).to_have_value("")
    page.locator("#bt-read-attention").click()
    expect(page.locator("#bt-attention .bt-map canvas")).to_have_count(3, timeout=30_000)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("tab", name="Attention").click()
    page.wait_for_timeout(500)
    expect(box).to_have_value("Which number is 1 in quiz?\n\nChoices:\nthe number 1\nthe number 2\nthe number 3\nthe number 4\n")


def test_hostile_text_is_shown_and_runs_nothing(page):
    show(page, "all")
    expect(page.locator(ITEMS)).to_have_count(PAGE)
    expect(page.locator(f"{ITEMS} .bt-question").first).to_have_text(HOSTILE)
    expect(page.locator(f"{ITEMS} .bt-choice").first).to_have_text(HOSTILE)
    expect(page.locator(".bt-setting")).to_contain_text(HOSTILE)
    assert page.locator("#bt-evidence img, #bt-items img, #bt-items script").count() == 0
    page.locator(ITEMS).first.get_by_role("button", name="To Compare").click()
    expect(page.locator("#bt-prompt textarea")).to_be_visible()
    assert HOSTILE in page.locator("#bt-prompt textarea").input_value()
    assert page.title() == "Bitune"


def test_without_results_a_sentence_says_how_to_make_them(browser, tmp_path):
    with served(tiny_engine(tmp_path), results=tmp_path / "nothing") as address:
        for page in visit(browser, address, "desktop", "light"):
            page.get_by_role("tab", name="Evidence").click()
            expect(page.locator("#bt-evidence-missing")).to_contain_text("python -m study table")
            expect(page.locator("#bt-items")).to_have_count(0)


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    for page in visit(browser, url, size, scheme):
        opened(page)
        show(page, "all")
        expect(page.locator(ITEMS)).to_have_count(PAGE)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        figure = page.locator("#bt-whiskers .main-svg").first.bounding_box()
        assert figure["x"] + figure["width"] <= SIZES[size]["width"], "and nothing is cut off"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"evidence-{size}-{scheme}.png", full_page=True)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The page on a tiny base with the results that are shipped, and without any data."""
    with served(tiny_engine(tmp_path_factory.mktemp("tiny"))) as address:
        yield address


def test_a_visitor_without_any_data_reads_our_own_questions(browser, shipped):
    for page in visit(browser, shipped, "desktop", "light"):
        opened(page)
        expect(page.locator("#bt-questions input[value=own]")).to_be_checked()
        expect(page.locator("#bt-filter input[value=all]")).to_be_checked()
        expect(page.locator("#bt-place")).to_have_text("1 to 10 of 262")
        for item in page.locator(ITEMS).all():
            assert item.locator(".bt-question").inner_text()
            assert item.locator("ul .bt-chip").count() == 5, "what every variant chose"
        assert "Choice 1" not in page.locator("#bt-items").inner_text()
        expect(page.locator(f"{ITEMS} details table").first).to_be_hidden()
        page.locator(f"{ITEMS} summary").first.click()
        expect(page.locator(f"{ITEMS} details table").first).to_be_visible()
        page.locator("#bt-topic input").click()
        page.get_by_role("option", name="code").click()
        page.locator("#bt-task label").filter(has_text="before the question").click()
        expect(page.locator("#bt-place")).to_have_text("1 to 10 of 16")
        expect(page.locator("#bt-counted")).to_contain_text("Of 16 questions")
        page.locator(ITEMS).first.get_by_role("button", name="To Attention").click()
        box = page.locator("#bt-attention-prompt textarea")
        expect(box).to_be_visible()
        assert box.input_value().startswith("Choices:\n") and "\n\nQuestion: " in box.input_value()


def test_other_peoples_questions_are_counted_and_not_listed_as_hashes(browser, shipped):
    for page in visit(browser, shipped, "desktop", "light"):
        opened(page)
        page.locator("#bt-questions input[value=choices]").check()
        expect(page.locator("#bt-items-note")).to_contain_text("--data FOLDER")
        expect(page.locator(ITEMS)).to_have_count(0)
        expect(page.locator("#bt-counted")).to_contain_text("Of 1,483 questions")
        assert re.search(r"\b[0-9a-f]{12}\b", page.locator("main").inner_text()) is None


@every_screen
def test_our_own_questions_and_the_difference_fit_every_screen(browser, shipped, size, scheme):
    width = SIZES[size]["width"]
    for page in visit(browser, shipped, size, scheme):
        opened(page)
        for setting in ("instruction", "own"):
            page.locator(f"#bt-setting input[value={setting}]").check()
            expect(page.locator(".bt-evidence caption")).to_have_text(
                {"instruction": "Tasks never trained on", "own": "Questions of our own"}[setting]
            )
            for cell in page.locator(".bt-evidence tr > :nth-child(2)").all():
                box = cell.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= width, "the difference is on the screen"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"own-questions-{size}-{scheme}.png", full_page=True)
