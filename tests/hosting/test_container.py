"""The Dockerfile, without Docker: what it copies is there and is enough, its command opens the page, its health check asks and is answered."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.browser.served import METHODS, tiny_folders
from tests.hosting.apps import ROOT, free_port, started

DOCKERFILE = ROOT / "Dockerfile"
KNOWN = {"FROM", "ARG", "RUN", "COPY", "WORKDIR", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"}


@dataclass(frozen=True)
class Step:
    """An instruction and what stands behind it, on one line."""

    name: str
    rest: str


def steps() -> list[Step]:
    """The instructions of the Dockerfile, in order."""
    lines = [line for line in DOCKERFILE.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in whole.splitlines()]


def last_stage() -> list[Step]:
    """Those of the image that is kept."""
    last = max(place for place, step in enumerate(steps()) if step.name == "FROM")
    return steps()[last:]


def only(name: str) -> str:
    """What stands behind the one instruction of this name in the last stage."""
    (rest,) = (step.rest for step in last_stage() if step.name == name)
    return rest


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps this path out; the last line that fits decides."""
    decision = False
    for line in (ROOT / ".dockerignore").read_text().split():
        pattern = line.removeprefix("!").removeprefix("**/")
        if any(fnmatch(part.as_posix(), pattern) or fnmatch(part.name, pattern) for part in (Path(name), *Path(name).parents)):
            decision = not line.startswith("!")
    return decision


def copied(stage: list[Step]) -> dict[str, str]:
    """What comes from the checkout -> where it goes."""
    pairs = (step.rest.split() for step in stage if step.name == "COPY" and not step.rest.startswith("--from"))
    return dict(pairs)


def test_its_instructions_are_known_and_what_it_copies_is_there():
    assert {step.name for step in steps()} <= KNOWN
    for source in copied(steps()):
        assert (ROOT / source).exists() and not ignored(source), source
    assert ignored("README.md") and ignored("tests/tiny.py") and ignored("app/__pycache__") and ignored("assets/thumbnail.png")
    assert not ignored("assets/recorded/bees.json")


def test_it_installs_the_requirements_for_the_device_that_is_chosen():
    first = steps()[: len(steps()) - len(last_stage())]
    assert [step.rest for step in first if step.name == "ARG"] == ["TORCH=cpu"]
    (install,) = (step.rest for step in first if step.name == "RUN" and "requirements.txt" in step.rest)
    words = shlex.split(install)
    assert words[:3] == ["uv", "pip", "install"] and words[words.index("--torch-backend") + 1] == "$TORCH"
    assert list(copied(first)) == ["requirements.txt"], "a change in the code installs nothing anew"


def test_it_does_not_run_as_root_and_what_it_writes_lies_in_its_volume():
    names = [step.name for step in last_stage()]
    assert only("USER") not in ("root", "0") and names.index("USER") < names.index("CMD")
    variables = dict(word.split("=", 1) for word in shlex.split(only("ENV")))
    folders = {variables[name] for name in ("HOME", "BITUNE_CACHE", "HF_HOME", "GRADIO_TEMP_DIR")}
    assert all(Path(folder).is_relative_to(only("VOLUME")) for folder in folders)
    assert variables["GRADIO_SERVER_PORT"] == only("EXPOSE")


@pytest.fixture
def image(tmp_path) -> Path:
    """What the image has of the checkout, in a folder."""
    folder = tmp_path / "image"
    folder.mkdir()
    for source, target in copied(last_stage()).items():
        if (ROOT / source).is_dir():
            kept = lambda where, names: [n for n in names if ignored((Path(where) / n).relative_to(ROOT).as_posix())]  # noqa: E731
            shutil.copytree(ROOT / source, folder / target, ignore=kept)
        else:
            shutil.copy(ROOT / source, folder / target)
    return folder


def test_its_command_opens_the_page_and_its_health_check_is_answered(image, tmp_path):
    tiny_folders(tmp_path / "tiny")
    volume, port = str(tmp_path / "volume"), str(free_port())
    written = dict(word.split("=", 1) for word in shlex.split(only("ENV")) if not word.startswith("PATH="))
    variables = {name: value.replace(only("VOLUME"), volume, 1) for name, value in written.items()}
    variables |= {"GRADIO_SERVER_PORT": port, "BITUNE_BASE": f"{tmp_path}/tiny/base"}
    variables |= {"BITUNE_CHECKPOINTS": f"{tmp_path}/tiny/{METHODS[0]}"}
    (tmp_path / "volume").mkdir()
    assert json.loads(only("CMD")) == ["python", "app.py"], "as `started` starts it"
    check = json.loads(re.search(r"CMD (\[.*\])$", only("HEALTHCHECK"))[1])
    asked = {"args": [sys.executable, *check[1:]], "env": os.environ | variables, "capture_output": True, "text": True}
    assert check[0] == "python" and subprocess.run(**asked, check=False).returncode == 1, "before the page is there"
    with started([], variables, folder=image) as app:
        assert app.address.endswith(f":{port}")
        healthy = subprocess.run(**asked, check=False)
        assert healthy.returncode == 0, healthy.stderr
