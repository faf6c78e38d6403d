"""The page while its engine is still being loaded, in a real Chromium: what works at once, what waits and says so, and how it ends."""

import pytest
from playwright.sync_api import Page, expect

from app.ui.loading import WAITING
from tests.browser.loading import held
from tests.browser.visitor import ARTIFACTS, SIZES, ended, every_screen, visit
from tests.tiny import saved_base

pytestmark = pytest.mark.browser


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_the_page_shows_what_was_recorded_and_runs_what_was_asked_when_the_model_is_there(browser, tmp_path, monkeypatch):
    with held(tmp_path, monkeypatch) as app:
        for page in visit(browser, app.address, "desktop", "light"):
            expect(page.locator("#bt-loaded")).to_contain_text("Not loaded yet")
            expect(page.locator("#bt-results .bt-recorded")).to_be_visible()
            assert page.locator("#bt-variants label").all_inner_texts() == ["base", "lora", "bitune"]
            page.locator("#bt-variants input >> nth=1").uncheck()
            page.locator("#bt-prompt textarea").fill("hello there")
            page.locator("#bt-run").click()
            expect(page.locator("#bt-results")).to_contain_text(WAITING)
            expect(page.locator("#bt-run")).to_be_disabled()
            open_tab(page, "Evidence")
            expect(page.locator("#bt-evidence table")).to_be_visible()
            open_tab(page, "Compare")
            app.release()
            ended(page)
            assert page.locator("#bt-results .bt-answer h3").all_inner_texts() == ["base", "bitune"], "what was chosen"
            expect(page.locator("#bt-loaded summary")).to_contain_text("2 checkpoints")
            expect(page.locator("#bt-variants input >> nth=1")).not_to_be_checked()


def test_attention_and_mixing_wait_too(browser, tmp_path, monkeypatch):
    with held(tmp_path, monkeypatch) as app:
        for page in visit(browser, app.address, "desktop", "light"):
            open_tab(page, "Attention")
            expect(page.locator("#bt-attention-variant input:checked")).to_have_count(0)
            page.locator("#bt-attention-prompt textarea").fill("hello")
            page.locator("#bt-read-attention").click()
            expect(page.locator("#bt-attention .bt-empty")).to_contain_text(WAITING)
            open_tab(page, "Mixing")
            expect(page.locator("#bt-ratios")).to_contain_text("appear here when the checkpoints are loaded")
            expect(page.locator("#bt-sliders, #bt-losses")).to_have_count(0)
            page.locator("#bt-mixing-prompt textarea").fill("hello")
            page.locator("#bt-sweep-run").click()
            expect(page.locator("#bt-sweep")).to_contain_text(WAITING)
            app.release()
            expect(page.locator("#bt-sweep-run")).to_be_enabled()
            expect(page.locator("#bt-sweep table")).to_be_visible()
            expect(page.locator("#bt-sliders input[type=range] >> nth=0")).to_be_visible()
            expect(page.locator("#bt-ratios table")).to_be_visible()
            open_tab(page, "Attention")
            expect(page.locator("#bt-attention-variant input[value=bitune]")).to_be_checked()
            expect(page.locator("#bt-attention .bt-map canvas")).to_have_count(3)


def test_stop_ends_the_waiting(browser, tmp_path, monkeypatch):
    with held(tmp_path, monkeypatch) as app:
        for page in visit(browser, app.address, "desktop", "light"):
            page.locator("#bt-run").click()
            expect(page.locator("#bt-results")).to_contain_text(WAITING)
            page.locator("#bt-stop").click()
            expect(page.locator("#bt-results")).to_contain_text("Stopped before the first token")
            expect(page.locator("#bt-run")).to_be_enabled()


def test_a_visitor_who_comes_later_finds_everything(browser, tmp_path, monkeypatch):
    with held(tmp_path, monkeypatch) as app:
        app.release()
        for page in visit(browser, app.address, "desktop", "light"):
            expect(page.locator("#bt-loaded summary")).to_contain_text("2 checkpoints")
            open_tab(page, "Attention")
            expect(page.locator("#bt-attention-variant input[value=bitune]")).to_be_checked()
            open_tab(page, "Mixing")
            expect(page.locator("#bt-ratios table")).to_be_visible()
            expect(page.locator("#bt-sliders input[type=range] >> nth=0")).to_be_visible()


def test_an_open_page_says_why_nothing_will_run(browser, tmp_path, monkeypatch):
    saved_base(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"damaged")
    with held(tmp_path, monkeypatch, base="damaged") as app:
        for page in visit(browser, app.address, "desktop", "light"):
            page.locator("#bt-run").click()
            app.release()
            for place in ("#bt-loaded", "#bt-results"):
                expect(page.locator(place).get_by_role("alert")).to_contain_text("damaged")
            open_tab(page, "Evidence")
            expect(page.locator("#bt-evidence table")).to_be_visible()
            page.screenshot(path=ARTIFACTS / "loading-failed.png")


@every_screen
def test_it_fits_every_screen(browser, tmp_path, monkeypatch, size, scheme):
    with held(tmp_path, monkeypatch) as app:
        for page in visit(browser, app.address, size, scheme):
            page.locator("#bt-run").click()
            expect(page.locator("#bt-results")).to_contain_text(WAITING)
            assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
            ARTIFACTS.mkdir(exist_ok=True)
            page.screenshot(path=ARTIFACTS / f"loading-{size}-{scheme}.png", full_page=True)
            open_tab(page, "Mixing")
            expect(page.locator("#bt-sweep-run")).to_be_visible()
            page.screenshot(path=ARTIFACTS / f"loading-mixing-{size}-{scheme}.png", full_page=True)
