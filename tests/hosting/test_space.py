"""A Hugging Face Space: what the front matter of README.md says."""

import struct
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bitune.base.local import EMBEDDED

ROOT = Path(__file__).parent.parent.parent
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
