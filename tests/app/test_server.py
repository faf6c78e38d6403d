"""The API over HTTP, with gradio_client, and the command line as a person starts it."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client
from gradio_client.exceptions import AppError

from app import checks, server
from app.page import build_page
from app.settings import Settings
from bitune.errors import ConfigError, WrongBaseError
from bitune.schema.variants import MixingRatios, WhatIf
from tests.browser.served import served, tiny_engine, tiny_folders
from tests.closeness import assert_close
from tests.tiny import tiny_base

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def url(engine):
    with served(engine) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False, analytics_enabled=False)


def test_compare_answers_as_the_engine_does(client, engine):
    answer = client.predict("hello", max_new_tokens=12, api_name="/compare")
    *_, last = engine.stream("hello", list(engine.variants), max_new_tokens=12)
    assert {name: c["text"] for name, c in answer["completions"].items()} == {n: c.text for n, c in last.completions.items()}
    assert answer["completions"]["base"]["text"] != answer["completions"]["bitune"]["text"]
    assert answer["prompts"] == dict(last.prompts)
    assert answer["base"] == "tiny-llama"


def test_settings_arrive(client):
    options = {"variants": ["bitune"], "template": "none", "max_new_tokens": 8, "temperature": 1, "top_p": 0.9}
    first, again, other = (client.predict("hello", **options, seed=seed, api_name="/compare") for seed in (1, 1, 2))
    assert list(first["completions"]) == ["bitune"]
    assert first["prompts"]["bitune"] == "hello"
    assert first["completions"]["bitune"]["text"] == again["completions"]["bitune"]["text"]
    assert first["completions"]["bitune"]["text"] != other["completions"]["bitune"]["text"]


def test_a_what_if_is_one_more_variant_of_a_request(client, engine):
    nothing = {"of": "bitune", "keys": [0.0] * 4, "values": [0.0] * 4}
    answer = client.predict("hello", ["bitune", "if"], max_new_tokens=12, what_ifs={"if": nothing}, api_name="/compare")
    question = {"if": WhatIf("bitune", MixingRatios.constant(4, 0.0))}
    *_, last = engine.stream("hello", ["if"], max_new_tokens=12, what_ifs=question)
    assert answer["completions"]["if"]["text"] == last["if"].text != answer["completions"]["bitune"]["text"]
    assert answer["request"]["what_ifs"] == {"if": nothing}
    assert "if" not in engine.variants


def test_mixing_tells_what_the_engine_knows(client, engine):
    answer = client.predict(api_name="/mixing")
    learned = engine.mixing("bitune")
    assert (answer["bitune"]["keys"], answer["bitune"]["values"]) == (list(learned.keys), list(learned.values))
    assert answer["lora"]["keys"] is None
    maps = engine.attention("hello", "bitune", template="none")
    moved = client.predict(["bitune"], "hello", "none", api_name="/mixing")["bitune"]["moved_keys"]
    assert_close(moved, maps.moved_keys.mean(1))
    for arguments, words in (({"checkpoints": ["ghost"]}, "no checkpoint called"), ({"prompt": "a\x00b"}, "control character")):
        with pytest.raises(AppError, match=words):
            client.predict(**arguments, api_name="/mixing")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": "x" * 1_000_000}, "shorten"),
        ({"prompt": "a\x00b"}, "control character"),
        ({"prompt": "hi", "variants": []}, "No variant is chosen"),
        ({"prompt": "hi", "variants": ["ghost"]}, "no variant called 'ghost'"),
        ({"prompt": "hi", "variants": "base"}, "list of names"),
        ({"prompt": "hi", "template": "x"}, "no template called 'x'"),
        ({"prompt": "hi", "max_new_tokens": "many"}, "max_new_tokens is 'many'"),
        ({"prompt": "hi", "max_new_tokens": 10**9}, "no page allows more than 8,192"),
        ({"prompt": "hi", "temperature": -1}, "temperature is -1"),
        ({"prompt": "hi", "top_p": 2}, "top_p is 2"),
        ({"prompt": "hi", "seed": 2**80}, "seed is"),
        ({"prompt": "hi", "what_ifs": {"x": {"of": "bitune"}}}, "exactly the fields"),
        ({"prompt": "hi", "what_ifs": {"x": {"of": "lora", "keys": [0.5], "values": [0.5]}}}, "mixes nothing"),
    ],
)
def test_bad_input_reaches_the_caller_as_a_sentence(client, arguments, words):
    with pytest.raises(AppError, match=words) as caught:
        client.predict(**arguments, api_name="/compare")
    assert "Traceback" not in str(caught.value)
    assert client.predict("hi", max_new_tokens=2, api_name="/compare")["completions"]["base"]["tokens"] >= 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'["a\\ud800b", null, "own", 2, 0, 1, 0, null, null, "recompute"]', "surrogate"),
        (b'["hi", ["\\ud800"], "own", 2, 0, 1, 0, null, null, "recompute"]', "no variant called"),
        (b'["hi", null, "own", 2, NaN, 1, 0, null, null, "recompute"]', "temperature is nan"),
        (b'["hi", null, "own", 2, Infinity, 1, 0, null, null, "recompute"]', "temperature is inf"),
        (
            b'["hi", null, "own", 2, 0, 1, 0, {"x": {"of": "bitune", "keys": [NaN, 0, 0, 0], "values": [0, 0, 0, 0]}}, null, "recompute"]',
            "ratio is nan",
        ),
        (b"[]", "enough input values"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_json_that_no_client_would_send(url, client, body, words):
    endpoint = url + "gradio_api/call/compare"
    event = httpx.post(endpoint, content=b'{"data": ' + body + b"}", headers={"content-type": "application/json"}).json()[
        "event_id"
    ]
    answer = httpx.get(f"{endpoint}/{event}", timeout=60).text
    assert answer.startswith("event: error")
    assert words in answer
    assert client.predict("hi", max_new_tokens=2, api_name="/compare")["completions"]["base"]["tokens"] >= 1


def test_nothing_else_is_public(client):
    public = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    of_why = {"/parting", "/go_on", "/layers", "/lens"}
    assert set(public) == {"/compare", "/attention", "/mixing", "/sets", "/evidence", "/votes"} | of_why


def test_nothing_is_reported_to_anyone(engine):
    # In a process of its own: here huggingface_hub was imported long before the app.
    check = "import app.server, gradio.analytics as a, huggingface_hub.constants as c; print(a.analytics_enabled(), c.HF_HUB_DISABLE_TELEMETRY)"
    answer = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "True"]
    assert not build_page(engine, {}).analytics_enabled


def test_mcp_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gradio\[mcp\]"):
        checks.check(Settings(port=0, mcp=True))


def test_a_port_in_use_is_a_sentence(engine, url):
    taken = Settings(port=httpx.URL(url).port)
    for refuse in (lambda: checks.check(taken), lambda: server.serve(build_page(engine, {}), taken)):
        with pytest.raises(
            ConfigError, match=rf"cannot listen on 127.0.0.1, port {taken.port}: .*; choose another with --port\.$"
        ):
            refuse()


def test_a_temporary_folder_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "new" / "folder"))
    checks.check_temporary_folder()
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "folder"))
    with pytest.raises(ConfigError, match="cannot keep temporary files in .*file/folder.* set GRADIO_TEMP_DIR"):
        checks.check_temporary_folder()
    for folder in (str(tmp_path), ""):
        monkeypatch.setenv("GRADIO_TEMP_DIR", folder)
        assert checks.temporary_folder() == get_upload_folder(), "Gradio keeps its files elsewhere now"


def test_shipped_checkpoints_of_another_base_are_left_out_and_chosen_ones_refused(tmp_path, monkeypatch, capsys):
    folder = tiny_folders(tmp_path)
    monkeypatch.setattr(server.bitune, "load_base", lambda source, dtype: tiny_base("qwen3"))
    here = Settings("other", (str(folder / "bitune"),))
    assert list(server.load_engine(here).variants) == ["base"]
    assert "Left out" in capsys.readouterr().out
    with pytest.raises(WrongBaseError):
        server.load_engine(Settings("other", here.checkpoints, chosen=True))


def start(*flags: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "app.py", "--host", "127.0.0.1", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, text=True, **pipes)


def test_the_app_starts_from_the_command_line(tmp_path):
    folder = tiny_folders(tmp_path)
    app = start("--base", f"{folder}/base", "--checkpoint", f"{folder}/lora", "--checkpoint", f"{folder}/bitune", "--port", "0")
    try:
        lines = iter(app.stdout.readline, "")
        address = next(line.split()[-1] for line in lines if "Running on local URL" in line)
        client = Client(address, verbose=False, analytics_enabled=False)
        assert set(client.predict("hi", max_new_tokens=2, api_name="/compare")["completions"]) == {"base", "lora", "bitune"}
    finally:
        app.terminate()
        app.communicate()


@pytest.mark.parametrize("environment", [{}, {"GRADIO_TEMP_DIR": "/dev/null/x"}])
def test_a_start_that_fails_says_why_in_one_line(tmp_path, environment):
    app = start("--base", f"{tmp_path}/nothing", "--port", "0", **environment)
    _, errors = app.communicate(timeout=120)
    assert app.returncode == 1
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("bitune: ")
