"""The wheel that is built from this repository: all of the library, nothing else, and it runs where the repository is not."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITHOUT_CACHES = shutil.ignore_patterns("__pycache__")

IMPORT_ALL = """
import importlib, pathlib, pkgutil, bitune
names = [module.name for module in pkgutil.walk_packages(bitune.__path__, "bitune.")]
for name in names:
    if name != "bitune.__main__":  # a command: it runs where it is imported
        importlib.import_module(name)
print(pathlib.Path(bitune.__file__).parent)
print(*names)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it sees no PYTHONPATH, so nothing of the repository that the test itself runs from."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of_the_library() -> set[str]:
    """Every file below bitune/, as paths from the repository."""
    paths = (path for path in (ROOT / "bitune").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as setuptools writes beside the sources, of every folder with Python in it: too much can be packed too."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in ROOT.iterdir():
        if path.is_dir() and any(path.glob("*.py")):
            shutil.copytree(path, source / path.name, ignore=WITHOUT_CACHES)
        elif path.is_file():
            shutil.copy(path, source)
    # The build backend comes from this environment (requirements-dev.txt): tests reach no package index.
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--wheel-dir",
        built,
        source,
    ]
    run(*build, cwd=source)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel in it, which finds the dependencies in the environment of this test; its interpreter."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    dependencies = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site_packages / "dependencies.pth").write_text("\n".join(dependencies))
    python = Path(sysconfig.get_path("scripts", "venv", vars=paths)) / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return python


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = files_of_the_library()
    assert names == expected, {"missing": sorted(expected - names), "too much": sorted(names - expected)}
    rooms = {path.parent.name for path in (ROOT / "bitune").glob("*/*.py")}
    assert rooms and rooms == {name.split("/")[1] for name in names if name.count("/") == 2 and name.endswith(".py")}


def test_every_module_imports_outside_the_repository(installed, tmp_path):
    folder, names = run(installed, "-c", IMPORT_ALL, cwd=tmp_path).splitlines()[-2:]
    assert Path(folder).is_relative_to(installed.parent.parent), f"imported {folder} and not the installed wheel"
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files_of_the_library()}
    assert set(names.split()) == {name for name in modules if name != "bitune"}


def test_the_command_runs_outside_the_repository(installed, tmp_path):
    text = run(installed, "-m", "bitune", "--help", cwd=tmp_path)
    assert "usage:" in text and "train" in text
