"""What a checkpoint is called where nobody gave it a name."""

import pytest

from bitune.checkpoints.folder import resolve_checkpoint
from bitune.errors import CheckpointError
from bitune.schema.names import default_name


@pytest.mark.parametrize(("source", "name"), [("user/mine", "mine"), ("user/mine@v2", "mine"), ("user/mine@a/b", "mine")])
def test_a_hub_id_gives_its_last_part_without_the_revision(source, name):
    assert default_name(source, {}) == name
    assert default_name(source, {name: "other/mine"}) == source
    assert default_name(source, {name: source}) == name


def test_a_folder_gives_its_own_name(tmp_path, monkeypatch):
    folder = tmp_path / "v@2" / "mine@home"
    folder.mkdir(parents=True)
    (tmp_path / "latest").symlink_to(folder)
    monkeypatch.chdir(folder)
    for source in (folder, ".", str(folder) + "/", tmp_path / "latest"):
        assert default_name(source, {}) == "mine@home"


def test_a_path_that_leads_nowhere_has_a_name_and_is_refused_when_it_is_read(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert default_name(loop, {}) == "loop"
    assert default_name("a\0b", {}) == "a\0b"
    with pytest.raises(CheckpointError, match="loop"):
        resolve_checkpoint(loop)
