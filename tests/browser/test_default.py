"""What a visitor gets from `python app.py` as it is: the real default base, the shipped checkpoints, no Hub."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from tests.browser.visitor import ANSWERS, ARTIFACTS, ended, run, visit
from tests.browser.walk import tabs, walk

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent.parent

PROMPT = "Which of these melts when it is left in the sun?\n\nChoices:\na stone\nan ice cube\na spoon\na window"


@pytest.fixture(scope="module")
def url(default_base):
    """The app in a process of its own. `default_base` has fetched the base before, and there is no Hub to ask for anything."""
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "app.py", "--port", "0"]
    app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = []
        for line in iter(app.stdout.readline, ""):
            lines.append(line)
            if "Running on local URL" in line:
                yield line.split()[-1] + "/"
                break
        else:
            pytest.fail("the app did not start:\n" + "".join(lines))
    finally:
        app.terminate()
        app.wait(timeout=30)
        app.stdout.close()


def test_compare_answers_with_different_text_from_base_and_bitune(url):
    answer = Client(url, verbose=False, analytics_enabled=False).predict(PROMPT, max_new_tokens=12, api_name="/compare")
    texts = {name: completion["text"] for name, completion in answer["completions"].items()}
    assert {"base", "bitune-choices", "lora-choices"} <= set(texts)
    assert texts["bitune-choices"].strip()
    assert texts["base"] != texts["bitune-choices"]
    assert answer["base"] == "smollm2-135m-instruct"


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_visitor_sees_them_side_by_side(browser, url, size):
    for page in visit(browser, url, size, "light"):
        expect(page.locator(".bt-recorded")).to_contain_text("recorded", ignore_case=True)
        run(page, PROMPT)
        ended(page)
        texts = dict(
            zip(page.locator("#bt-results .bt-answer h3").all_inner_texts(), page.locator(ANSWERS).all_inner_texts(), strict=True)
        )
        assert len(set(texts.values())) > 1, texts
        page.screenshot(path=ARTIFACTS / f"default-{size}.png", full_page=True)


def test_every_tab_has_its_results(browser, url):
    """Leaves a picture of each, as in README.md and docs/reading-the-page.md."""
    ARTIFACTS.mkdir(exist_ok=True)
    for page in visit(browser, url, "desktop", "light"):
        for tab in tabs(page):
            page.wait_for_timeout(1000)  # until charts have taken their width
            page.screenshot(path=ARTIFACTS / f"{tab}.png", full_page=True)


def test_a_newcomer_sees_why_two_answers_differ(browser, url):
    """Leaves a picture of each step, as in docs/reading-the-page.md, and after how many seconds it was there."""
    ARTIFACTS.mkdir(exist_ok=True)
    opened, seconds = time.monotonic(), []
    for page in visit(browser, url, "desktop", "light"):
        for number, step in enumerate(walk(page), 1):
            seconds.append(f"{time.monotonic() - opened:5.1f} s  {step}")
            page.wait_for_timeout(1000)  # until the page has been brought to its place
            page.screenshot(path=ARTIFACTS / f"walk-{number}.png")
        (ARTIFACTS / "walk.txt").write_text("\n".join(seconds) + "\n", encoding="utf-8")
