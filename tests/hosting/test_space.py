"""A Hugging Face Space: what the front matter of README.md says, and the page as a Space starts it."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from gradio_client import Client
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bitune.base.default import cache_folder
from bitune.base.local import EMBEDDED
from tests.browser.served import METHODS, tiny_folders
from tests.hosting.apps import ROOT, free_port, started

LONGEST_DESCRIPTION = 60  # characters: the Hub refuses more
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def front_matter() -> dict[str, object]:
    _, matter, _ = (ROOT / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(matter)


def test_the_front_matter_says_what_a_space_needs():
    matter = front_matter()
    assert (matter["title"], matter["sdk"], matter["license"]) == ("Bitune", "gradio", "apache-2.0")
    assert (ROOT / matter["app_file"]).is_file()
    assert {matter["colorFrom"], matter["colorTo"]} <= COLOURS
    assert 10 < len(matter["short_description"]) <= LONGEST_DESCRIPTION
    assert matter["tags"] == sorted(set(matter["tags"]))
    assert EMBEDDED.hub_id in matter["models"]


def test_gradio_and_python_are_those_that_the_project_runs_on():
    matter, lines = front_matter(), (ROOT / "requirements.txt").read_text().splitlines()
    (required,) = (Requirement(line) for line in lines if line.startswith("gradio"))
    assert required.specifier.contains(matter["sdk_version"])
    supported = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert isinstance(matter["python_version"], str), "3.10 without quotes is the number 3.1"
    assert supported.contains(matter["python_version"])


def test_the_thumbnail_is_a_picture_of_the_shape_that_links_show():
    picture = ROOT / front_matter()["thumbnail"]
    assert picture.parent == ROOT / "assets"
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) < 200_000
    assert struct.unpack(">II", content[16:24]) == (1200, 630)


# --- started as there -------------------------------------------------------------------------------------------------

NEEDED = ("README.md", "app", "app.py", "assets", "bitune", "requirements.txt")


@pytest.fixture
def place():
    """A folder that other users may enter, as pytest's own may not."""
    folder = Path(tempfile.mkdtemp(prefix="bitune-space-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def read_only(folder: Path) -> Path:
    """The folder with all that is in it, to be read by everybody and written by nobody but root."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def another_user() -> list[str]:
    """What starts a program as `nobody`, where that is allowed; elsewhere it is the same user, who may not write here either."""
    may = os.getuid() == 0 and shutil.which("setpriv")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if may else []


@contextmanager
def space(place: Path, cache: Path, python: str, port: int, **environment: str):
    """The page as a Space starts it: a command without flags, another user, and nothing that can be written but temporary files."""
    checkout, temporary = place / "checkout", place / "temporary"
    checkout.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, checkout / name)
    temporary.mkdir()
    temporary.chmod(0o777)
    variables = {
        **{"SYSTEM": "spaces", "SPACE_ID": "user/bitune", "HOME": str(cache), "HF_HOME": str(cache), "BITUNE_CACHE": str(cache)},
        **{"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"},
        **{"GRADIO_TEMP_DIR": str(temporary / "gradio")},
    }
    command = [*another_user(), python]
    with started([], variables | environment, command, read_only(checkout)) as app:
        assert app.address.endswith(f":{port}")
        yield Client(f"http://127.0.0.2:{port}", verbose=False, analytics_enabled=False)  # where only 0.0.0.0 is heard


def answers(client: Client) -> set[str]:
    """Ask for two tokens; who has answered."""
    assert client.predict(api_name="/evidence")
    return set(client.predict("hello", max_new_tokens=2, api_name="/compare")["completions"])


def test_it_starts_as_a_space_does(place):
    cache = place / "cache"
    tiny_folders(cache)
    named = {"BITUNE_BASE": f"{cache}/base", "BITUNE_CHECKPOINTS": ",".join(f"{cache}/{method}" for method in METHODS)}
    with space(place, read_only(cache), sys.executable, free_port(), **named) as client:
        assert answers(client) == {"base", *METHODS}
    if another_user():
        assert not [path for path in cache.rglob("*") if path.stat().st_uid != 0], "written to"


@pytest.mark.long
def test_it_starts_with_nothing_but_its_requirements(place, default_base):
    """In a new environment, with the default base and the checkpoints that come with the project, on the port of a Space if it is free."""
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    install = [place / "venv" / "bin" / "pip", "install", "--quiet", "-r", ROOT / "requirements.txt"]
    subprocess.run(install, check=True, timeout=1800)
    shutil.copytree(cache_folder(), place / "cache")
    with socket.socket() as tried:
        port = 7860 if tried.connect_ex(("127.0.0.1", 7860)) else free_port()
    with space(place, read_only(place / "cache"), str(place / "venv" / "bin" / "python"), port) as client:
        assert answers(client) == {"base", *(folder.name for folder in (ROOT / "assets" / "checkpoints").iterdir())}
