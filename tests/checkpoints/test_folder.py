"""Checkpoint folders: a round trip changes no bit, and an older checkpoint is replaced whole or not at all."""

import errno
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from bitune import (
    METHODS,
    BituneModel,
    CheckpointError,
)
from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.checkpoints.folder import read
from tests.closeness import assert_apart, assert_close
from tests.tiny import bitune_on, tiny_base, tiny_model
from tests.unharmed import ANSWER, PROMPT, bare, change_tensors, contents, edit, refused, scores

# PEFT's own way in asks transformers for a property under its old name.
peft_itself = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
KINDS = ["lora", "dora", "ia3"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A random Bitune LoRA checkpoint of the tiny Llama; copy it before you damage it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    bitune_on(tiny_base()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoint")


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_is_exact_to_the_bit(method, kind, tmp_path):
    model = bitune_on(tiny_base(), method, kind, prompt_template="Q: {prompt}\nA:")
    model.log, model.card = '{"step": 1}\n', "# card \u2026\n"
    model.record_training({"steps": 3})
    model.save_pretrained(tmp_path / "first")
    again = BituneModel.from_pretrained(tmp_path / "first", base=tiny_base())
    assert torch.equal(scores(again), scores(model))
    assert again.bitune_config == model.bitune_config and (again.log, again.card) == (model.log, model.card)
    again.save_pretrained(tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    untrained = BituneModel.create(tiny_base(), method, new_peft_config(tiny_model(), kind, rank=4))
    assert not torch.equal(scores(untrained), scores(model)), "a load that does nothing would pass"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_checkpoint_in_16_bits_stays_as_it_was_saved(kind, dtype, tmp_path):
    bitune_on(tiny_base(), kind=kind).save_pretrained(tmp_path / "first", dtype=dtype)
    weights = load_file(tmp_path / "first" / "causal" / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {dtype}
    again = BituneModel.from_pretrained(tmp_path / "first", base=tiny_base())
    again.save_pretrained(tmp_path / "second", dtype=dtype)
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    assert load_file(tmp_path / "second" / "mixing.safetensors")["theta_k"].dtype == torch.float32


def test_a_base_in_bfloat16_rounds_no_adapter_and_no_coefficient(saved, tmp_path):
    model = BituneModel.from_pretrained(saved, base=tiny_model().to(torch.bfloat16))
    model.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved)
    model.to(torch.bfloat16)
    assert model.mixing.theta_k.dtype == torch.float32


def test_it_loads_beside_others_and_all_answer_as_alone(saved, tmp_path):
    alone = scores(BituneModel.from_pretrained(saved, base=tiny_base()))
    base = tiny_base()
    first = bitune_on(base, "lora", seed=7)
    before = scores(first)
    models = [BituneModel.from_pretrained(saved, base=base) for _ in range(2)]
    assert AdapterManager.of(base.model).names == ("causal", "causal_2", "bidirectional", "causal_3", "bidirectional_2")
    assert all(torch.equal(scores(model), alone) for model in models)
    assert torch.equal(scores(first), before)
    models[1].save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved)


@peft_itself
def test_peft_reads_an_adapter_folder_of_ours(saved):
    loaded = PeftModel.from_pretrained(tiny_model(), saved / "causal").eval()
    causal = BituneModel.from_pretrained(saved / "causal", base=tiny_base())
    whole = torch.cat([PROMPT, ANSWER], dim=1)
    with torch.no_grad():
        expected = loaded(whole).logits[:, PROMPT.shape[1] - 1 : -1]
    assert_close(scores(causal), expected)
    assert_apart(bare(tiny_model())[:, -1:], expected[:, :1])


@peft_itself
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_peft_folder_is_a_lora_checkpoint(kind, tmp_path):
    torch.manual_seed(3)
    plain = get_peft_model(tiny_model(), new_peft_config(tiny_model(), kind, rank=4)).eval()
    for parameter in plain.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    plain.save_pretrained(tmp_path / "plain")
    model = BituneModel.from_pretrained(tmp_path / "plain", base=tiny_base())
    assert model.bitune_config.method == METHODS["lora"] and model.mixing is None
    whole = torch.cat([PROMPT, ANSWER], dim=1)
    with torch.no_grad():
        expected = plain(whole).logits[:, PROMPT.shape[1] - 1 : -1]
    assert_close(scores(model), expected)
    model.save_pretrained(tmp_path / "ours")
    again = BituneModel.from_pretrained(tmp_path / "ours", base=tiny_base())
    assert torch.equal(scores(again), scores(model))


def test_the_same_weights_in_16_bits_are_the_same_base(saved):
    for dtype in (torch.bfloat16, torch.float16):
        BituneModel.from_pretrained(saved, base=tiny_model().to(dtype))


def test_a_setting_of_a_newer_peft_that_is_not_in_use_is_no_obstacle(folder, saved):
    edit(folder / "causal" / "adapter_config.json", lambda data: data | {"use_wonders": False, "wonders": None, "more": {}})
    model = BituneModel.from_pretrained(folder, base=tiny_base())
    assert torch.equal(scores(model), scores(BituneModel.from_pretrained(saved, base=tiny_base())))


def test_lora_and_dora_share_a_base(saved, tmp_path):
    bitune_on(tiny_base(), kind="dora").save_pretrained(tmp_path / "dora")
    folders = [saved, tmp_path / "dora"]
    alone = [scores(BituneModel.from_pretrained(folder, base=tiny_base())) for folder in folders]
    base = tiny_base()
    together = [BituneModel.from_pretrained(folder, base=base) for folder in folders]
    for model, expected in zip(together, alone, strict=True):
        assert_close(scores(model), expected)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_saving_replaces_an_older_checkpoint_whole(folder, tmp_path):
    (folder / "training_log.jsonl").write_text('{"step": 1}\n')
    model = bitune_on(tiny_base(), "lora")
    model.save_pretrained(folder)
    assert set(contents(folder)) == {"bitune_config.json", "causal/adapter_config.json", "causal/adapter_model.safetensors"}
    assert not (folder / "bidirectional").exists()
    assert torch.equal(scores(BituneModel.from_pretrained(folder, base=tiny_base())), scores(model))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_saving_leaves_files_of_other_people_alone(folder, tmp_path):
    foreign = {"notes.txt": b"mine", ".git/HEAD": b"ref: main\n", "bidirectional/README.md": b"of PEFT", "README.md": b"my card"}
    for name, content in foreign.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    inode = folder.stat().st_ino
    model = bitune_on(tiny_base(), "lora")
    model.save_pretrained(folder)
    ours = {"bitune_config.json", "causal/adapter_config.json", "causal/adapter_model.safetensors"}
    assert set(contents(folder)) == ours | set(foreign)
    assert all(contents(folder)[name] == content for name, content in foreign.items())
    assert folder.stat().st_ino == inode, "a shell that stands in the folder still does"
    model.card = "# The card of this one\n"
    model.save_pretrained(folder)
    assert (folder / "README.md").read_bytes() == b"my card", "somebody wrote it, so it stays"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_card_of_ours_is_replaced_and_one_that_somebody_changed_stays(folder):
    model = bitune_on(tiny_base(), "lora")
    for card in ("# First\n", "# Second\n"):
        model.card = card
        model.save_pretrained(folder)
        assert (folder / "README.md").read_text() == card
    (folder / "README.md").write_text("# Second, with notes\n")
    again = BituneModel.from_pretrained(folder, base=tiny_base())
    again.save_pretrained(folder)  # word for word what is there; still not ours
    model.card = "# Third\n"
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "# Second, with notes\n"


@pytest.mark.parametrize(
    "name", ["bidirectional/adapter_config.json", "bidirectional/adapter_model.safetensors", "mixing.safetensors"]
)
def test_files_of_other_people_under_our_names_are_not_replaced(name, folder):
    bitune_on(tiny_base(), "lora").save_pretrained(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"mine")
    before, model = contents(folder), bitune_on(tiny_base())
    with refused(model.base, name, "move it away"):
        model.save_pretrained(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["training_log.jsonl", "mixing.safetensors", "causal/adapter_config.json"])
def test_a_folder_under_one_of_our_names_is_not_replaced(name, folder):
    if (folder / name).exists():
        (folder / name).unlink()
    (folder / name).mkdir()
    (folder / name / "notes.txt").write_text("mine")
    before, model = contents(folder), bitune_on(tiny_base())
    with refused(model.base, name, "move it away"):
        model.save_pretrained(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["causal", "bidirectional"])
def test_a_linked_subfolder_is_not_written_through(name, folder, tmp_path):
    elsewhere = shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to("../elsewhere", target_is_directory=True)
    before, model = contents(elsewhere), bitune_on(tiny_base(), "lora")
    with refused(model.base, name, "is a link to '../elsewhere'", "choose another folder"):
        model.save_pretrained(folder)
    assert contents(elsewhere) == before and (folder / name).is_symlink()


def test_a_link_and_a_file_where_the_first_adapter_comes_are_no_subfolders(folder, tmp_path):
    bitune_on(tiny_base(), "lora").save_pretrained(folder)
    model, place = bitune_on(tiny_base()), folder / "bidirectional"
    (tmp_path / "elsewhere").mkdir()
    for target in ("../elsewhere", "../nowhere"):
        place.symlink_to(target, target_is_directory=True)
        with refused(model.base, "bidirectional", f"is a link to '{target}'"):
            model.save_pretrained(folder)
        place.unlink()
    place.write_text("mine")
    with refused(model.base, "bidirectional", "is a file where a folder belongs"):
        model.save_pretrained(folder)
    assert place.read_text() == "mine" and not any((tmp_path / "elsewhere").iterdir())


def test_an_older_config_cannot_name_files_outside_its_folder(folder, tmp_path):
    outside = shutil.copytree(folder / "causal", tmp_path / "outside")
    edit(folder / "bitune_config.json", lambda data: data["adapters"].update(causal="../outside"))
    before = contents(outside)
    bitune_on(tiny_base()).save_pretrained(folder)
    assert contents(outside) == before
    BituneModel.from_pretrained(folder, base=tiny_base())


def test_everybody_may_read_what_was_saved(saved):
    others = {path.name: path.stat().st_mode & 0o044 for path in saved.rglob("*") if path.is_file()}
    (saved.parent / "plain").write_text("")
    assert set(others.values()) == {(saved.parent / "plain").stat().st_mode & 0o044}, others


def test_a_folder_of_other_things_is_no_target(tmp_path):
    model = bitune_on(tiny_base())
    (tmp_path / "notes.txt").write_text("mine")
    with refused(model.base, str(tmp_path), "empty or new"):
        model.save_pretrained(tmp_path)
    with refused(model.base, "notes.txt", "empty or new"):
        model.save_pretrained(tmp_path / "notes.txt")
    with refused(model.base, "notes.txt", "could not be written"):
        model.save_pretrained(tmp_path / "notes.txt" / "inside")
    assert (tmp_path / "notes.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("facts", [{"when": object()}, {"who": "\ud800"}])
def test_facts_that_are_no_json_are_refused_and_the_old_one_stays(facts, folder):
    before, model = contents(folder), bitune_on(tiny_base())
    model.record_training(facts)
    with refused(model.base, str(folder), "no JSON"):
        model.save_pretrained(folder)
    assert contents(folder) == before


def test_an_empty_folder_a_deep_one_a_link_and_here_are_targets(tmp_path, monkeypatch):
    model = bitune_on(tiny_base())
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty", target_is_directory=True)
    (tmp_path / "here").mkdir()
    for target in ("empty", "a/b/c", "link"):
        model.save_pretrained(tmp_path / target)
        BituneModel.from_pretrained(tmp_path / target, base=tiny_base())
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "here")
    model.save_pretrained(".")
    assert (tmp_path / "here" / "bitune_config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "here", "link"]
    assert (tmp_path / "empty").stat().st_mode & 0o077 == (tmp_path / "a").stat().st_mode & 0o077, "others may read it too"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["bidirectional/adapter_model.safetensors", "mixing.safetensors", *range(12)])
def test_a_cut_while_saving_leaves_the_old_one_whole(error, moment, folder, tmp_path, monkeypatch):
    (folder / "notes.txt").write_text("mine")
    before, renamed = contents(folder), []
    model = bitune_on(tiny_base(), seed=8)

    def write_bytes(self, data):
        if self.as_posix().endswith(str(moment)):
            raise error
        return original_write(self, data)

    def rename(self, target):
        renamed.append(self)
        if len(renamed) == moment + 1:
            raise error
        return original_rename(self, target)

    original_write, original_rename = Path.write_bytes, Path.rename
    if isinstance(moment, str):
        monkeypatch.setattr(Path, "write_bytes", write_bytes)
    else:
        monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        model.save_pretrained(folder)
    assert not isinstance(error, OSError) or "the disk is full; free some space" in str(caught.value)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_save_that_is_cut_in_a_new_folder_leaves_none(tmp_path, monkeypatch):
    def rename(self, target):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(CheckpointError, match="could not be written: permission denied; change the permissions"):
        bitune_on(tiny_base()).save_pretrained(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_an_error_that_is_none_of_the_disk_passes_as_it_is(folder, monkeypatch):
    before = contents(folder)

    def rename(self, target):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        bitune_on(tiny_base()).save_pretrained(folder)
    assert contents(folder) == before


def test_load_takes_over_all_or_nothing(saved, folder):
    model = bitune_on(tiny_base(), seed=8)
    before = scores(model)
    weights = folder / "bidirectional" / "adapter_model.safetensors"
    change_tensors(weights, lambda tensors: dict(list(tensors.items())[1:]))
    with refused(model.base, "lack"):
        model.load(read(folder))
    assert torch.equal(scores(model), before)
    model.load(read(saved))
    assert torch.equal(scores(model), scores(BituneModel.from_pretrained(saved, base=tiny_base())))


def test_a_fingerprint_is_of_what_runs_and_of_nothing_else(saved, tmp_path):
    one = read(saved).fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", one)
    model = BituneModel.from_pretrained(saved, tiny_base(), trainable=False)
    assert model.to_checkpoint().fingerprint() == one, "in memory as on disk"
    model.record_training({"steps": 3})
    model.save_pretrained(tmp_path / "again")
    assert read(tmp_path / "again").fingerprint() == one, "its name, its folder and what is written about it do not count"
    with torch.no_grad():
        model.mixing.theta_v[1] += 0.001
    assert model.to_checkpoint().fingerprint() != one
    other = bitune_on(tiny_base(), "lora")
    assert (
        len({one, other.to_checkpoint().fingerprint(), bitune_on(tiny_base(), "lora", seed=9).to_checkpoint().fingerprint()}) == 3
    )
