"""The page on an engine, in a real Chromium."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, Page, Playwright, expect, sync_playwright

import bitune
from app.page import build_page
from app.server import serve
from app.settings import Settings
from benchmarks.setting import Skipped


@contextmanager
def opened(engine: bitune.Engine) -> Iterator[Page]:
    """The first tab, as a visitor has it before doing anything; Skipped where no Chromium starts."""
    with sync_playwright() as playwright:
        browser = _started(playwright)
        demo = build_page(engine, {})
        try:
            address = serve(demo, Settings(port=0))
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(address)
            expect(page.locator("#bt-results p").first).to_be_visible(timeout=60_000)
            yield page
        finally:
            browser.close()
            demo.close()


def _started(playwright: Playwright) -> Browser:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or playwright.chromium.executable_path
    try:
        return playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
    except Error as error:
        raise Skipped(f"No Chromium starts ({error.message.splitlines()[0]}); name one in CHROMIUM.") from error
