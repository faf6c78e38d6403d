"""The documents: the README's blocks run as printed, commands and flags are those there are, links lead somewhere."""

import ast
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from app import settings
from benchmarks import __main__ as benchmarks
from benchmarks import table
from benchmarks.figures import chosen_groups
from bitune import cli
from tests.tiny import tiny_base

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
OWN_MODELS = ROOT / "docs" / "own-models.md"
HOSTING = ROOT / "docs" / "hosting.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in DOCUMENTS]

# What a reader has in the folder after a download, as far as the blocks need it.
DOWNLOADED = ("Makefile", "app", "app.py", "assets", "bitune", "requirements.txt")
# Commands that install, download, ask for an account, run for hours or want several GPUs: looked at (see `checked`), not run.
NOT_RUN = ("make ", "pip install ", "git ", "hf ", "accelerate launch ", "python -m bitune.harness ", "python -m study ")
# In Python: needs an account on the Hub.
PUBLISHES = "push_to_hub("
SERVER = "python app.py"
PRINTED_ADDRESS = "http://127.0.0.1:7860"
SECONDS = 300  # for one block on a busy machine


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" if none is named), its text, and where it stands."""

    language: str
    text: str
    place: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    fenced = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], f"{page.name}, line {text.count(chr(10), 0, m.start()) + 1}") for m in fenced]


def steps(script: str) -> list[str]:
    """A shell block as its commands: a here-document with its lines is one, a line that goes on after a backslash too."""
    commands, lines = [], iter(script.splitlines())
    for line in lines:
        command = [line]
        if end := re.search(r"<<'(\w+)'$", line):
            command += [*iter(lambda: next(lines), end[1]), end[1]]
        while command[-1].endswith("\\"):
            command.append(next(lines))
        if line.strip():
            commands.append("\n".join(command))
    return commands


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, default_base) -> Path:
    """A folder with the project in it, to work in. `default_base` has fetched the default base, so no block needs a network."""
    for name in DOWNLOADED:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment() -> dict[str, str]:
    """`python` is the one that runs the tests, and there is no Hub; a page takes a free port, as 7860 may be in use."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return os.environ | {"PATH": path, "HF_ENDPOINT": "http://127.0.0.1:9", "GRADIO_SERVER_PORT": str(port)}


@contextmanager
def started(command: str, folder: Path):
    """The page that a printed command starts; gives its address."""
    arguments = shlex.split(command, comments=True)
    page = subprocess.Popen(arguments, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = []
        for line in iter(page.stdout.readline, ""):
            lines.append(line)
            if "Running on local URL" in line:
                yield line.split()[-1]
                return
        pytest.fail(f"{command!r} did not start a page:\n{''.join(lines)}")
    finally:
        page.terminate()
        page.communicate(timeout=30)


def run(command: str, folder: Path) -> None:
    """Run one printed command, which succeeds. `python -m bitune` runs in this process, as starting one takes longer than most of them."""
    if command.startswith("python -m bitune "):
        assert cli.main(shlex.split(command.replace("\\\n", " "), comments=True)[3:]) == 0, command
    else:
        subprocess.run(["sh", "-euc", command], cwd=folder, env=environment(), check=True, timeout=SECONDS)


def run_as_printed(page: Path, folder: Path, capsys) -> list[str]:
    """Run the blocks of a page one after the other, as a reader does; what each has printed."""
    printed, address = [], PRINTED_ADDRESS
    with ExitStack() as pages:
        for block in blocks(page):
            assert block.language in ("python", "sh"), f"{block.place}: a block is python or sh, not {block.language!r}"
            if block.language == "python" and PUBLISHES not in block.text:
                exec(compile(block.text.replace(PRINTED_ADDRESS, address), block.place, "exec"), {})
            for command in steps(block.text) if block.language == "sh" else ():
                if command.startswith(SERVER):
                    address = pages.enter_context(started(command, folder)).rstrip("/")
                elif not command.startswith(NOT_RUN):
                    run(command, folder)
            printed.append(capsys.readouterr().out)
    return printed


def test_the_readme_runs_as_printed(folder, capsys):
    printed = run_as_printed(README, folder, capsys)
    client, library, module, report = (text for text in printed if text and "trained parameters" not in text)
    assert "base " in client and "bitune-choices " in client
    assert "---" in library and "(1, 9, " in library  # one layer, nine heads
    assert "Which planet is closest to the Sun?" in module
    assert "mine" in report and "bitune-choices" in report
    assert (folder / "runs" / "mine" / "bitune_config.json").is_file()
    assert (folder / "report.json").is_file()


def test_own_models_run_as_printed(folder, capsys):
    """On a tiny model of the same family, which lies in a folder of the same name; a folder is looked for before the Hub."""
    base = tiny_base("qwen3")
    base.model.save_pretrained(folder / "Qwen" / "Qwen3-0.6B")
    base.tokenizer.save_pretrained(folder / "Qwen" / "Qwen3-0.6B")
    run_as_printed(OWN_MODELS, folder, capsys)
    assert (folder / "runs" / "qwen-bitune" / "bitune_config.json").is_file()
    assert (folder / "report.json").is_file()


# --- not run, but looked at -------------------------------------------------------------------------------------------


def checked(command: str) -> None:
    """Fails where a command names a target, module, file or flag that is not there."""
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), command
    elif words[:2] == ["python", "app.py"]:
        settings.parser({}).parse_args(words[2:])
    elif "bitune" in words[:-1] and words[words.index("bitune") - 1] == "-m":
        cli.parser().parse_args(words[words.index("bitune") + 1 :])
    elif words[:3] == ["python", "-m", "benchmarks"]:
        chosen_groups(benchmarks.parser().parse_args(words[3:]).names, shape=False)
    elif words[:2] == ["python", "-m"]:
        module = ROOT / words[2].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file() or words[2] == "pytest", command
    elif words[:3] == ["pip", "install", "-r"]:
        assert (ROOT / words[3]).is_file(), command
    else:
        assert words[0] in ("cat", "pip", "git", "hf", "export", "cd", "curl", "docker", "nginx"), (
            f"{command!r} is a command that this test does not know"
        )


@pytest.mark.parametrize("page", DOCUMENTS, ids=NAMES)
def test_commands_name_what_there_is(page):
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "sh":
            for command in steps(block.text):
                checked(command if "<<" not in command else "cat")


# Of lm-eval; and of pytest, with tests/margins.py.
OF_OTHER_PROGRAMS = {"--apply_chat_template", "--fewshot_as_multiturn", "--system_instruction", "--margins"}


@pytest.mark.parametrize("page", DOCUMENTS, ids=NAMES)
def test_flags_in_the_text_are_there(page):
    commands = next(action for action in cli.parser()._actions if isinstance(action.choices, dict))
    parsers = [settings.parser({}), benchmarks.parser(), *commands.choices.values()]
    flags = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {flag for code in re.findall(r"`([^`\n]+)`", text) for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9_-]*", code)}
    assert named - flags - OF_OTHER_PROGRAMS == set()


def test_hosting_names_every_flag_and_variable():
    text = HOSTING.read_text(encoding="utf-8")
    flags = [flag for action in settings.parser({})._actions for flag in action.option_strings if flag.startswith("--")]
    sources = [path.read_text(encoding="utf-8") for folder in ("app", "bitune") for path in (ROOT / folder).rglob("*.py")]
    variables = {name for source in sources for name in re.findall(r"\b(?:BITUNE|GRADIO_SERVER|GRADIO_MCP)_[A-Z]+\b", source)}
    assert len(flags) >= 6 and len(variables) >= 5
    assert [name for name in [*flags, *sorted(variables)] if f"`{name}`" not in text and name != "--help"] == []


def test_the_printed_address_is_the_default():
    assert f"http://{settings.Settings().host}:{settings.Settings().port}" == PRINTED_ADDRESS


# --- form -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=NAMES)
def test_links_inside_the_project_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: there is no {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {name or page.name} has no heading for #{anchor}"


def test_the_readme_is_short_and_leads_to_every_page():
    text = README.read_text(encoding="utf-8")
    assert text.startswith("---\ntitle: Bitune\n")  # a Space reads it, and shows it to nobody
    _, _, text = text.removeprefix("---\n").partition("---\n")
    prose, _, rest = text.partition(table.BEGIN)
    assert len((prose + rest.partition(table.END)[2]).splitlines()) <= 150
    assert [page.name for page in DOCUMENTS[1:] if f"](docs/{page.name})" not in text] == []


def test_the_citation_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = citation["preferred-citation"]
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"] == "Bitune"
    assert citation["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert [author["family-names"] for author in paper["authors"]] == ["Kopiczko", "Blankevoort", "Asano"]
    assert {"type": "other", "value": "arXiv:2405.14862", "description": "the paper's preprint"} in paper["identifiers"]
