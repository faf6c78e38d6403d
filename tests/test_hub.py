"""The words for what the Hub and the network are known to do; asked for real, of a small Hub on this machine."""

import errno

import pytest
from huggingface_hub import HfApi, constants

from bitune.errors import CheckpointError, DataError, Failure
from bitune.hub import cached_snapshot, download_snapshot, hub_errors, hub_failure, probe_hub, upload_folder
from tests.hub import Hub, running_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with one repository, an empty cache, and nobody logged in."""
    with running_hub(Hub({"some/thing": {"a.json": b"{}"}})) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(key, raising=False)
        yield running


def said(call, **words) -> str:
    """The sentence for what `call` raises."""
    with pytest.raises(DataError) as caught, hub_errors(DataError, "X failed", **words):
        call()
    assert caught.value.__cause__ is not None and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_snapshot_is_downloaded_and_then_cached(hub):
    assert cached_snapshot("some/thing", None, ["*.json"]) is None
    folder = download_snapshot("some/thing", None, ["*.json"])
    assert (folder / "a.json").read_bytes() == b"{}" and cached_snapshot("some/thing", None, ["*.json"]) == folder
    assert cached_snapshot("not a name", None, ["*"]) is None


def test_what_the_hub_does_not_have_is_said(hub):
    missing = said(lambda: download_snapshot("no/thing", None, ["*"]), noun="data set")
    assert missing.startswith("X failed: there is no such public data set on the Hub; check the spelling, or log in")
    revision = said(lambda: download_snapshot("some/thing", "v9", ["*"]), revision="v9")
    assert revision == "X failed: it has no revision 'v9'; look it up under 'Files and versions' on the Hub."
    assert "check the spelling of user/name" in said(lambda: download_snapshot("not a name", None, ["*"]))


def test_a_hub_that_is_not_there_is_said(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for call in (probe_hub, lambda: download_snapshot("some/thing", None, ["*"])):
        assert "no answer from http://127.0.0.1:9" in said(call) and "check the network connection." in said(call)


def test_offline_mode_is_said(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (probe_hub, lambda: download_snapshot("some/thing", None, ["*"])):
        assert said(call) == "X failed: HF_HUB_OFFLINE is set, so the Hub was not asked; unset it."


def test_a_login_that_may_not_write_is_said(hub, tmp_path):
    (tmp_path / "file").write_text("x")
    for token in ("hf_wrong", None):
        text = said(lambda token=token: upload_folder("some/thing", tmp_path, message="m", token=token))
        assert text.endswith("log in with `hf auth login`.")


@pytest.mark.parametrize(
    ("status", "code", "cause", "remedy"),
    [
        (401, "RepoNotFound", "there is no such public model", "check the spelling, or log in"),
        (401, "", "the Hub does not accept this login", "log in with `hf auth login`"),
        (403, "GatedRepo", "its owner lets in only people who asked", "accept its terms on the Hub"),
        (404, "EntryNotFound", "a file is not there", "look it up under 'Files and versions'"),
        (403, "", "this login may not do that", "and a token that may"),
        (429, "", "the Hub had too many requests from here", "try again in some minutes"),
        (503, "", "the Hub has trouble of its own", "try again later"),
        (418, "", "the Hub refused it", "check the name and the login"),
    ],
)
def test_every_refusal_of_the_hub_has_its_remedy(hub, status, code, cause, remedy):
    hub.refusal = status, code
    text = said(lambda: HfApi(endpoint=hub.url).model_info("some/thing"))
    assert cause in text and remedy in text, text


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full", "free some space"),
        (OSError(errno.EIO, "of {this} kind"), "of {this} kind", "check the path and the disk"),
        (OSError("Consistency check failed"), "broke off (Consistency check failed)", "try again"),
        (RuntimeError("Task error: CAS Client Error: sending {request}"), "sending {request}", "network connection"),
    ],
)
def test_a_transfer_that_breaks_off_has_its_remedy(error, cause, remedy):
    failure = hub_failure(error)
    assert cause in failure.cause and remedy in failure.remedy, failure


def test_what_a_wrapper_hides_is_read():
    wrapped = RuntimeError("Error while uploading 'x' to the Hub.")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert hub_failure(wrapped) == Failure("the disk is full", "free some space")


@pytest.mark.parametrize("bug", [TypeError("x"), RuntimeError("x"), KeyError("x"), CheckpointError("Ours.")])
def test_a_bug_passes_as_it_is(bug):
    with pytest.raises(type(bug)) as caught, hub_errors(DataError, "X failed"):
        raise bug
    assert caught.value is bug
