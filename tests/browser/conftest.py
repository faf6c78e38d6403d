"""A Chromium for each file of browser tests."""

import os
import shutil
import time

import pytest
from playwright.sync_api import expect, sync_playwright

from bitune.model.decoding import Decoder
from tests.browser.visitor import FLAGS

# Playwright waits 5 s; a page takes longer to come up where tests of other files run at the same time.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")  # and no longer: Playwright runs a loop in this thread, in which other files start theirs
def browser():
    known = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or next(filter(None, known), None) or playwright.chromium.executable_path
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def slow_tokens(monkeypatch):
    """A tiny model that takes its time for each token, so that there is something to stop."""
    forward = Decoder.next_logits

    def step(self):
        time.sleep(0.05)
        return forward(self)

    monkeypatch.setattr(Decoder, "next_logits", step)
