"""Checkpoints from the Hub and to it, against a small Hub on this machine."""

import pytest
import torch
from huggingface_hub import constants

from bitune import BituneModel, CheckpointError
from tests.hub import COMMIT, Hub, running_hub
from tests.tiny import bitune_on, tiny_base
from tests.unharmed import contents, scores


def point_at(monkeypatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub without repositories, an empty cache, and nobody logged in."""
    with running_hub(Hub()) as running:
        point_at(monkeypatch, running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(key, raising=False)
        yield running


@pytest.fixture
def model():
    model = bitune_on(tiny_base())
    model.card, model.log = "# A tiny one\n", '{"step": 1}\n'
    return model


def test_what_is_pushed_loads_to_the_bit(hub, model, tmp_path):
    address = model.push_to_hub("somebody/tiny", token=hub.token)
    assert address == f"{hub.url}/somebody/tiny/commit/{COMMIT}"
    model.save_pretrained(tmp_path / "saved")
    assert hub.files["somebody/tiny"] == contents(tmp_path / "saved")
    for source in ("somebody/tiny", f"somebody/tiny@{COMMIT}", "somebody/tiny@main"):
        assert torch.equal(scores(BituneModel.from_pretrained(source, base=tiny_base())), scores(model))


def test_only_what_a_checkpoint_consists_of_is_downloaded(hub, model):
    model.push_to_hub("somebody/tiny", token=hub.token)
    hub.files["somebody/tiny"] |= {"causal/adapter_model.bin": b"pickle", "optimizer.pt": b"pickle", "run.py": b"print()"}
    hub.requests.clear()
    BituneModel.from_pretrained("somebody/tiny", base=tiny_base())
    fetched = " ".join(hub.requests)
    assert "causal/adapter_model.safetensors" in fetched
    assert not any(name in fetched for name in ("adapter_model.bin", "optimizer.pt", "run.py"))


def test_a_second_load_needs_no_network(hub, model, monkeypatch):
    model.push_to_hub("somebody/tiny", token=hub.token)
    BituneModel.from_pretrained("somebody/tiny", base=tiny_base())
    point_at(monkeypatch, "http://127.0.0.1:9")
    assert torch.equal(scores(BituneModel.from_pretrained("somebody/tiny", base=tiny_base())), scores(model))


@pytest.mark.parametrize(
    ("source", "words"),
    [("nobody/nothing", "nobody/nothing"), ("somebody/tiny@v9", "@v9"), ("a b/c", "a b/c"), ("x/y--z", "x/y--z")],
)
def test_what_is_not_on_the_hub_is_named(hub, model, source, words):
    model.push_to_hub("somebody/tiny", token=hub.token)
    base = tiny_base()
    with pytest.raises(CheckpointError, match="could not be had from the Hub") as caught:
        BituneModel.from_pretrained(source, base=base)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_unreachable_hub_is_named(hub, monkeypatch):
    point_at(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="no folder here and could not be had from the Hub.*network"):
        BituneModel.from_pretrained("somebody/tiny", base=tiny_base())


def test_a_repository_of_other_things_is_no_checkpoint(hub):
    hub.files["somebody/other"] = {"config.json": b"{}", "README.md": b"# other\n"}
    with pytest.raises(CheckpointError, match="is a base model .*, no checkpoint; name it as the base"):
        BituneModel.from_pretrained("somebody/other", base=tiny_base())


@pytest.mark.parametrize(
    ("name", "token", "remedy"),
    [
        ("somebody/tiny", "hf_wrong", "log in with `hf auth login`"),
        ("somebody/tiny", None, "log in with `hf auth login`"),
        ("a b/c", "hf_test", "check the spelling of user/name"),
    ],
)
def test_what_the_hub_does_not_take_is_said(hub, model, name, token, remedy, tmp_path):
    before = scores(model)
    with pytest.raises(CheckpointError, match=f"The Hub did not take.*{remedy}") as caught:
        model.push_to_hub(name, token=token)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not hub.files and torch.equal(scores(model), before)
