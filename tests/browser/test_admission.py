"""Waiting, being refused and stopping, as a visitor in a real Chromium sees it."""

import threading
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app import serving
from app.limits import Limits
from tests.browser.served import served, tiny_engine
from tests.browser.visitor import ARTIFACTS, ended, lengths, run, visit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


def press(page: Page, button: str) -> None:
    page.locator(button).click()


def until(page: Page, condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        page.wait_for_timeout(20)


def requests_running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bitune")]


def test_where_gradio_takes_no_more_events_the_page_stays_as_it_was(browser, engine, monkeypatch):
    monkeypatch.setattr(serving, "EVENTS", 0)
    with served(engine) as url:
        for page in visit(browser, url, "desktop", "light"):
            press(page, "#bt-run")
            expect(page.get_by_text("currently busy").first).to_be_visible()
            expect(page.locator("#bt-run")).to_be_enabled()
            expect(page.locator("#bt-stop")).to_be_disabled()
            expect(page.locator("#bt-results .bt-recorded")).to_be_visible()


def test_who_waits_sees_the_place_and_leaves_at_once(browser, engine):
    with served(engine, Limits(running=1)) as url, engine.manager.turn():
        for first in visit(browser, url, "desktop", "light"):
            press(first, "#bt-run")
            until(first, requests_running)
            for second in visit(browser, url, "phone", "dark"):
                press(second, "#bt-run")
                expect(second.locator("#bt-results")).to_contain_text("number 1 of 1 in the line")
                expect(second.locator("#bt-run")).to_be_disabled()
                ARTIFACTS.mkdir(exist_ok=True)
                second.screenshot(path=ARTIFACTS / "waiting-phone-dark.png", full_page=True)
                press(second, "#bt-stop")
                ended(second)
                expect(second.locator("#bt-results")).to_contain_text("Stopped before the first token")
            press(first, "#bt-stop")
            ended(first)


def test_who_cannot_be_served_is_told_so_and_may_try_again(browser, engine):
    with served(engine, Limits(running=1, per_address=1)) as url:
        for first in visit(browser, url, "desktop", "light"):
            with engine.manager.turn():
                press(first, "#bt-run")
                until(first, requests_running)
                for second in visit(browser, url, "desktop", "light"):
                    press(second, "#bt-run")
                    expect(second.get_by_role("alert")).to_contain_text(
                        "As many requests from your address run or wait here as one may have, 1"
                    )
                    ended(second)
                    second.screenshot(path=ARTIFACTS / "refused-desktop-light.png", full_page=True)
                press(first, "#bt-stop")
                ended(first)
            run(first, "hello")
            ended(first)


def test_reading_and_measuring_can_be_stopped(browser, engine):
    with served(engine) as url:
        for page in visit(browser, url, "desktop", "light"):
            with engine.manager.turn():
                page.get_by_role("tab", name="Attention").click()
                press(page, "#bt-read-attention")
                until(page, requests_running)
                press(page, "#bt-stop-attention")
                expect(page.locator("#bt-attention .bt-empty")).to_contain_text("Stopped")
                expect(page.locator("#bt-read-attention")).to_be_enabled()
                page.get_by_role("tab", name="Mixing").click()
                press(page, "#bt-measure")
                until(page, requests_running)
                press(page, "#bt-measure-stop")
                expect(page.locator("#bt-moved")).to_contain_text("Stopped")
                expect(page.locator("#bt-measure")).to_be_enabled()
                until(page, lambda: not requests_running())
            page.get_by_role("tab", name="Attention").click()
            press(page, "#bt-read-attention")
            expect(page.locator("#bt-attention .bt-map canvas").first).to_be_visible()


def test_who_closes_the_page_frees_the_model(browser, engine):
    with served(engine) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        lengths(page)
        page.get_by_label("number input for New tokens").fill("400")
        press(page, "#bt-run")
        until(page, requests_running)
        context.close()
        limit = time.monotonic() + 20
        while requests_running():
            assert time.monotonic() < limit
            time.sleep(0.02)
