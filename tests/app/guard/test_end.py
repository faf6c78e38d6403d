"""How the app ends as a process: answers that are being written are finished, and what only looks is not waited for."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from tests.browser.served import tiny_folders

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folders(tmp_path_factory.mktemp("tiny"))


def start(folder: Path) -> tuple[subprocess.Popen, str]:
    """The app in a process of its own and, when its model is there, its address."""
    command = [sys.executable, "app.py", "--base", f"{folder}/base", "--checkpoint", f"{folder}/bitune", "--port", "0"]
    app = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = ""
    for line in iter(app.stdout.readline, ""):
        if "Running on local URL" in line:
            address = line.split()[-1] + "/"
        if "Loaded checkpoint" in line:
            break
    return app, address


def test_sigterm_lets_answers_end_and_takes_no_new_ones(folder):
    app, address = start(folder)
    try:
        client = Client(address, verbose=False, analytics_enabled=False)  # holds a connection open, as a page does
        with ThreadPoolExecutor() as threads:
            job = client.submit("hello", max_new_tokens=24, api_name="/compare")
            while not job.done() and not job.status().code.name.startswith(("PROCESSING", "ITERATING")):
                time.sleep(0.01)
            app.send_signal(signal.SIGTERM)
            ended = threads.submit(app.communicate, timeout=60)
            assert job.result(60)["completions"]["base"]["tokens"] > 0
            _, errors = ended.result(60)
        assert app.returncode == 0 and "Traceback" not in errors
    finally:
        app.kill()


def test_sigterm_does_not_wait_for_one_who_only_looks(folder):
    app, address = start(folder)
    try:
        with httpx.stream("GET", f"{address}gradio_api/heartbeat/looking", timeout=60) as stream:
            assert stream.status_code == 200
            app.send_signal(signal.SIGTERM)
            app.communicate(timeout=60)
        assert app.returncode == 0
    finally:
        app.kill()


def test_after_kill_9_the_next_start_is_as_the_first(folder):
    for end in (signal.SIGKILL, signal.SIGTERM):
        app, address = start(folder)
        try:
            client = Client(address, verbose=False, analytics_enabled=False)
            assert client.predict("hi", max_new_tokens=2, api_name="/compare")["completions"]["bitune"]["tokens"] >= 1
        finally:
            app.send_signal(end)
            app.communicate(timeout=60)
