"""The shape of the repository: rooms and their arrows, public names, dependencies, the documented tree, and what no file may name."""

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

# Required, but imported by another library and not by this project.
INDIRECT = {
    "gguf": "transformers' reader of GGUF files",
    # Their JavaScript is read from the installed package by app/attention/bertviz.py.
    "bertviz": "the drawing of its views",
    "XStatic_D3": "what BertViz draws with",
    "XStatic_jQuery": "what BertViz finds its elements with",
}
IMPORTED_AS = {"markdown_it_py": "markdown_it"}
# Imported where a host brings it.
BROUGHT = {"spaces": "a ZeroGPU Space has it installed"}


@cache
def tracked() -> list[str]:
    """Paths of the files in git, with / between; of the files on disk where there is no git, as in a downloaded archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    found = []
    for folder, inside, files in os.walk(ROOT):
        inside[:] = [name for name in inside if not name.startswith(".") and name != "__pycache__"]
        if folder == str(ROOT):
            inside[:] = [name for name in inside if name not in ("build", "data", "runs")]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in files if not name.startswith(".")]
    return found


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions too; `from package import name` counts as package.name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import in line {node.lineno}; write the full name"
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if is_package else {node.module}
    return names


def sources(package: str) -> list[Path]:
    """Every Python file of a package, `__init__.py` and `__main__.py` of the package itself left out: they only hand names on."""
    return sorted(path for path in (ROOT / package).rglob("*.py") if path.parent != ROOT / package or path.stem[0] != "_")


def room_of(package: str, path: Path) -> str:
    """`schema` for bitune/schema/config.py, `errors` for bitune/errors.py."""
    return path.relative_to(ROOT / package).with_suffix("").parts[0]


def allowed_arrows(package: str) -> dict[str, set[str]]:
    """Room -> the rooms that it may import, from the table in docs/architecture.md whose head names the package."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = re.search(rf"^\| room of `{package}` \|.*?\n\|[-|]+\|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert table, f"docs/architecture.md has no table whose head is: room of `{package}`"
    arrows = {}
    for line in table[1].splitlines():
        rooms, _, may_import = line.strip("|").split("|")
        arrows |= {room: set(re.findall(r"`(\w+)`", may_import)) for room in re.findall(r"`(\w+)`", rooms)}
    return arrows


@pytest.mark.parametrize("package", ["bitune", "app", "study"])
def test_rooms_import_only_what_the_table_allows(package):
    arrows = allowed_arrows(package)
    assert set(arrows) == {room_of(package, path) for path in sources(package)}, "rooms in the table and on the disk"
    wrong, used = [], {room: set() for room in arrows}
    for path in sources(package):
        room = room_of(package, path)
        for name in imports(path):
            home, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if home == package and target and target != room:
                used[room].add(target)
                if target not in arrows[room]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, wrong
    unused = {room: sorted(arrows[room] - used[room]) for room in arrows if arrows[room] - used[room]}
    assert not unused, f"arrows in the table that no import needs any more: {unused}"


@pytest.mark.parametrize("package", ["bitune", "app", "study"])
def test_there_is_no_circle(package):
    arrows, order = allowed_arrows(package), []
    while len(order) < len(arrows):
        ready = [room for room in arrows if room not in order and arrows[room] <= set(order)]
        assert ready, f"a circle among {sorted(set(arrows) - set(order))}"
        order += ready


def test_modules_of_a_room_are_in_no_circle_either():
    for package in ("bitune", "app", "study"):
        named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources(package)}
        left = {name: {other for other in imports(path) if other in named} - {name} for name, path in named.items()}
        while left:
            ready = [name for name, others in left.items() if not others & left.keys()]
            assert ready, f"a circle among {sorted(left)}"
            for name in ready:
                del left[name]


def test_the_library_knows_no_page():
    for path in sources("bitune"):
        foreign = {name for name in imports(path) if name.partition(".")[0] in ("app", "gradio", "plotly", "bertviz", "spaces")}
        assert not foreign, f"{path.name} imports {foreign}"


def test_every_room_says_what_lives_there():
    for init in [path for package in ("bitune", "app") for path in (ROOT / package).glob("*/__init__.py")]:
        words = ast.get_docstring(ast.parse(init.read_text("utf-8"))) or ""
        assert len(words) > 80, f"{init.relative_to(ROOT)} does not say what lives there and what may be touched from outside"


def test_files_are_short():
    for path in [path for package in ("bitune", "app", "study", "benchmarks", "soak") for path in (ROOT / package).rglob("*.py")]:
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines; two rooms in one?"


def test_peft_and_what_is_private_to_transformers_stay_in_their_rooms():
    """PEFT's layers are touched in adapters/ alone, transformers' internals in modeling/ and the Trainer's in training/."""
    private = ("transformers.masking_utils", "transformers.cache_utils", "transformers.modeling_utils", "transformers.trainer_")
    for path in sources("bitune"):
        room, names = room_of("bitune", path), imports(path)
        if room != "adapters":
            layers = {name for name in names if name.startswith("peft.")}
            assert not layers, f"{path.name} imports {layers}"
        if room not in ("modeling", "training"):
            assert not {name for name in names if name.startswith(private)}, path.name


@pytest.mark.parametrize(("words", "libraries"), [("nows no gradio", {"gradio"}), ("knows no torch", {"torch"})])
def test_a_module_does_not_import_what_it_says_it_does_not_know(words, libraries):
    saying = [path for package in ("bitune", "app") for path in sources(package) if words in path.read_text("utf-8")]
    assert saying
    for path in saying:
        assert not {name.partition(".")[0] for name in imports(path)} & libraries, path.relative_to(ROOT)


def test_public_names_are_sorted_and_there():
    # As ruff's RUF022 sorts: constants, classes, functions.
    assert list(bitune.__all__) == sorted(bitune.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    missing = [name for name in bitune.__all__ if name not in dir(bitune)]
    assert not missing, missing


def requirements(lines: list[str]) -> dict[str, str]:
    """Name as it is imported -> the whole requirement without spaces."""
    kept = [line.split("#")[0].replace(" ", "") for line in lines]
    names = {line: re.match(r"[\w.-]+", line)[0].replace("-", "_") for line in kept if line and not line.startswith("-")}
    return {IMPORTED_AS.get(name, name): line for line, name in names.items()}


def test_requirements_are_exactly_what_is_imported():
    required = requirements((ROOT / "requirements.txt").read_text().splitlines())
    paths = [*(ROOT / "bitune").rglob("*.py"), *(ROOT / "app").rglob("*.py"), *ROOT.glob("*.py")]
    used = {name.partition(".")[0] for path in paths for name in imports(path)}
    foreign = used - set(sys.stdlib_module_names) - {"app", "bitune"} - set(BROUGHT)
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


def documented_tree() -> dict[str, str]:
    """Path -> description, from the tree in docs/architecture.md: the fenced block whose first line begins with `bitune/`.

    A line is two spaces a level, a name (a folder ends in /), two or more spaces, one sentence.
    """
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(bitune/.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"docs/architecture.md has {len(blocks)} fenced blocks that begin with bitune/; the tree is one"
    paths, parents = {}, []
    for line in blocks[0].splitlines():
        match = re.fullmatch(r"((?:  )*)(\S+)  +(\S.*)", line)
        assert match, f"docs/architecture.md: this line of the tree is not indent, name, two spaces, sentence: {line!r}"
        depth = len(match[1]) // 2
        assert depth <= len(parents), f"docs/architecture.md: this line of the tree has no folder above it: {line!r}"
        path = "".join(parents[:depth]) + match[2]
        assert path not in paths, f"docs/architecture.md: the tree names {path} twice"
        paths[path] = match[3]
        parents[depth:] = [match[2]] if match[2].endswith("/") else []
    return paths


def test_the_documented_tree_is_the_disk():
    files = set(tracked())
    folders = {parent.as_posix() + "/" for name in files for parent in Path(name).parents if parent != Path(".")}
    named = set(documented_tree())
    top = {name if "/" not in name else name.split("/")[0] + "/" for name in files}
    code = {
        name
        for name in files
        if name.endswith(".py") and name.startswith(("bitune/", "app/")) and not name.endswith("__init__.py")
    }
    wanted = code | {name for name in top if not name.startswith(".")}
    assert wanted - named == set(), "not in the tree of docs/architecture.md"
    assert named - files - folders == set(), "in the tree of docs/architecture.md, but not in the repository"


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
