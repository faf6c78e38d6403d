"""Whatever is wrong with a checkpoint folder is said in one sentence, and the base is as it was before."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bitune import BituneModel, ConfigError, MixingSettings, UnknownNameError, WrongBaseError
from tests.tiny import FAMILIES, bitune_on, tiny_base, tiny_model
from tests.unharmed import change_tensors, edit, refused, scores

# PEFT's own way in asks transformers for a property under its old name.
peft_itself = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A random Bitune LoRA checkpoint of the tiny Llama; copy it before you damage it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    bitune_on(tiny_base()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bare_base():
    """A base for loads that fail: it is the same after each of them."""
    return tiny_base()


@pytest.fixture(scope="module", params=["bare", "occupied"])
def any_base(request):
    """The same, alone and with a model already on it."""
    base = tiny_base()
    if request.param == "occupied":
        bitune_on(base)
    return base


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoint")


# --- the wrong base ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gemma", "mistral", "qwen3"])
def test_another_family_is_refused(saved, family):
    base = tiny_base(family)
    with refused(base.model, "tiny-llama", f"tiny-{family}", error=WrongBaseError):
        BituneModel.from_pretrained(saved, base=base)


def test_other_weights_of_the_same_shape_are_refused_unless_meant(saved):
    base = tiny_base(seed=5)
    with refused(base.model, "other weights", "allow_other_base", error=WrongBaseError):
        BituneModel.from_pretrained(saved, base=base)
    model = BituneModel.from_pretrained(saved, base=base, allow_other_base=True)
    assert torch.isfinite(scores(model)).all()


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"num_hidden_layers": 5}])
def test_another_shape_is_refused_even_where_another_base_is_meant(saved, change):
    config = type(FAMILIES["llama"])(**(FAMILIES["llama"].to_dict() | change))
    other = AutoModelForCausalLM.from_config(config).eval()
    with refused(other, error=WrongBaseError):
        BituneModel.from_pretrained(saved, base=other)
    with refused(other, "base"):
        BituneModel.from_pretrained(saved, base=other, allow_other_base=True)


@pytest.mark.parametrize("name", ["bitune_config.json", "causal/adapter_model.safetensors", "mixing.safetensors"])
def test_a_pointer_of_git_lfs_is_named(name, bare_base, folder):
    """What `git clone` leaves in place of a file where Git LFS is not installed."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"
    (folder / name).write_text(pointer)
    with refused(bare_base.model, name, "Git LFS", "git lfs pull"):
        BituneModel.from_pretrained(folder, base=bare_base)


# --- damaged folders --------------------------------------------------------------------------------------------------


def setting(*path, to):
    """A change of bitune_config.json: set the value at `path`."""

    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return change


WRONG_CONFIGS = {
    "version 2": (setting("format_version", to=2), "format_version 2"),
    "version as text": (setting("format_version", to="1"), "format_version '1'"),
    "version true": (setting("format_version", to=True), "format_version True"),
    "no version": (lambda d: {k: v for k, v in d.items() if k != "format_version"}, "format_version None"),
    "unknown key": (setting("extra", to=1), "unknown key 'extra'"),
    "unknown key in base": (setting("base", "extra", to=1), "unknown key 'extra'"),
    "unknown key in mixing": (setting("mixing", "extra", to=1), "unknown key 'extra'"),
    "unknown key in a pass": (setting("passes", 1, "extra", to=1), "unknown key 'extra'"),
    "a list": (lambda d: [d], "list"),
    "base is text": (setting("base", to="tiny-llama"), "base"),
    "base without id": (setting("base", to={}), "id"),
    "id is a number": (setting("base", "id", to=5), "id 5"),
    "layers is text": (setting("base", "layers", to="4"), "layers '4'"),
    "fingerprint is text": (setting("base", "fingerprint", to=["x"]), "x"),
    "fingerprint is a number": (setting("base", "fingerprint", to=1.0), "float"),
    "no passes": (setting("passes", to=[]), "got 0"),
    "three passes": (lambda d: d["passes"].append(d["passes"][0]), "got 3"),
    "two passes without mixing": (setting("mixing", to=None), "got 2"),
    "passes are text": (setting("passes", to="both"), "passes"),
    "a pass without attention": (lambda d: d["passes"][0].pop("attention"), "attention"),
    "unknown attention": (setting("passes", 0, "attention", to="sideways"), "'sideways'"),
    "unknown slot": (setting("passes", 0, "adapter", to="third"), "'third'"),
    "slot is a list": (setting("passes", 0, "adapter", to=[]), "adapter []"),
    "unknown answer adapter": (setting("answer_adapter", to="third"), "'third'"),
    "no adapter at all": (
        lambda d: (
            d | {"passes": [{"adapter": None, "attention": "causal"}], "mixing": None, "answer_adapter": None, "adapters": {}}
        ),
        "adapters",
    ),
    "one folder less": (lambda d: d["adapters"].pop("bidirectional"), "adapters"),
    "adapters are a list": (setting("adapters", to=["causal", "bidirectional"]), "adapters"),
    "both in one folder": (setting("adapters", "bidirectional", to="causal"), "'causal'"),
    "mixing is text": (setting("mixing", to="abs"), "mixing"),
    "unknown parameterization": (setting("mixing", "parameterization", to="sigmoid"), "'sigmoid'"),
    "theta_init 0": (setting("mixing", "theta_init", to=0), "theta_init is 0"),
    "theta_init below 0": (setting("mixing", "theta_init", to=-0.01), "theta_init is -0.01"),
    "theta_init NaN": (setting("mixing", "theta_init", to=float("nan")), "theta_init is nan"),
    "theta_init text": (setting("mixing", "theta_init", to="0.01"), "theta_init is '0.01'"),
    "template without place": (setting("prompt_template", to="Q: A:"), "{prompt}"),
    "template with two places": (setting("prompt_template", to="{prompt}{prompt}"), "{prompt}"),
    "template is a number": (setting("prompt_template", to=3), "Template 3"),
    "training is text": (setting("training", to="much"), "training"),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_a_wrong_config_is_refused(case, folder, bare_base):
    change, words = WRONG_CONFIGS[case]
    edit(folder / "bitune_config.json", change)
    with refused(bare_base.model, "bitune_config.json", words):
        BituneModel.from_pretrained(folder, base=bare_base)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../causal", "/causal", "causal/", "a/../causal", "..\\causal", ".hidden", "a\0b", "C:x", 5, None, ["a"]],
)
def test_an_adapter_folder_lies_inside_the_checkpoint(name, folder, bare_base):
    shutil.copytree(folder / "causal", folder.parent / "causal")
    edit(folder / "bitune_config.json", setting("adapters", "causal", to=name))
    with refused(bare_base.model, "bitune_config.json", "must be the name of a folder inside"):
        BituneModel.from_pretrained(folder, base=bare_base)


FILES = [
    "bitune_config.json",
    "causal/adapter_config.json",
    "causal/adapter_model.safetensors",
    "bidirectional/adapter_config.json",
    "bidirectional/adapter_model.safetensors",
    "mixing.safetensors",
]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name, folder, bare_base):
    (folder / name).unlink()
    with refused(bare_base.model, str(folder / name), "missing", "again"):
        BituneModel.from_pretrained(folder, base=bare_base)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0, 1, 7, 0.5, 0.99])
def test_a_cut_file_is_named(name, part, folder, bare_base):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: part if isinstance(part, int) else int(part * len(data))])
    with refused(bare_base.model, str(folder / name), "again"):
        BituneModel.from_pretrained(folder, base=bare_base)


@pytest.mark.parametrize("garbage", [b"null", b"[]", b'"text"', b"3", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}", b"\x00" * 50])
@pytest.mark.parametrize("name", ["bitune_config.json", "bidirectional/adapter_config.json"])
def test_garbage_in_place_of_json_is_named(name, garbage, folder, bare_base):
    (folder / name).write_bytes(garbage)
    with refused(bare_base.model, str(folder / name)):
        BituneModel.from_pretrained(folder, base=bare_base)


@pytest.mark.parametrize("name", ["README.md", "training_log.jsonl"])
def test_text_that_is_no_text_is_named(name, folder, bare_base):
    (folder / name).write_bytes(b"\xff\xfe\x00")
    with refused(bare_base.model, str(folder / name)):
        BituneModel.from_pretrained(folder, base=bare_base)


def test_only_pickled_weights_are_not_read(folder, bare_base):
    weights = folder / "causal" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with refused(bare_base.model, str(weights), "pickled", "safetensors"):
        BituneModel.from_pretrained(folder, base=bare_base)


def test_an_empty_folder_and_a_file_are_no_checkpoints(tmp_path):
    model = tiny_model()
    (tmp_path / "file").write_text("x")
    with refused(model, "bitune_config.json", "missing"):
        BituneModel.from_pretrained(tmp_path, base=model)
    for source in (tmp_path / "file", tmp_path / "nothing", "no/such/folder/here", "nothing"):
        with refused(model, str(source), "folder"):
            BituneModel.from_pretrained(source, base=model)


WRONG_THETAS = {
    "no theta_v": lambda t: {"theta_k": t["theta_k"]},
    "another beside": lambda t: t | {"theta_q": t["theta_k"].clone()},
    "NaN": lambda t: t | {"theta_v": torch.tensor([0.1, float("nan"), 0.1, 0.1])},
    "infinite": lambda t: t | {"theta_k": torch.tensor([0.1, float("inf"), 0.1, 0.1])},
    "one layer more": lambda t: {key: torch.ones(5) for key in t},
    "one layer": lambda t: {key: torch.ones(1) for key in t},
    "no layer": lambda t: {key: torch.ones(0) for key in t},
    "unlike": lambda t: t | {"theta_k": torch.ones(3)},
    "16 bits": lambda t: {key: value.bfloat16() for key, value in t.items()},
    "a matrix": lambda t: {key: value[None].clone() for key, value in t.items()},
}


@pytest.mark.parametrize("case", WRONG_THETAS)
def test_wrong_coefficients_are_refused(case, folder, bare_base):
    change_tensors(folder / "mixing.safetensors", WRONG_THETAS[case])
    with refused(bare_base.model, "coefficients" if "layer" in case else str(folder / "mixing.safetensors")):
        BituneModel.from_pretrained(folder, base=bare_base)


LAST = "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"
WRONG_WEIGHTS = {
    "one missing": (lambda t: {key: value for key, value in t.items() if key != LAST}, LAST),
    "all missing": (lambda t: {"x": torch.ones(1)}, "lack"),
    "one more": (lambda t: t | {"base_model.model.lm_head.lora_A.weight": torch.ones(2)}, "lm_head"),
    "one layer more": (lambda t: t | {LAST.replace(".3.", ".4."): t[LAST].clone()}, "layers.4."),
    "another shape": (lambda t: t | {LAST: t[LAST][:-1].clone()}, "(47, 4) for (48, 4)"),
    "transposed": (lambda t: t | {LAST: t[LAST].T.contiguous()}, "(4, 48) for (48, 4)"),
    "NaN": (lambda t: t | {LAST: torch.full_like(t[LAST], float("nan"))}, "not finite"),
    "integers": (lambda t: t | {LAST: t[LAST].int()}, "I32"),
}


@pytest.mark.parametrize("dtype", ["\n", "f32", "", "F32 ", "F" * 5_000, "\u2028"])
@pytest.mark.parametrize("name", ["mixing.safetensors", "causal/adapter_model.safetensors"])
def test_a_dtype_that_does_not_exist_is_refused_on_one_line(name, dtype, bare_base, folder):
    file = folder / name
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    next(entry for key, entry in header.items() if key != "__metadata__")["dtype"] = dtype
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with refused(bare_base.model, "which safetensors does not have") as raised:
        BituneModel.from_pretrained(folder, bare_base)
    assert len(str(raised.value).splitlines()) == 1 and len(str(raised.value)) < 1_000


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
@pytest.mark.parametrize("slot", ["causal", "bidirectional"])
def test_weights_that_do_not_fit_are_refused(case, slot, any_base, folder):
    change, words = WRONG_WEIGHTS[case]
    change_tensors(folder / slot / "adapter_model.safetensors", change)
    base = any_base
    with refused(base.model, slot, words):
        BituneModel.from_pretrained(folder, base=base)


WRONG_ADAPTERS = {
    "rank": ({"r": 8}, "shape"),
    "rank 0": ({"r": 0}, "r"),
    "rank as text": ({"r": "4"}, ""),
    "other targets": ({"target_modules": ["q_proj"]}, "does not ask for, 48 of 56 tensors"),
    "targets that are not there": ({"target_modules": ["c_attn"]}, "c_attn"),
    "a target that cannot be": ({"target_modules": ["q_proj", "input_layernorm"]}, "RMSNorm"),
    "no targets": ({"target_modules": None}, ""),
    "a regular expression that is none": ({"target_modules": "("}, ""),
    "dora": ({"use_dora": True}, "lora_magnitude_vector"),
    "unknown setting": ({"use_wonders": True}, "'use_wonders'"),
    "unknown type": ({"peft_type": "WONDER"}, "'WONDER'"),
    "type is a list": ({"peft_type": ["LORA"]}, "LORA"),
    "no type": ({"peft_type": None}, "None"),
    "another type": ({"peft_type": "IA3"}, "adapter_config.json"),
    "unknown task": ({"task_type": "WONDER"}, "WONDER"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    "biases": ({"bias": "all"}, "bias"),
    "repeated layers": ({"layer_replication": [[0, 4], [2, 4]]}, "layer_replication"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    "olora": ({"init_lora_weights": "olora"}, "init_lora_weights"),
    "activated": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "parameters": ({"target_parameters": ["lm_head.weight"]}, "target_parameters"),
    "megatron": ({"megatron_config": {"a": 1}}, "megatron_config"),
}


@pytest.mark.parametrize("case", WRONG_ADAPTERS)
def test_an_adapter_config_that_does_not_fit_is_refused(case, any_base, folder):
    change, words = WRONG_ADAPTERS[case]
    edit(folder / "bidirectional" / "adapter_config.json", lambda data: data | change)
    base = any_base
    with refused(base.model, "bidirectional", words):
        BituneModel.from_pretrained(folder, base=base)


@peft_itself
@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ],
)
def test_kinds_that_are_no_layers_are_refused(config, any_base, tmp_path):
    get_peft_model(tiny_model(), config).save_pretrained(tmp_path / "plain")
    base = any_base
    with refused(base.model, "adapter_config.json", config.peft_type.value, "LORA"):
        BituneModel.from_pretrained(tmp_path / "plain", base=base)
    with refused(base.model, config.peft_type.value, "LORA"):
        BituneModel.create(base, peft_config=config)


@pytest.mark.parametrize(("there", "wanted"), [("lora", "ia3"), ("ia3", "lora"), ("ia3", "dora")])
def test_kinds_that_cannot_share_a_base_are_refused(there, wanted, tmp_path):
    bitune_on(tiny_base(), kind=wanted).save_pretrained(tmp_path / "checkpoint")
    base = tiny_base()
    bitune_on(base, kind=there)
    with refused(base.model, "IA3", "LORA", "second time"):
        BituneModel.from_pretrained(tmp_path / "checkpoint", base=base)


def test_settings_that_make_no_sense_are_refused_before_anything_is_loaded(bare_base):
    base = bare_base
    with refused(base.model, "'sigmoid'", error=UnknownNameError):
        BituneModel.create(base, mixing=MixingSettings("sigmoid"))
    with refused(base.model, "theta_init", error=ConfigError):
        BituneModel.create(base, mixing=MixingSettings(theta_init=0.0))
    with refused(base.model, "{prompt}", error=ConfigError):
        BituneModel.create(base, prompt_template="no place")
    with refused(base.model, "'bitun'", "'bitune'", error=UnknownNameError):
        BituneModel.create(base, "bitun")
    for config in (LoraConfig(target_modules=["nothing"]), IA3Config(target_modules=["nothing"], feedforward_modules=[])):
        with refused(base.model, "nothing"):
            BituneModel.create(base, peft_config=config)
