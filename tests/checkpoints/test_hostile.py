"""Folders that somebody made to do harm, or by accident: refused in one sentence, soon, before a tensor is made, and nothing is left on the base."""

import json
import os
import shutil
import socket
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitune import BituneModel, DataError, Engine
from bitune.adapters import patterns
from tests.mutations import within
from tests.tiny import bitune_on, tiny_base
from tests.unharmed import change_tensors, edit, refused, scores

SECONDS = 20.0  # of a slow machine; without the limits these cases take minutes, or never end
FILES = [
    "bitune_config.json",
    "causal/adapter_config.json",
    "bidirectional/adapter_model.safetensors",
    "mixing.safetensors",
    "training_log.jsonl",
    "README.md",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    model = bitune_on(tiny_base())
    model.log, model.card = '{"step": 1}\n', "# A card\n"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoint")


def a_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = os.getcwd()
        os.chdir(file.parent)  # the path of a socket has at most 108 characters
        try:
            end.bind(file.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is a pipe"),
        (Path.mkdir, "is a folder"),
        (a_socket, "is a socket"),
        (lambda file: file.symlink_to("/dev/zero"), "is a device"),
        (lambda file: file.symlink_to("nowhere"), "is a link to 'nowhere'"),
        (lambda file: file.symlink_to(file.name), "cannot be read"),
    ],
)
def test_only_files_are_read(name, make, words, folder, base):
    (folder / name).unlink()
    make(folder / name)
    with within(SECONDS), refused(base.model, str(folder / name), words):
        BituneModel.from_pretrained(folder, base=base)


def test_links_to_files_are_read_as_the_cache_of_the_hub_has_them(folder, saved, tmp_path):
    for name in FILES:
        shutil.move(folder / name, tmp_path / name.replace("/", "-"))
        (folder / name).symlink_to(tmp_path / name.replace("/", "-"))
    model = BituneModel.from_pretrained(folder, base=tiny_base())
    assert torch.equal(scores(model), scores(BituneModel.from_pretrained(saved, base=tiny_base())))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_many_gigabytes_is_not_read(name, folder, base):
    os.truncate(folder / name, 40 * 1024**3)  # sparse: takes no room
    with within(SECONDS), refused(base.model, str(folder / name), "42,949,672,960 bytes"):
        BituneModel.from_pretrained(folder, base=base)


def with_header(file: Path, header: dict, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_header_of_800000_tensors_is_not_read(folder, base):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    file = folder / "causal" / "adapter_model.safetensors"
    with_header(file, {f"t{number}": entry for number in range(800_000)})
    with within(SECONDS), refused(base.model, str(file), "a header of"):
        BituneModel.from_pretrained(folder, base=base)
    with_header(file, {f"t{number}": entry for number in range(150_000)})
    with within(SECONDS), refused(base.model, str(file), "150,000 tensors"):
        BituneModel.from_pretrained(folder, base=base)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "BOOL", "C64", "F4"])
def test_kinds_of_numbers_that_adapters_do_not_have_are_named(dtype, folder, base):
    with_header(
        folder / "causal" / "adapter_model.safetensors", {"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2]}}, b"ab"
    )
    with refused(base.model, repr(dtype), "F32"):
        BituneModel.from_pretrained(folder, base=base)


BOMB = r"(\w+\.?)+:"
HANGS = {
    "target_modules": {"target_modules": BOMB},
    "exclude_modules": {"exclude_modules": BOMB},
    "layers_pattern": {"layers_pattern": r"(\w+\.?)+:", "layers_to_transform": [0]},
    "rank_pattern": {"rank_pattern": {BOMB: 4}},
    "alpha_pattern": {"alpha_pattern": {BOMB: 4}},
    "alternatives": {"target_modules": r"(?:\w\w|\w|\.)*:"},
    "many stars": {"exclude_modules": ".*" * 30 + ":"},
}


@pytest.mark.parametrize("case", HANGS)
def test_patterns_that_take_for_ever_are_refused(case, folder, base, monkeypatch):
    monkeypatch.setattr(patterns, "TIME_LIMIT", 1.0)
    edit(folder / "causal" / "adapter_config.json", lambda data: data | HANGS[case])
    with within(SECONDS), refused(base.model, next(iter(HANGS[case])), "takes longer than 1 s", "list"):
        BituneModel.from_pretrained(folder, base=base)


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 5000, "*", "(?P<a>x)(?P<a>y)"])
def test_patterns_that_are_none_are_refused(pattern, folder, base):
    edit(folder / "causal" / "adapter_config.json", lambda data: data | {"exclude_modules": pattern})
    with within(SECONDS), refused(base.model, "exclude_modules", "no regular expression"):
        BituneModel.from_pretrained(folder, base=base)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(q|k|v|o|gate|up|down)_proj",
        r"(?:.*?(?:language|text|model).*?(?:self_attn|mlp).*?(?:k_proj|v_proj|q_proj|o_proj|gate_proj|up_proj|down_proj).*?)",
        r"(?!lm_head).*_proj",
    ],
)
def test_patterns_that_people_use_load(pattern, folder, saved):
    for slot in ("causal", "bidirectional"):
        edit(folder / slot / "adapter_config.json", lambda data: data | {"target_modules": pattern})
    model = BituneModel.from_pretrained(folder, base=tiny_base())
    assert torch.equal(scores(model), scores(BituneModel.from_pretrained(saved, base=tiny_base())))


WRONG_VALUES = {
    "a million names": ({"target_modules": [f"m{number}" for number in range(300_000)]}, "at most 20,000"),
    "many patterns": ({"rank_pattern": {f"m{number}": 4 for number in range(2_000)}}, "at most 1,024"),
    "a long pattern": ({"target_modules": "a" * 20_000}, "at most 10,000 characters"),
    "a rank of a billion": ({"r": 10**9}, "rank 1,000,000,000"),
    "a rank of a billion for one module": ({"rank_pattern": {"q_proj": 10**9}}, "rank 1,000,000,000"),
    "a rank beyond all memory": ({"r": 10**300}, "rank 1,000,"),
    "rank true": ({"r": True}, "the r True"),
    "rank 4.0": ({"r": 4.0}, "the r 4.0"),
    "alpha infinite": ({"lora_alpha": float("inf")}, "the lora_alpha inf"),
    "alpha NaN": ({"lora_alpha": float("nan")}, "the lora_alpha nan"),
    "alpha beyond float32": ({"lora_alpha": 1e39}, "the lora_alpha 1e+39"),
    "alpha beyond float64": ({"lora_alpha": 10**400}, "the lora_alpha a number of 1,329 bits"),
    "alpha text": ({"lora_alpha": "8"}, "the lora_alpha '8'"),
    "alpha of one module": ({"alpha_pattern": {"q_proj": float("inf")}}, "alpha_pattern"),
    "dropout NaN": ({"lora_dropout": float("nan")}, "the lora_dropout nan"),
    "dropout 2": ({"lora_dropout": 2}, "the lora_dropout 2"),
    "dora as a number": ({"use_dora": 1}, "the use_dora 1"),
    "targets of numbers": ({"target_modules": [1]}, "the target_modules [1]"),
    "a variant": ({"kasa_config": {}}, "kasa_config"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_settings_that_peft_does_not_check_are_refused(case, folder, base):
    change, words = WRONG_VALUES[case]
    edit(folder / "causal" / "adapter_config.json", lambda data: data | change)
    with within(SECONDS), refused(base.model, "adapter_config.json", words):
        BituneModel.from_pretrained(folder, base=base)


TEXTS = {
    "a key twice": ('"format_version": 1', '"format_version": 1, "format_version": 1', "stands twice"),
    "deep": ('"training": {}', '"training": {"a": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested"),
    "deep enough to read": ('"training": {}', '"training": {"a": ' + "[" * 300 + "]" * 300 + "}", "nested deeper than 64"),
    "half a character": ('"prompt_template": null', r'"prompt_template": "\ud800{prompt}"', "surrogate pair (U+D800)"),
    "digits": ('"theta_init": 0.01', '"theta_init": 1' + "0" * 5_000, "not readable JSON"),
    "huge": ('"theta_init": 0.01', '"theta_init": 1' + "0" * 400, "a number of 1,329 bits"),
    "1e400": ('"theta_init": 0.01', '"theta_init": 1e400', "theta_init is inf"),
    "denormal": ('"theta_init": 0.01', '"theta_init": 1e-320', "theta_init is 1e-320"),
    "denormal in float32": ('"theta_init": 0.01', '"theta_init": 1e-39', "theta_init is 1e-39"),
    "beyond float32": ('"theta_init": 0.01', '"theta_init": 1e39', "theta_init is 1e+39"),
    "template": ('"prompt_template": null', '"prompt_template": "{prompt}' + "a" * 30_000 + '"', "30,008 characters"),
    "name": ('"sha256": null', '"sha256": 5', "sha256 5"),
    "layers": ('"layers": 4', '"layers": true', "layers True"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_no_config_holds_are_refused(case, folder, base):
    old, new, words = TEXTS[case]
    file = folder / "bitune_config.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    change_tensors(
        folder / "mixing.safetensors", lambda tensors: {key: torch.zeros_like(value) for key, value in tensors.items()}
    )
    with within(SECONDS), refused(base.model, str(file), words):
        BituneModel.from_pretrained(folder, base=base)


def test_coefficients_that_leave_float32_are_refused(folder, base):
    edit(folder / "bitune_config.json", lambda data: data["mixing"].update(theta_init=3e38))
    change_tensors(
        folder / "mixing.safetensors", lambda tensors: {key: torch.full_like(value, 3e38) for key, value in tensors.items()}
    )
    with refused(base.model, "too large for a ratio"):
        BituneModel.from_pretrained(folder, base=base)
    assert load_file(folder / "mixing.safetensors")["theta_k"].isfinite().all()


def test_an_engine_is_as_before_after_any_of_them(folder, base):
    engine = Engine(base)
    for old, new in (('"theta_init": 0.01', '"theta_init": 1e-320'), ('"passes"', '"passed"')):
        file = folder / "bitune_config.json"
        text = file.read_text()
        file.write_text(text.replace(old, new))
        with refused(base.model, str(file)):
            engine.add_checkpoint(folder, name="it")
        assert list(engine.variants) == ["base"] and not engine.checkpoints
        file.write_text(text)
    engine.add_checkpoint(folder, name="it")
    engine.remove_checkpoint("it")


@pytest.mark.parametrize("line", ["x", "[" * 100_000, "1" * 5_000, '{"a": 1, "a": 2}', r'{"a": "\udfff"}'])
def test_a_log_that_is_no_json_is_named_with_its_line(line, folder, base):
    (folder / "training_log.jsonl").write_text('{"step": 1, "text": "a\u2028b"}\n\n' + line + "\n", encoding="utf-8")
    engine = Engine(base)
    engine.add_checkpoint(folder, name="it")
    try:
        with pytest.raises(DataError, match="Line 3 of the training log of 'it' is not JSON"):
            engine.training_log("it")
    finally:
        engine.remove_checkpoint("it")


@pytest.mark.parametrize("source", ["a" * 5_000, "~nobody-of-this-name/x", "a\0b", "", "a/" + "b" * 300])
def test_names_that_no_folder_has_are_refused(source, base):
    with refused(base.model):
        BituneModel.from_pretrained(source, base=base)
