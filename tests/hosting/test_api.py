"""The API as docs/api.md describes it: its examples run as printed, and its table has the endpoints and arguments that there are."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from tests.hosting.apps import ROOT, started
from tests.test_docs import PRINTED_ADDRESS, SERVER, blocks, steps

API = ROOT / "docs" / "api.md"
SECONDS = 300  # for one block on a busy machine
HAS_MCP = importlib.util.find_spec("mcp") is not None


@pytest.fixture(scope="module")
def app(default_base):
    """The page that the document starts, without MCP where its package is not installed."""
    with started(["--port=0", *(["--mcp"] if HAS_MCP else [])], {}) as app:
        yield app


@pytest.fixture(scope="module")
def described(app) -> dict[str, dict]:
    """What the page says about its endpoints."""
    return httpx.get(f"{app.address}/gradio_api/info", timeout=60).raise_for_status().json()["named_endpoints"]


def ran(command: list[str], address: str, folder: Path) -> str:
    """What a printed command has printed; it succeeds."""
    written = [word.replace(PRINTED_ADDRESS, address) for word in command]
    done = subprocess.run(written, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def examples(heading: str) -> list:
    """The blocks under a heading."""
    text = API.read_text("utf-8")
    start = text.index(f"\n## {heading}\n")
    end = text.find("\n## ", start + 1)
    within = text[start : end if end > 0 else len(text)]
    return [block for block in blocks(API) if block.text in within and not block.text.startswith("pip install")]


def test_it_starts_a_page_as_printed():
    started_there = [step for block in blocks(API) if block.language == "sh" for step in steps(block.text)]
    assert [step for step in started_there if step.startswith(SERVER)] == [f"{SERVER} --mcp"]


def test_python_runs_as_printed(app, tmp_path):
    client, what_if, parting, maps, layers, rows = (
        ran([sys.executable, "-c", block.text], app.address, tmp_path) for block in examples("Python")
    )
    assert re.search(r"^base \w+ ", client, re.MULTILINE) and re.search(r"^bitune-choices \w+ ", client, re.MULTILINE)
    assert what_if.strip()
    assert len(re.findall(r"^(?:base|bitune-choices) \{'base': -\d", parting, re.MULTILINE)) == 2
    assert len(parting.splitlines()) > 2, "they part, and the base goes on from there"
    weights = dict(re.findall(r"^(\w+) (\[.*\])$", maps, re.MULTILINE))
    assert set(weights) == {"mixed", "first_pass"} and all(json.loads(row) for row in weights.values())
    assert re.search(r"^without the second reading's values: \[\(", layers, re.MULTILINE)
    assert re.search(r"^3 of 3$", rows, re.MULTILINE) and rows.count("'bitune-choices': (") == 3 and "'high': " in rows
    assert re.search(r"^own \['", layers, re.MULTILINE) and re.search(r"^first_pass \['", layers, re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_runs_as_printed(app, tmp_path):
    (block,) = examples("curl")
    path = f"PATH={Path(sys.executable).parent}:$PATH"
    printed = ran(["sh", "-euc", f"{path}\n{block.text}"], app.address, tmp_path)
    assert "event: complete" in printed
    (result,) = json.loads(re.search(r"event: complete\ndata: (.*)", printed)[1])
    assert set(result["completions"]) == {"base", "bitune-choices"}
    assert all(completion["tokens"] <= 12 for completion in result["completions"].values())


@pytest.mark.skipif(not HAS_MCP, reason="the package mcp is not installed: pip install -r requirements-dev.txt")
def test_mcp_runs_as_printed(app, tmp_path, described):
    settings, program = examples("MCP")
    (server,) = json.loads(settings.text)["mcpServers"].values()
    assert server["url"] == f"{PRINTED_ADDRESS}/gradio_api/mcp/" and server["url"] in program.text
    printed = ran([sys.executable, "-c", program.text], app.address, tmp_path).splitlines()
    tools, (answer,) = [line for line in printed if "[" in line and "{" not in line], [line for line in printed if "{" in line]
    assert dict(line.split(" ", 1) for line in tools) == {name: str(list(of)) for name, of in arguments(described).items()}
    failed, text = answer.split(" ", 1)
    assert failed == "False" and ast.literal_eval(text)["completions"]["base"]["tokens"] <= 12


def arguments(described: dict[str, dict]) -> dict[str, list[str]]:
    """Endpoint without its slash -> the names of its arguments."""
    return {name[1:]: [each["parameter_name"] for each in of["parameters"]] for name, of in described.items()}


def test_its_table_has_the_endpoints_and_their_arguments(described):
    rows = re.findall(r"^\| `/(\w+)` \|.*\| ?(.*) \|$", API.read_text("utf-8"), re.MULTILINE)
    assert {name: re.findall(r"`(\w+)`", names) for name, names in rows} == arguments(described)


def test_every_endpoint_says_what_it_does_and_of_which_type_its_arguments_are(described):
    for name, endpoint in described.items():
        assert endpoint["description"], name
        for argument in endpoint["parameters"]:
            assert not re.search(r"Any|^$", argument["python_type"]["type"]), (name, argument)
    needed = {
        name: [each["parameter_name"] for each in of["parameters"] if not each["parameter_has_default"]]
        for name, of in described.items()
    }
    of_why = {"/parting": ["prompt"], "/go_on": ["prompt", "variant", "begun"]}
    of_sets = {"/sets": ["prompts"]}
    of_layers = {"/layers": ["prompt", "variant", "answer"], "/lens": ["prompt", "variants"]}
    others = {"/attention": ["prompt", "variant"], "/mixing": [], "/evidence": [], "/votes": []}
    assert needed == {"/compare": ["prompt"], **of_why, **of_sets, **of_layers, **others}


CALLS = {
    "/compare": {"prompt": "The hen laid an egg.", "variants": ["base", "bitune-choices"], "max_new_tokens": 2},
    "/parting": {"prompt": "The hen laid an egg.", "variants": ["base", "bitune-choices"], "max_new_tokens": 2},
    "/go_on": {"prompt": "The hen laid an egg.", "variant": "base", "begun": [504, 2], "max_new_tokens": 2},
    "/attention": {"prompt": "The hen", "variant": "bitune-choices", "head": 0, "answer": " laid"},
    "/layers": {"prompt": "The hen", "variant": "bitune-choices", "answer": " laid"},
    "/lens": {"prompt": "The hen", "variants": ["base", "bitune-choices"], "answer": " laid", "position": 0},
    "/sets": {"prompts": ["The hen laid", {"prompt": "1 + 1 =", "answer": "2"}], "max_new_tokens": 2},
    "/mixing": {"prompt": "The hen"},
    "/evidence": {},
    "/votes": {},
}


@pytest.mark.parametrize("endpoint", CALLS)
def test_an_answer_is_of_the_type_that_is_told(app, described, endpoint):
    client = Client(app.address, verbose=False, analytics_enabled=False)
    (told,) = described[endpoint]["returns"]
    assert set(described) == set(CALLS)
    assert not_of(told["type"], client.predict(**CALLS[endpoint], api_name=endpoint), endpoint) == []


KINDS = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def not_of(schema: dict, value: object, place: str) -> list[str]:
    """Where a value is not what a JSON schema of the page says, one key more or less included."""
    if "oneOf" in schema:
        found = [not_of(one, value, place) for one in schema["oneOf"]]
        return [] if [] in found else found[-1]
    if not schema:
        return []
    if not isinstance(value, KINDS[schema["type"]]):
        return [f"{place} is {value!r}, and not of the type {schema['type']}"]
    if schema["type"] == "array":
        return [each for index, one in enumerate(value) for each in not_of(schema["items"], one, f"{place}[{index}]")]
    if schema["type"] == "object" and "properties" in schema:
        if value.keys() != schema["properties"].keys():
            return [f"{place} has {sorted(value)}, and should have {sorted(schema['properties'])}"]
        return [each for name, one in value.items() for each in not_of(schema["properties"][name], one, f"{place}.{name}")]
    if schema["type"] == "object":
        return [each for name, one in value.items() for each in not_of(schema["additionalProperties"], one, f"{place}.{name}")]
    return []
