"""Another base from the page, in a real Chromium: every open page says that it restarts, and comes back by itself with the other base."""

from threading import Event

import pytest
from playwright.sync_api import expect

from app.models.base_handlers import RESTARTS
from app.settings import Settings
from tests.app.test_exchange import address, running
from tests.browser.served import served, tiny_engine, tiny_folders
from tests.browser.visitor import ARTIFACTS, SIZES, ended, every_screen, run, visit
from tests.tiny import saved_base

pytestmark = pytest.mark.browser


def ask(page, base):
    page.get_by_role("button", name="Load another base").click()
    page.locator("#bt-base-source input").fill(str(base))
    page.locator("#bt-base-load").click()


def names(page):
    return page.locator("#bt-variants label")


def test_open_pages_come_back_with_the_other_base(browser, tmp_path, monkeypatch):
    folder = tiny_folders(tmp_path)
    saved_base(folder / "other", "qwen3")
    saved_base(folder / "broken", "qwen3")
    (folder / "broken" / "tokenizer.json").write_text("{}")
    settings = Settings(str(folder / "base"), (str(folder / "lora"),), chosen=True, port=0, votes="off")
    known = Event()
    with running(settings, monkeypatch, known) as app:
        url = address(app.next())
        for page in visit(browser, url, "desktop", "light", restarts=True):
            for other in visit(browser, url, "phone", "dark", restarts=True):
                expect(page.locator("#bt-loaded summary")).to_contain_text("Loaded base")
                ask(page, folder / "nothing")
                expect(page.locator("#bt-base-words").get_by_role("alert")).to_contain_text("There is no folder")
                page.locator("#bt-base-source input").fill(str(folder / "other"))
                page.locator("#bt-base-load").click()
                for each in (page, other):
                    expect(each.locator("#bt-ends")).to_have_text(RESTARTS.format(base=folder / "other"))
                ARTIFACTS.mkdir(exist_ok=True)
                other.screenshot(path=ARTIFACTS / "base-restarts.png")
                known.set()
                for each in (page, other):
                    expect(each.locator("#bt-loaded summary")).to_contain_text("Loaded other", timeout=60_000)
                    expect(each.locator("#bt-ends")).to_have_count(0)
                    expect(names(each)).to_have_text(["base"])
                    expect(each.locator(".bt-note").first).to_contain_text("cannot be loaded with this base: lora")
                run(page, "hello there")
                ended(page)
                ask(page, folder / "broken")
                for each in (page, other):
                    expect(each.locator(".bt-note").first).to_contain_text("tokenizer files are damaged", timeout=60_000)
                    expect(each.locator("#bt-loaded summary")).to_contain_text("Loaded other", timeout=60_000)
                ask(page, folder / "base")
                for each in (page, other):
                    expect(each.locator("#bt-loaded summary")).to_contain_text("Loaded base", timeout=60_000)
                    expect(names(each)).to_have_text(["base", "lora"])
                run(page, "hello there")
                ended(page)
                assert page.locator("#bt-results .bt-answer h3").all_inner_texts() == ["base", "lora"]


@every_screen
def test_it_fits_every_screen(browser, tmp_path, size, scheme):
    with served(tiny_engine(tmp_path), loads=True, bases=True) as url:
        for page in visit(browser, url, size, scheme):
            ARTIFACTS.mkdir(exist_ok=True)
            page.screenshot(path=ARTIFACTS / f"base-closed-{size}-{scheme}.png")
            ask(page, tmp_path / "nothing")
            expect(page.locator("#bt-base-words").get_by_role("alert")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
            page.screenshot(path=ARTIFACTS / f"base-{size}-{scheme}.png")
