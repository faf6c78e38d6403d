"""Loading base models: devices, dtypes, folders, GGUF, and what is damaged."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitune.base import default as embedded
from bitune.base import dequantized as dequantized_module
from bitune.base import loading as base_module
from bitune.base.devices import choose_device, choose_dtype
from bitune.base.loading import load_base
from bitune.errors import BaseNotFoundError, BituneError, ConfigError, UnknownNameError, UnsupportedModelError
from tests.closeness import assert_close
from tests.gguf_writer import write_gguf

VOCABULARY = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "ab"]
IDS = torch.tensor([[0, 5, 9, 3, 12, 7]])


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64, "head_dim": 8}
    config = LlamaConfig(vocab_size=len(VOCABULARY), num_attention_heads=4, num_key_value_heads=2, **sizes)
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def saved(llama, tmp_path_factory):
    """A folder as `save_pretrained` writes it, with a tokenizer that has no padding token."""
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    llama.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


def test_a_folder_loads_frozen_and_exact(saved, llama):
    base = load_base(saved, device="cpu")
    assert torch.equal(logits(base.model), logits(llama))
    assert not base.model.training and not any(p.requires_grad for p in base.model.parameters())
    assert base.model.dtype == torch.float32 and base.model.config._attn_implementation == "sdpa"
    assert (base.id, base.revision) == ("tiny-llama", None)
    assert base.sha256 == embedded.sha256_of(saved / "model.safetensors")


def test_the_tokenizer_pads_on_the_left_with_eos(saved):
    tokenizer = load_base(saved, device="cpu").tokenizer
    assert tokenizer(["abc", "a"], padding=True)["input_ids"] == [[2, 3, 4], [1, 1, 2]]


def test_a_folder_without_tokenizer_has_none(copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    assert load_base(copied, device="cpu").tokenizer is None


def test_sharded_weights_load(llama, tmp_path):
    llama.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    base = load_base(tmp_path, device="cpu")
    assert torch.equal(logits(base.model), logits(llama)) and base.sha256 is None


def test_gguf_becomes_plain_linears_with_the_same_numbers(llama, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", llama, VOCABULARY)
    base = load_base(tmp_path / "tiny.gguf", device="cpu")
    assert {type(module) for name, module in base.model.named_modules() if name.endswith("_proj")} == {nn.Linear}
    assert_close(logits(base.model), logits(llama))
    assert (base.id, base.sha256) == ("tiny.gguf", embedded.sha256_of(tmp_path / "tiny.gguf"))
    assert base.tokenizer("cab")["input_ids"] == [4, 28] and base.tokenizer.padding_side == "left"


def test_bfloat16_and_device_map(saved):
    base = load_base(saved, dtype="bfloat16", device_map="auto")
    assert base.model.dtype == torch.bfloat16
    assert logits(base.model, IDS.to(base.model.device)).isfinite().all()
    with pytest.raises(ConfigError, match="one of the two"):
        load_base(saved, device="cpu", device_map="auto")


def test_a_config_cannot_choose_its_attention(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"attn_implementation": "flex_attention"}))
    assert load_base(copied, device="cpu").model.config._attn_implementation == "sdpa"


def test_devices_and_dtypes_are_checked():
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("auto", torch.device("mps")) == torch.float16
    assert choose_dtype("bf16", cpu) == choose_dtype(torch.bfloat16, cpu) == torch.bfloat16
    with pytest.raises(UnknownNameError, match="bflaot16.*Did you mean 'bfloat16'"):
        choose_dtype("bflaot16", cpu)
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
    assert choose_device("cpu") == cpu
    for wrong in ("gpu", "cuda:99", "meta", "xpu", ""):
        with pytest.raises(ConfigError, match="device"):
            choose_device(wrong)


def test_int8_is_a_model_in_float32_with_rounded_linear_layers(saved, llama):
    base = load_base(saved, device="cpu", dtype="int8")
    assert base.dtype == "int8" and load_base(saved, device="cpu", dtype="float32").dtype == "float32"
    for (name, found), original in zip(base.model.named_parameters(), llama.parameters(), strict=True):
        is_linear = name.endswith("_proj.weight") or name == "lm_head.weight"
        assert found.dtype == torch.float32 and not found.requires_grad
        assert torch.equal(found, original) != is_linear, name
        step = original.detach().abs().amax(-1, keepdim=True) / 127
        assert ((found - original).abs() <= step).all()


def test_int8_is_refused_where_it_does_not_run(saved, tmp_path):
    with pytest.raises(
        ConfigError, match="'int8' runs on a CPU and the base goes to cuda; use bfloat16 there, or the device cpu"
    ):
        choose_dtype("int8", torch.device("cuda"))
    with pytest.raises(ConfigError, match="dtype is int8 and device_map is 'auto'; give one of the two"):
        load_base(saved, dtype="int8", device_map="auto")
    GPT2LMHeadModel(GPT2Config(vocab_size=29, n_positions=64, n_embd=32, n_layer=1, n_head=4)).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="'gpt2' model without torch's linear layers"):
        load_base(tmp_path, device="cpu", dtype="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_says_what_there_is(saved):
    with pytest.raises(ConfigError, match="'cuda' was asked for, but torch .* finds only cpu"):
        load_base(saved, device="cuda")


def damage_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def damage_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")


def damage_config(folder):
    (folder / "config.json").write_text('{"model_type":')


def change_config(**values):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


@pytest.mark.parametrize(
    ("damage", "error", "part"),
    [
        (damage_weights, BaseNotFoundError, "could not be loaded.*copy or download it again"),
        (damage_tokenizer, BaseNotFoundError, "could not be loaded"),
        (damage_config, BaseNotFoundError, "could not be loaded"),
        (change_config(num_hidden_layers=3), BaseNotFoundError, "lack 9 tensors"),
        (change_config(hidden_size=64), BaseNotFoundError, "could not be loaded"),
        (change_config(model_type="nosuch"), UnsupportedModelError, "does not know"),
        (change_config(model_type="nosuch", auto_map={"AutoConfig": "x.Y"}), UnsupportedModelError, "is never run"),
        (change_config(model_type="t5"), UnsupportedModelError, "'t5'.*decoder-only"),
    ],
)
def test_damaged_or_foreign_folders_say_so_in_one_sentence(copied, damage, error, part):
    damage(copied)
    with pytest.raises(error, match=part) as caught:
        load_base(copied, device="cpu")
    assert "\n" not in str(caught.value), str(caught.value)


def test_a_truncated_gguf_says_so(llama, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama, VOCABULARY)
    data = path.read_bytes()
    for size in (len(data) - 400, len(data) // 10, 6):
        path.write_bytes(data[:size])
        with pytest.raises(BaseNotFoundError, match="copy or download it again"):
            load_base(path, device="cpu")


def test_a_gguf_of_a_foreign_architecture_says_so(llama, tmp_path):
    write_gguf(tmp_path / "x.gguf", llama, VOCABULARY)
    data = (tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(data.replace(b"llama", b"llamX"))
    with pytest.raises(BituneError):
        load_base(tmp_path / "x.gguf", device="cpu")


def test_loading_leaves_transformers_logging_as_it_was(saved, copied):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_base(saved, device="cpu")
    damage_weights(copied)
    with pytest.raises(BaseNotFoundError):
        load_base(copied, device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_models_without_rotary_embeddings_load_too(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30, n_positions=32)).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_base(tmp_path, device="cpu").model), logits(model))


@pytest.fixture
def unpacking(llama, tmp_path, monkeypatch):
    """A small GGUF file in the embedded one's place, and a cache of its own."""
    write_gguf(tmp_path / "tiny.gguf", llama, VOCABULARY)
    stand_in = dataclasses.replace(embedded.EMBEDDED, sha256=embedded.sha256_of(tmp_path / "tiny.gguf"))
    for module in (base_module, dequantized_module):
        monkeypatch.setattr(module, "EMBEDDED", stand_in)
    monkeypatch.setenv("BITUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "tiny.gguf"


def test_the_embedded_base_is_unpacked_once_and_gives_the_same(unpacking, monkeypatch, tmp_path):
    monkeypatch.setenv("BITUNE_CACHE", str(unpacking / "not a folder"))
    direct = load_base(unpacking, device="cpu")  # nothing can be kept, so this reads the GGUF file itself
    monkeypatch.setenv("BITUNE_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        again = load_base(unpacking, device="cpu")
        assert "safetensors" in str(list(Path(again.model.name_or_path).iterdir()))
        assert torch.equal(logits(again.model), logits(direct.model))
        assert again.tokenizer("cab").input_ids == direct.tokenizer("cab").input_ids
        assert again.tokenizer.padding_side == "left" and (again.id, again.sha256) == (direct.id, direct.sha256)
        kept = sorted((tmp_path / "cache").iterdir())
        assert len(kept) == 2, kept  # the folder and its lock
    assert load_base(unpacking, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_damaged_unpacked_base_is_unpacked_again(unpacking, llama, tmp_path):
    folder = Path(load_base(unpacking, device="cpu").model.name_or_path)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2] ^= 0x40
    (folder / "model.safetensors").write_bytes(data)
    assert_close(logits(load_base(unpacking, device="cpu").model), logits(llama))
    (folder / "tokenizer.json").unlink()
    assert load_base(unpacking, device="cpu").tokenizer is not None


def test_the_embedded_default_answers():
    base = load_base(device="cpu")
    ids = base.tokenizer("The capital of France is", return_tensors="pt")
    answer = base.model.generate(**ids, max_new_tokens=2, do_sample=False)
    assert base.tokenizer.decode(answer[0]) == "The capital of France is Paris."
    assert base.sha256 == embedded.EMBEDDED.sha256 and base.tokenizer.chat_template
