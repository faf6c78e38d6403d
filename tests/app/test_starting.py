"""A start: what is wrong is said before anything heavy is imported, the page answers before its engine is there, and tells its end."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from app.settings import Settings
from app.ui.loading import Loading, NotLoadedError
from bitune import Engine
from bitune.base.devices import DTYPES
from bitune.schema.names import DTYPE_NAMES, expected_names
from tests.browser.loading import held
from tests.light import run
from tests.tiny import bitune_on, saved_base, tiny_base

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("command", ["app.py", "app.record"])
def test_help_and_typos_are_answered_at_once(command):
    ended = run(command, "--help")
    assert ended.returncode == 0 and "--checkpoint DIR_OR_ID" in ended.stdout
    ended = run(command, "--chekpoint", "x")
    assert ended.returncode == 2 and "unrecognized arguments: --chekpoint" in ended.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--base", "{folder}/nothing"], "There is no folder or .gguf file"),
        (["--base", "{folder}"], "has no config.json"),
        (["--checkpoint", "{folder}/nothing"], "There is no checkpoint folder"),
        (["--checkpoint", "{folder}"], "bitune_config.json is missing"),
    ],
)
@pytest.mark.parametrize("command", ["app.py", "app.record"])
def test_a_wrong_source_is_a_sentence_at_once(command, flags, words, tmp_path):
    ended = run(command, *(flag.format(folder=tmp_path) for flag in flags))
    assert ended.returncode == 1 and ended.stderr.startswith("bitune: ") and ended.stderr.count("\n") == 1
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "{folder}/nothing.jsonl"], "There is no file"),
        (["--data", "{folder}"], "has no file *.test.jsonl"),
        (["--port", "70000"], "a port lies between 1 and 65535"),
        (["--host", "no such host"], "cannot listen on no such host"),
        (["--host", "h" * 300], "cannot listen on hhh"),
    ],
)
def test_so_is_what_only_the_page_needs(flags, words, tmp_path):
    ended = run("app.py", *(flag.format(folder=tmp_path) for flag in flags))
    assert ended.returncode == 1 and words in ended.stderr


@pytest.mark.parametrize("program", [["app.py"], ["-m", "bitune", "generate", "hello"]])
def test_a_dtype_that_there_is_not_is_refused_with_the_nearest_one(program):
    ended = subprocess.run([sys.executable, *program, "--dtype", "int9"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == 2 and "did you mean int8?" in ended.stderr and "torch" not in ended.stderr


def test_names_of_dtypes_are_those_that_a_base_takes():
    assert {"auto", *DTYPES} == set(DTYPE_NAMES)


def test_lists_and_hosts_as_people_write_them(tmp_path):
    settings = Settings.from_command_line(
        [], {"BITUNE_CHECKPOINTS": " a, b,", "BITUNE_DATA": "c , d", "GRADIO_SERVER_NAME": "::1"}
    )
    assert (settings.checkpoints, settings.data, settings.host) == (("a", "b"), ("c", "d"), "[::1]")
    assert Settings.from_command_line(["--host", "[::1]"], {}).host == "[::1]"


def test_so_is_a_port_in_use_and_a_folder_that_cannot_be_written():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("app.py", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1 and "choose another with --port" in ended.stderr
    ended = run("app.py", GRADIO_TEMP_DIR="/dev/null/x")
    assert ended.returncode == 1 and "cannot keep temporary files" in ended.stderr


def test_names_are_known_before_the_engine(tmp_path):
    base = tiny_base()
    folders = [tmp_path / "a" / "qa", tmp_path / "b" / "qa", tmp_path / "plain"]
    engine = Engine(base)
    for seed, folder in enumerate(folders):
        model = bitune_on(base, seed=seed)
        model.save_pretrained(folder)
        model.release()
        engine.add_checkpoint(folder)
    assert Loading(folders).names == expected_names(folders) == list(engine.variants)


def test_the_page_answers_before_the_engine_and_what_was_asked_after_it(tmp_path, monkeypatch):
    with held(tmp_path, monkeypatch) as page, ThreadPoolExecutor() as threads:
        assert "Not loaded yet" in httpx.get(page.address).raise_for_status().text
        client = Client(page.address, verbose=False, analytics_enabled=False)
        assert client.predict(api_name="/evidence"), "needs no model"
        asked = {
            "compare": threads.submit(client.predict, "hi", max_new_tokens=2, api_name="/compare"),
            "attention": threads.submit(client.predict, "hi", "bitune", api_name="/attention"),
            "mixing": threads.submit(client.predict, api_name="/mixing"),
        }
        assert not page.loading.ready
        with pytest.raises(NotLoadedError, match="still being loaded"):  # no thread of Gradio's waits for it
            page.loading.engine  # noqa: B018
        page.release()
        assert set(asked["compare"].result(60)["completions"]) == {"base", "lora", "bitune"}
        assert asked["attention"].result(60)["variant"] == "bitune"
        assert set(asked["mixing"].result(60)) == {"lora", "bitune"}
        first = httpx.get(page.address).text
        assert "2 checkpoints" in first and "Not loaded yet" not in first, "whoever comes later"


def test_a_base_that_is_damaged_fails_what_waits_for_it(tmp_path, monkeypatch):
    saved_base(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"damaged")
    with held(tmp_path, monkeypatch, base="damaged") as page, ThreadPoolExecutor() as threads:
        client = Client(page.address, verbose=False, analytics_enabled=False)
        asked = threads.submit(client.predict, "hi", api_name="/compare")
        page.release()
        (error,) = page.raised
        with pytest.raises(AppError, match="damaged"):
            asked.result(60)
        with pytest.raises(NotLoadedError, match="damaged"):
            page.loading.wait()
        assert page.loading.problem == str(error)


def test_the_end_waits_for_the_pages_that_show_it_but_not_for_ever():
    loading = Loading()
    loading.wait_for_followers(60)
    with loading.followed():
        loading.wait_for_followers(0.01)


def test_as_a_process_it_ends_with_the_sentence_after_the_page_was_open(tmp_path):
    folder = tmp_path / "base"
    saved_base(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    command = [sys.executable, "app.py", "--base", str(folder), "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 1 and "Running on local URL" in ended.stdout
    assert ended.stderr.splitlines()[-1].startswith("bitune: The weights of base lack")
    assert "Traceback" not in ended.stderr
