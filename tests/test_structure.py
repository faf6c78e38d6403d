"""The shape of the repository: rooms and their order, public names, dependencies, the README's tree, and what no file may name."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import bitune

ROOT = Path(__file__).parent.parent

# A module imports only modules above it. `__init__` gathers what is public; nothing imports it from inside.
ROOMS = {
    "bitune": [
        "errors",
        "variants",
        "results",
        "config",
        "prompts",
        "masks",
        "mixing",
        "embedded",
        "sources",
        "unpacked",
        "base",
        "support",
        "peft_kinds",
        "adapters",
        "identity",
        "checkpoint",
        "publish",
        "reference",
        "prefill",
        "model",
        "generation",
        "attention",
        "engine",
        "records",
        "processes",
        "data",
        "training",
        "evaluation",
        "report",
        "sweep",
        "harness",
        "__main__",
    ],
    "app": [
        "differences",
        "figures",
        "maps",
        "frames",
        "examples",
        "what_ifs",
        "request",
        "settings",
        "theme",
        "views",
        "server",
        "recorded",
        "evidence_data",
        "evidence_items",
        "evidence_texts",
        "render",
        "mixing_log",
        "mixing_figures",
        "mixing_charts",
        "evidence_table",
        "evidence_list",
        "handlers",
        "attention_handlers",
        "mixing_handlers",
        "evidence_handlers",
        "compare",
        "attention",
        "mixing",
        "evidence",
        "page",
    ],
    "study": [
        "plan",
        "full",
        "run",
        "table",
        "lengths",
        "ship",
        "__main__",
    ],
}

# Required, but imported by another library and not by this project.
INDIRECT = {
    "gguf": "transformers' reader of GGUF files",
    # Their JavaScript is read from the installed package by app/frames.py.
    "bertviz": "the drawing of its views",
    "XStatic_D3": "what BertViz draws with",
    "XStatic_jQuery": "what BertViz finds its elements with",
}


@cache
def tracked() -> list[str]:
    """Paths of the files in git, with / between; of the files on disk where there is no git, as in a downloaded archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    found = []
    for folder, inside, files in os.walk(ROOT):
        inside[:] = [name for name in inside if not name.startswith(".") and name not in ("__pycache__", "build", "data", "runs")]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in files if not name.startswith(".")]
    return found


def modules(package: str) -> dict[str, Path]:
    """Module name -> file, of the modules that lie in the package's folder, `__init__` left out."""
    return {path.stem: path for path in sorted((ROOT / package).glob("*.py")) if path.stem != "__init__"}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions too; `from package import name` counts as package.name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import in line {node.lineno}; write the full name"
            inside = node.module in ROOMS
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if inside else {node.module}
    return found


@pytest.mark.parametrize("package", ROOMS)
def test_imports_only_point_upwards(package):
    rooms = ROOMS[package]
    wrong = []
    for name, path in modules(package).items():
        assert name in rooms, f"{package}/{name}.py has no place among the rooms in this test and in the README; give it one"
        for imported in imports(path):
            home, _, room = imported.partition(".")
            if home == package and (room not in rooms or rooms.index(room) >= rooms.index(name)):
                wrong.append(f"{path.name} imports {imported}")
    assert not wrong, wrong


def test_the_library_knows_no_page():
    for path in (ROOT / "bitune").glob("*.py"):
        foreign = {name for name in imports(path) if name.partition(".")[0] in ("app", "gradio", "plotly", "bertviz", "spaces")}
        assert not foreign, f"{path.name} imports {foreign}"


def test_figures_know_no_model_and_no_page():
    figures = ROOT / "app" / "figures.py"
    assert not {name for name in imports(figures) if name.partition(".")[0] in ("torch", "transformers", "gradio")}


def test_public_names_are_sorted_and_there():
    # As ruff's RUF022 sorts: constants, classes, functions.
    assert list(bitune.__all__) == sorted(bitune.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    missing = [name for name in bitune.__all__ if name not in dir(bitune)]
    assert not missing, missing


def requirements(lines: list[str]) -> dict[str, str]:
    """Name as it is imported -> the whole requirement without spaces."""
    kept = [line.split("#")[0].replace(" ", "") for line in lines]
    return {re.match(r"[\w.-]+", line)[0].replace("-", "_"): line for line in kept if line and not line.startswith("-")}


def test_requirements_are_exactly_what_is_imported():
    required = requirements((ROOT / "requirements.txt").read_text().splitlines())
    sources = [*(ROOT / "bitune").glob("*.py"), *(ROOT / "app").glob("*.py"), *ROOT.glob("*.py")]
    used = {name.partition(".")[0] for path in sources for name in imports(path)}
    foreign = used - set(sys.stdlib_module_names) - {"app", "bitune"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = requirements([line for extra in project["optional-dependencies"].values() for line in extra])
    assert foreign - set(required) - set(optional) == set(), "imported, but in no requirements"
    assert set(required) - foreign - set(INDIRECT) == set(), "required, but imported nowhere"


def test_the_library_and_the_page_require_the_same_versions():
    required = requirements((ROOT / "requirements.txt").read_text().splitlines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    library = requirements(project["dependencies"])
    assert library.items() <= required.items()
    development = requirements((ROOT / "requirements-dev.txt").read_text().splitlines())
    for extra in project["optional-dependencies"].values():
        assert requirements(extra).items() <= development.items()


def readme_tree() -> dict[str, str]:
    """Path -> description, from the README's tree: the fenced block whose first line begins with `bitune/`.

    A line is two spaces a level, a name (a folder ends in /), two or more spaces, one sentence.
    """
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(bitune/.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"README.md has {len(blocks)} fenced blocks that begin with bitune/; the tree is one"
    paths, parents = {}, []
    for line in blocks[0].splitlines():
        match = re.fullmatch(r"((?:  )*)(\S+)  +(\S.*)", line)
        assert match, f"README.md: this line of the tree is not indent, name, two spaces, sentence: {line!r}"
        depth = len(match[1]) // 2
        assert depth <= len(parents), f"README.md: this line of the tree has no folder above it: {line!r}"
        path = "".join(parents[:depth]) + match[2]
        assert path not in paths, f"README.md: the tree names {path} twice"
        paths[path] = match[3]
        parents[depth:] = [match[2]] if match[2].endswith("/") else []
    return paths


def test_the_readme_tree_is_the_disk():
    files = set(tracked())
    folders = {parent.as_posix() + "/" for name in files for parent in Path(name).parents if parent != Path(".")}
    named = set(readme_tree())
    top = {name if "/" not in name else name.split("/")[0] + "/" for name in files}
    code = {
        name
        for name in files
        if name.endswith(".py") and name.startswith(("bitune/", "app/")) and not name.endswith("__init__.py")
    }
    wanted = code | {name for name in top if not name.startswith(".")}
    assert wanted - named == set(), "not in the README's tree"
    assert named - files - folders == set(), "in the README's tree, but not in the repository"


# Put together here, so that this file does not name them.
FORBIDDEN = {
    "a package index": re.compile(
        "|".join(["pypi" + r"\.\w+", "python" + "hosted", "--index" + "-url", "--extra-index" + "-url"])
    ),
    "a folder of one machine": re.compile(r"(?<![\w.~/-])/(?:work|tmp|root|opt|home|Users)" + r"/[\w.-]+"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what):
    found = []
    for name in tracked():
        try:
            lines = (ROOT / name).read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [
            f"{name}:{number}: {match[0]}" for number, line in enumerate(lines, 1) if (match := FORBIDDEN[what].search(line))
        ]
    assert not found, found
