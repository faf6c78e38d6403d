"""A base folder that is damaged or meant to hurt ends in one sentence, soon, before transformers follows it."""

import json
import os
import struct

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from bitune import BaseNotFoundError, load_base
from tests.tiny import GROUPED, saved_base, tiny_model

HUGE = 10**9


@pytest.fixture
def folder(tmp_path):
    saved_base(tmp_path)
    return tmp_path


def refused(source, words: str) -> None:
    with pytest.raises(BaseNotFoundError, match=words) as caught:
        load_base(source, "cpu", "float32")
    assert "\n" not in str(caught.value)


def edited(folder, name: str, **settings) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | settings))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_what_is_no_file_is_not_opened(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, rf"{name} is a pipe, not a file")
    (folder / name).unlink()
    (folder / name).symlink_to(os.devnull)
    refused(folder, rf"{name} is a device, not a file")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_file_of_a_hundred_megabytes_is_not_read(folder, name):
    os.truncate(folder / name, 10**8) if (folder / name).exists() else (folder / name).write_bytes(b" " * 10**8)
    refused(folder, rf"{name} has 100,000,000 bytes and at most")


def test_a_chat_template_of_megabytes_is_not_read_inside_a_config_either(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edited(folder, "tokenizer_config.json", chat_template=[{"name": "default", "template": "x" * 2 * 10**6}])
    refused(folder, "chat_template of 2,000,0.* characters and at most 1,048,576")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_json_that_is_nested_too_deeply_is_not_followed(folder, name):
    for depth in (100, 100_000):
        (folder / name).write_text('{"a": ' + "[" * depth + "]" * depth + "}")
        refused(folder, rf"{name} is not readable JSON")
    (folder / name).write_text('{"a": ' + "1" * 10_000 + "}")
    refused(folder, rf"{name} is not readable JSON")


def test_a_header_of_many_tensors_is_refused_by_their_number(folder):
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % number for number in range(200_000)) + "}").encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(folder, "model.safetensors holds 200,000 tensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_hidden_layers", HUGE), ("num_labels", HUGE), ("num_hidden_layers", 5_000)],
)
def test_a_config_that_promises_more_than_the_weights_hold_is_not_built(folder, name, value):
    edited(folder, "config.json", **{name: value})
    refused(folder, rf"config.json has {name} \d+.*, and its weights are \d+ tensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 10**18),
        ("head_dim", 10**29),
        ("model_type", {}),
        ("dtype", 1e308),
        ("rope_parameters", {"rope_type": None}),
        ("rope_parameters", {"rope_type": "linear", "factor": 2.0, "rope_theta": "much"}),
        ("rope_parameters", {"full_attention": {"rope_type": ["default"]}}),
        ("quantization_config", "gptq"),
        ("id2label", ["a", "b"]),
    ],
)
def test_a_value_of_another_kind_is_named(folder, name, value):
    edited(folder, "config.json", **{name: value})
    refused(folder, r"config.json has \w+ .*, which makes no sense")


@pytest.mark.parametrize(
    ("name", "value"), [("tokenizer_class", 5), ("model_max_length", "x"), ("chat_template", 5), ("chat_template", ["x"])]
)
def test_a_value_of_another_kind_is_named_in_a_tokenizer_too(folder, name, value):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edited(folder, "tokenizer_config.json", **{name: value})
    refused(folder, rf"tokenizer_config.json has {name} .*, which makes no sense")


def test_what_is_no_token_is_named(folder):
    (folder / "added_tokens.json").write_text('{"<x>": "y"}')
    refused(folder, "added_tokens.json has '<x>' 'y'")
    (folder / "added_tokens.json").unlink()
    for settings in ({"eos_token": 5}, {"eos_token": ["</s>"]}, {"extra_special_tokens": 5}):
        edited(folder, "tokenizer_config.json", **{"eos_token": "</s>"} | settings)
        refused(folder, "tokenizer files are damaged or incomplete .*(eos_token|extra_special_tokens)")


@pytest.mark.parametrize("name", ["num_attention_heads", "num_key_value_heads"])
def test_a_zero_that_transformers_divides_by_is_named(folder, name):
    edited(folder, "config.json", **{name: 0})
    refused(folder, f"config.json has {name} 0")


@pytest.mark.parametrize(("name", "value"), [("n_head", 5), ("n_inner", -3)])
def test_sizes_that_do_not_go_together_are_said(tmp_path, name, value):
    AutoModelForCausalLM.from_config(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4)).save_pretrained(tmp_path)
    edited(tmp_path, "config.json", **{name: value})
    refused(tmp_path, f"config.json holds a value that makes no sense .*{value}")


def test_a_dtype_or_a_label_that_is_none_is_said(folder):
    for settings in ({"dtype": "float99"}, {"dtype": None, "id2label": {"first": "a"}}):
        edited(folder, "config.json", **settings)
        refused(folder, "config.json holds a value that makes no sense .*(float99|first)")


def test_parts_of_a_config_that_lack_what_they_need_are_named(folder):
    edited(folder, "config.json", quantization_config={"bits": 4})
    refused(folder, "quantization_config that names no quant_method")
    edited(folder, "config.json", quantization_config=None, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4})
    refused(folder, "no complete rotary embedding .*'yarn'.*factor")


def test_what_the_family_never_reads_may_have_any_size(folder):
    """People write notes about a training, and tools their own settings, beside what sizes a model."""
    notes = {"tokens_seen": 10**13, "num_documents": HUGE, "seed": 10**12, "n_layer": HUGE, "training": {"num_examples": HUGE}}
    edited(folder, "config.json", **notes)
    assert load_base(folder, "cpu", "float32").model.config.num_documents == HUGE


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {"num_hidden_layers": HUGE}),  # by its other name
        ("deepseek_v4", {"num_hash_layers": HUGE}),  # an older name, that transformers still takes over
        ("gemma3", {"text_config": {"num_hidden_layers": HUGE}}),
        ("llava", {"text_config": {"model_type": "llama", "num_hidden_layers": HUGE}}),
        ("qwen3_next", {"num_experts": HUGE}),
    ],
)
def test_every_name_by_which_a_family_reads_a_size_is_limited(folder, family, settings):
    edited(folder, "config.json", model_type=family, **settings)
    refused(folder, r"config.json has \w+ 1000000000, and its weights are \d+ tensors")


def test_an_index_that_leaves_its_folder_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    for value in ("../x.safetensors", "/x.safetensors", "", 5, ["x.safetensors"]):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": value}}))
        refused(folder, "index.json is damaged")


def test_a_gguf_file_that_is_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "x.gguf")
    refused(tmp_path / "x.gguf", "is a pipe, not a file")


@pytest.mark.parametrize("pad", [-1, 4_000, None])
def test_a_base_pads_with_a_token_that_it_has(folder, pad):
    """Its generation_config.json and its tokenizer may both name one that was never added to the embedding."""
    edited(folder, "generation_config.json", pad_token_id=pad)
    saved = saved_base(folder / "larger")
    saved.tokenizer.add_special_tokens({"pad_token": "<new pad>"} if pad else {"pad_token": "<pad>"})
    saved.tokenizer.add_tokens([f"<{number}>" for number in range(5)])
    saved.tokenizer.save_pretrained(folder)
    base = load_base(folder, "cpu", "float32")
    batch = base.tokenizer(["a", "a longer one"], padding=True, return_tensors="pt")
    assert batch["input_ids"].max() < base.model.get_input_embeddings().num_embeddings
    base.model.generate(**batch, max_new_tokens=3)


def test_a_pad_token_that_no_embedding_can_have_is_named(tmp_path):
    torch.manual_seed(0)
    saved_base(tmp_path)
    edited(tmp_path, "config.json", pad_token_id=5_000)
    refused(tmp_path, "pad_token_id that its vocabulary does not have|padding_idx")


def test_an_ordinary_base_of_many_settings_is_read(tmp_path):
    """What is counted is not a length in tokens, a width or a vocabulary."""
    config = GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    edited(tmp_path, "config.json", n_ctx=HUGE, num_embeddings=HUGE, num_parameters=7 * HUGE, max_window_layers=12)
    assert load_base(tmp_path, "cpu", "float32").model.config.n_embd == 32
    long = tiny_model()
    long.config.max_position_embeddings = HUGE
    long.config.rope_parameters["rope_theta"] = 3_580_165_449  # as bases have whose context was extended to a million tokens
    long.config.max_window_layers = 1_000  # a bound of Qwen2, which small models leave as it is
    long.save_pretrained(tmp_path / "long")
    assert load_base(tmp_path / "long", "cpu", "float32").model.config.num_hidden_layers == GROUPED["num_hidden_layers"]
