"""Links, saved runs and the history in a real Chromium, offline: what one visitor has on the page, another one gets, and nothing runs."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.sharing.links import decode, encode
from tests.browser.loading import held
from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ANSWERS, ARTIFACTS, HOSTILE, SIZES, ended, every_screen, lengths, run, visit
from tests.evidence_files import evidence, records, sums, write_evidence, write_records

pytestmark = pytest.mark.browser

CANVASES = "#bt-attention .bt-map canvas"
ANY_TAB = ("#bt-link", "#bt-kept summary")
WHAT_IFS = {HOSTILE: {"of": "bitune", "keys": [0.25] * 4, "values": [1.0] * 4, "colour": 0}}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two settings of a study, the texts of one of them."""
    folder = tmp_path_factory.mktemp("study")
    write_records(folder / "quiz.test.jsonl", records(60))
    choices = evidence("choices", {"Quiz": records(60), "Hard-quiz": records(30, "hard")})
    write_evidence(folder / "results", choices, evidence("arithmetic", {"Sums": sums(25)}))
    return folder


@pytest.fixture(scope="module")
def url(study, tmp_path_factory):
    with served(tiny_engine(tmp_path_factory.mktemp("tiny")), data=[str(study)], results=study / "results") as address:
        yield address


@pytest.fixture
def page(browser, url):
    yield from visit(browser, url, "desktop", "light")


def go(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def copied(page: Page) -> str:
    """What stands behind the # after Copy link."""
    expect(page.locator("#bt-link")).to_have_text("Copy link")
    page.locator("#bt-link").click()
    expect(page.locator("#bt-link")).to_have_text("Link copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    return link.partition("#")[2]


def cell(page: Page, layer: int, head: int):
    return page.locator(f'#bt-attention [data-layer="{layer}"][data-head="{head}"]')


def test_a_link_restores_every_tab_for_another_visitor_and_runs_nothing(browser, url, page):
    page.locator("#bt-prompt textarea").fill(HOSTILE)
    page.locator("#bt-variants input[name=base]").uncheck()
    lengths(page)
    page.get_by_label("number input for New tokens").fill("7")
    page.get_by_label("number input for Temperature").fill("0.5")
    page.get_by_label("Seed").fill("12")
    go(page, "Evidence")
    page.locator("#bt-setting input[value=arithmetic]").check()
    expect(page.locator("#bt-evidence")).to_contain_text("Sums")
    go(page, "Mixing")
    page.locator("#bt-mixing-chosen input[name=lora]").uncheck()
    page.locator("#bt-mixing-prompt textarea").fill("for mixing")
    page.locator(".bt-preset", has_text="Causal only").click()
    expect(page.locator("#bt-sliders input[data-kind=keys]").first).to_have_value("0")
    page.locator("#bt-add").click()
    expect(page.locator("#bt-added")).to_contain_text("is a column of Compare now")
    go(page, "Attention")
    page.locator("#bt-attention-prompt textarea").fill("for attention")
    page.locator("#bt-attention-variant input[value=bitune]").check()
    page.locator("#bt-read-attention").click()
    expect(page.locator(CANVASES)).to_have_count(3)
    cell(page, 2, 3).click()
    expect(page.locator("#bt-attention [data-part=title]")).to_have_text("Layer 2, head 3")
    page.locator("#bt-attention [data-part=measure]").select_option("entropy")
    page.locator("#bt-attention [data-part=which]").select_option("difference")
    page.locator("#bt-attention [data-part=without-first]").check()
    page.locator("#bt-attention [data-part=bertviz-view]").select_option("model")
    fragment = copied(page)
    for other in visit(browser, url, "desktop", "light", "#" + fragment, ANY_TAB):
        expect(other.get_by_role("tab", name="Attention")).to_have_attribute("aria-selected", "true")
        expect(other.locator("#bt-attention-prompt textarea")).to_have_value("for attention")
        expect(other.locator("#bt-attention .bt-empty")).to_contain_text("Press Read")
        expect(other.locator(CANVASES)).to_have_count(0)
        other.locator("#bt-read-attention").click()
        expect(other.locator("#bt-attention [data-part=title]")).to_have_text("Layer 2, head 3")
        for place, value in {"measure": "entropy", "which": "difference", "bertviz-view": "model"}.items():
            expect(other.locator(f"#bt-attention [data-part={place}]")).to_have_value(value)
        expect(other.locator("#bt-attention [data-part=without-first]")).to_be_checked()
        other.screenshot(path=ARTIFACTS / "sharing-restored-attention.png", full_page=True)
        assert_compare(other)
        go(other, "Mixing")
        expect(other.locator("#bt-mixing-prompt textarea")).to_have_value("for mixing")
        expect(other.locator("#bt-mixing-chosen input[name=lora]")).not_to_be_checked()
        expect(other.locator(".bt-slot .bt-chip")).to_have_text("bitune: causal only")
        go(other, "Evidence")
        expect(other.locator("#bt-setting input[value=arithmetic]")).to_be_checked()
        expect(other.locator("#bt-evidence")).to_contain_text("Sums")
        assert other.title() == "Bitune"
        go(other, "Attention")
        assert decode(copied(other)) == decode(fragment), "and may pass it on"


def assert_compare(page: Page) -> None:
    """What the link above says of Compare."""
    go(page, "Compare")
    expect(page.locator("#bt-prompt textarea")).to_have_value(HOSTILE)
    expect(page.locator("#bt-variants input[name=base]")).not_to_be_checked()
    expect(page.locator("#bt-variants input[name='bitune: causal only']")).to_be_checked()
    lengths(page)
    for label, value in {"number input for New tokens": "7", "number input for Temperature": "0.5", "Seed": "12"}.items():
        expect(page.get_by_label(label)).to_have_value(value)
    expect(page.locator("#bt-results .bt-empty")).to_contain_text("Press Run to see the answers")


STATES = {
    "mixing": ({"tab": "mixing", "mixing": {"chosen": ["bitune", "ghost"], "prompt": "p"}}, "Not loaded here: 'ghost'."),
    "evidence": ({"tab": "evidence", "evidence": {"setting": "choices", "first": "Bitune", "second": "Nobody"}}, "Nobody"),
    "attention": ({"tab": "attention", "attention": {"prompt": "p", "layer": 40, "head": 1}}, "this base has layers 0 to 3"),
    "compare": (
        {"compare": {"prompt": "p", "seed": "x", "evil": 1}, "what_ifs": {HOSTILE: 3}, "tab": HOSTILE},
        "which is not a number",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_what_is_not_here_is_a_sentence_and_the_rest_is_restored(browser, url, name):
    state, words = STATES[name]
    for page in visit(browser, url, "desktop", "light", "#" + encode(state), ANY_TAB):
        expect(page.locator("#bt-note").get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("tab", name=name.capitalize())).to_have_attribute("aria-selected", "true")
        if name != "evidence":
            box = {"mixing": "#bt-mixing-prompt", "attention": "#bt-attention-prompt", "compare": "#bt-prompt"}[name]
            expect(page.locator(f"{box} textarea")).to_have_value("p")
        assert page.title() == "Bitune" and page.locator("#bt-note img").count() == 0


def test_a_link_that_asks_for_more_than_this_page_writes(browser, url):
    for page in visit(browser, url, "desktop", "light", "#" + encode({"compare": {"prompt": "p", "max_new_tokens": 600}})):
        expect(page.locator("#bt-note").get_by_role("alert")).to_contain_text("600 new tokens; this page writes at most 512")
        run(page, "hello")
        expect(page.locator(ANSWERS).first).not_to_be_empty()
        page.locator("#bt-stop").click()  # it would write as many as it may
        ended(page)


def test_a_damaged_link_is_a_sentence_and_the_page_is_there(browser, url):
    for page in visit(browser, url, "desktop", "light", "#" + encode({"compare": {"prompt": "p"}})[:-8]):
        expect(page.locator("#bt-note").get_by_role("alert")).to_contain_text("damaged or cut short")
        run(page, "hello")
        ended(page)


def test_a_link_opened_before_the_model_is_there(browser, tmp_path, monkeypatch):
    state = {
        "tab": "mixing",
        "compare": {"prompt": "hello", "variants": ["lora", HOSTILE]},
        "mixing": {"chosen": ["bitune"]},
        "attention": {"variant": HOSTILE, "layer": 1, "head": 0},
        "what_ifs": WHAT_IFS,
    }
    with held(tmp_path, monkeypatch) as app:
        for page in visit(browser, app.address, "desktop", "light", "#" + encode(state), ANY_TAB):
            expect(page.get_by_role("tab", name="Mixing")).to_have_attribute("aria-selected", "true")
            expect(page.locator("#bt-note")).to_contain_text("Its what-ifs come when the model is loaded")
            app.release()
            expect(page.locator(".bt-slot .bt-chip")).to_have_text(HOSTILE)
            expect(page.locator("#bt-mixing-chosen input[name=lora]")).not_to_be_checked()
            expect(page.locator("#bt-note [role=alert]")).to_have_count(0)
            go(page, "Compare")
            expect(page.locator("#bt-variants label:has(input:checked)")).to_have_text(["lora", HOSTILE])
            page.locator("#bt-run").click()
            ended(page)
            expect(page.locator("#bt-results h3")).to_have_text(["lora", HOSTILE])
            go(page, "Attention")
            expect(page.locator("#bt-attention-variant label:has(input:checked)")).to_have_text(HOSTILE)


def saved(page: Page, folder: Path) -> Path:
    """The file that Save run gives."""
    with page.expect_download() as download:
        page.locator("#bt-save").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def drop(page: Page, name: str, text: str) -> None:
    """A file dropped in the middle of the page."""
    script = """([name, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], name, { type: "application/json" }));
        for (const kind of ["dragover", "drop"]) {
            document.querySelector("#bt-results").dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
        }
    }"""
    page.evaluate(script, [name, text])


def test_a_run_is_saved_and_dropped_on_a_page_without_a_model(browser, page, tmp_path, monkeypatch):
    run(page, HOSTILE)
    ended(page)
    texts = page.locator(ANSWERS).all_inner_texts()
    path = saved(page, tmp_path)
    assert re.fullmatch(r"bitune-run-[\d-]+\.json", path.name)
    content = path.read_text("utf-8")
    with held(tmp_path / "app", monkeypatch) as app:
        for other in visit(browser, app.address, "desktop", "light"):
            go(other, "Mixing")
            drop(other, "run.json", content)
            expect(other.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
            expect(other.locator(".bt-recorded")).to_contain_text("Saved run")
            expect(other.locator(".bt-recorded")).to_contain_text("No model is loaded here")
            assert other.locator(ANSWERS).all_inner_texts() == texts
            expect(other.locator("#bt-prompt textarea")).to_have_value(HOSTILE)
            assert other.locator("#bt-results img").count() == 0 and other.title() == "Bitune"
            assert json.loads(saved(other, tmp_path).read_text("utf-8")) == json.loads(content), "saved again as it was"
            drop(other, "run.json", content.replace('"done": true', '"done": false'))
            expect(other.locator("#bt-note").get_by_role("alert")).to_contain_text("'run.json' is a saved run, but it is damaged")
            drop(other, "notes.txt", "Dear diary")
            expect(other.locator("#bt-note").get_by_role("alert")).to_have_text(
                "'notes.txt' is not a saved run. Open a .json file that “Save run” has made."
            )
            drop(other, "large.json", "x" * (2**20 + 1))
            expect(other.locator("#bt-kept [data-part=words]")).to_have_text(
                "“large.json” is not a saved run: it is larger than 1 MB. Open a .json file that “Save run” has made."
            )


def test_save_says_when_there_is_nothing_to_save(page):
    page.get_by_role("button", name="A question alone").click()  # not recorded here
    expect(page.locator("#bt-results .bt-empty")).to_contain_text("Nothing has run yet")
    page.locator("#bt-save").click()
    expect(page.locator("#bt-note").get_by_role("alert")).to_contain_text("no run to save yet")


def entries(page: Page):
    return page.locator("#bt-kept li .bt-open")


def test_the_history_survives_a_reload_and_never_leaves_the_browser_by_itself(page):
    for prompt in ("first", HOSTILE):
        run(page, prompt)
        ended(page)
    summary = page.locator("#bt-kept summary")
    expect(summary).to_have_text("Your runs (2)")
    kept = page.locator(ANSWERS).all_inner_texts()
    sent = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    page.reload()
    expect(summary).to_have_text("Your runs (2)")
    expect(page.locator("#bt-results .bt-recorded")).to_be_visible()
    summary.click()
    expect(entries(page)).to_have_text([HOSTILE, "first"])
    page.screenshot(path=ARTIFACTS / "sharing-history.png")
    assert not [body for body in sent if "onerror" in body]
    entries(page).first.click()
    expect(page.locator(".bt-recorded")).to_contain_text("Saved run")
    expect(page.locator("#bt-prompt textarea")).to_have_value(HOSTILE)
    assert page.locator(ANSWERS).all_inner_texts() == kept
    assert [body for body in sent if "onerror" in body], "opened, so the server shows it"
    summary.click()
    page.locator("#bt-kept .bt-delete").first.click()
    expect(entries(page)).to_have_text(["first"])
    for _ in range(2):
        page.locator("#bt-kept [data-part=clear]").click()
    expect(page.locator("#bt-kept li")).to_contain_text("None yet")
    page.reload()
    expect(summary).to_have_text("Your runs")


def test_the_history_is_bounded_and_drops_the_oldest(page):
    fill = """() => { for (let n = 10; n < 70; n++) localStorage.setItem("bitune-run:2020-01-01T00:00:00." + n + "Z:x", "not a run"); }"""
    page.evaluate(fill)
    run(page, "newest")
    ended(page)
    summary = page.locator("#bt-kept summary")
    expect(summary).to_have_text("Your runs (50)")
    summary.click()
    expect(entries(page).first).to_have_text("newest")
    expect(entries(page).nth(1)).to_have_text("A run that cannot be read")
    entries(page).nth(1).click()
    expect(page.locator("#bt-note").get_by_role("alert")).to_contain_text("This is not a saved run.")


def test_the_history_closes_by_a_press_elsewhere_by_escape_and_by_another_tab(page):
    run(page, "hello")
    ended(page)
    summary, opened = page.locator("#bt-kept summary"), page.locator("#bt-kept details[open]")

    def open_history() -> None:
        summary.click()
        expect(opened).to_have_count(1)

    open_history()
    page.locator("#bt-kept .bt-runs .bt-about").first.click()
    page.locator("#bt-kept [data-part=clear]").click()  # its first press asks again
    expect(opened).to_have_count(1), "what is in the list is not elsewhere"
    page.locator(".bt-introduction").first.click()
    expect(opened).to_have_count(0)
    open_history()
    entries(page).first.focus()
    page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    expect(summary).to_be_focused()
    open_history()
    go(page, "Mixing")
    expect(opened).to_have_count(0)
    open_history()
    page.get_by_role("tab", name="Mixing", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Attention", exact=True)).to_have_attribute("aria-selected", "true")
    expect(opened).to_have_count(0)
    open_history()
    page.locator("#bt-kept .bt-delete").first.click()
    expect(page.locator("#bt-kept li")).to_contain_text("None yet")
    expect(opened).to_have_count(1)


@every_screen
def test_it_fits_every_screen(browser, url, size, scheme):
    state = {"compare": {"prompt": "p", "variants": ["ghost", "lora"], "seed": -1}}
    for page in visit(browser, url, size, scheme, "#" + encode(state)):
        expect(page.locator("#bt-note").get_by_role("alert")).to_contain_text("ghost")
        run(page, "A prompt of the visitor's own, long enough to need more than one line in the list of runs")
        ended(page)
        page.locator("#bt-kept summary").click()
        expect(entries(page)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        box = page.locator("#bt-kept .bt-runs").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[size]["width"]
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"sharing-{size}-{scheme}.png")


def test_a_conversation_and_what_is_looked_at_come_back_with_a_link(browser, url, page):
    run(page, "hello")
    ended(page)
    page.locator("#bt-question textarea").fill("and why?")
    page.locator("#bt-ask").click()
    expect(page.locator("#bt-story")).to_contain_text("hello")
    ended(page)
    page.get_by_role("button", name="Compare with this").nth(2).click()
    page.locator("#bt-look-tokens").click()
    expect(page.locator("#bt-tokens .bt-strip")).to_have_count(3)
    page.locator(".bt-strip button[data-answer='1'][data-place='2']").click()
    page.locator("#bt-lens-of label").filter(has_text="bitune").click()
    answers = page.locator(ANSWERS).all_inner_texts()
    fragment = copied(page)
    for other in visit(browser, url, "desktop", "light", "#" + fragment, ANY_TAB):
        expect(other.locator("#bt-story")).to_contain_text("hello")
        expect(other.locator("#bt-results .bt-empty")).to_contain_text("Press Ask")
        expect(other.locator("#bt-question textarea")).to_have_value("and why?")
        assert decode(copied(other)) == decode(fragment), "and may be passed on"
        other.locator("#bt-ask").click()
        expect(other.locator("#bt-results .bt-answer")).to_have_count(3)
        ended(other)
        assert other.locator(ANSWERS).all_inner_texts() == answers
        expect(other.locator("#bt-lens-of input[value=bitune]")).to_be_checked()
        other.locator("#bt-look-tokens").click()
        expect(other.locator("#bt-tokens .bt-about >> nth=0")).to_contain_text("Compared with bitune")
        opened = other.locator(".bt-strip button[aria-current]")
        expect(opened).to_have_attribute("data-answer", "1")
        expect(opened).to_have_attribute("data-place", "2")
