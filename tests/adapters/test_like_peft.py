"""Adapters of PEFT with many settings: each gives what PeftModel gives for the same folder, or is refused in one true sentence."""

import pytest
import torch
from safetensors.torch import load_file

from bitune import BituneModel
from tests.adapters.peft_folders import (
    ANSWER,
    EQUAL,
    GREEDY,
    LINEAR,
    PROMPT,
    base_of,
    dora,
    ia3,
    lora,
    peft_answer,
    peft_scores,
    read_peft,
    write_peft,
)
from tests.closeness import assert_apart, assert_close
from tests.unharmed import bare, change_tensors, edit, refused, state_of


@torch.no_grad()
def scores(model: BituneModel) -> torch.Tensor:
    return model(PROMPT, ANSWER).logits


@pytest.mark.parametrize("name", EQUAL)
def test_a_folder_of_peft_gives_what_peft_gives(name, tmp_path):
    family, config = EQUAL[name]
    base = base_of(family)
    folder = write_peft(tmp_path / "peft", base, config())
    theirs = read_peft(folder, base)
    expected = peft_scores(theirs)
    before = bare(base)
    assert_apart(expected, peft_scores(base), "the adapter does nothing")
    model = BituneModel.from_pretrained(folder, base=base)
    assert_close(scores(model), expected)
    assert torch.equal(model.generate(PROMPT, **GREEDY), peft_answer(theirs))
    model.save_pretrained(tmp_path / "ours")
    model.release()
    assert torch.equal(bare(base), before)
    assert_close(peft_scores(read_peft(tmp_path / "ours" / "causal", base)), expected)
    assert_close(scores(BituneModel.from_pretrained(tmp_path / "ours", base=base)), expected)


@pytest.mark.parametrize("save_embedding_layers", [True, False, "auto"])
@pytest.mark.parametrize("name", ["lora", "embeddings", "tied embeddings", "ia3, head"])
def test_layers_of_the_base_in_an_adapters_file_are_the_bases_own(name, save_embedding_layers, tmp_path):
    family, config = EQUAL[name]
    base = base_of(family)
    folder = write_peft(tmp_path / "peft", base, config(), save_embedding_layers=save_embedding_layers)
    beside = [key for key in load_file(folder / "adapter_model.safetensors") if "lora_" not in key and "ia3_" not in key]
    assert bool(beside) == (save_embedding_layers is True or (save_embedding_layers == "auto" and name != "lora"))
    expected = peft_scores(read_peft(folder, base))
    model = BituneModel.from_pretrained(folder, base=base)
    assert_close(scores(model), expected)
    model.save_pretrained(tmp_path / "ours")
    assert not [key for key in load_file(tmp_path / "ours/causal/adapter_model.safetensors") if key in beside]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("of", ["file", "base"])
def test_a_layer_of_the_base_may_be_rounded_to_16_bits(dtype, of, tmp_path):
    """The file was written in 16 bits beside a base of 32, or the other way round."""
    base = base_of("llama")
    folder = write_peft(tmp_path / "peft", base, EQUAL["embeddings"][1]())
    if of == "file":
        change_tensors(folder / "adapter_model.safetensors", lambda tensors: {k: v.to(dtype) for k, v in tensors.items()})
    else:
        base = base.to(dtype)
    expected = peft_scores(read_peft(folder, base)).float()
    found = scores(BituneModel.from_pretrained(folder, base=base)).float()
    # PEFT puts the rounded layers of a file of 16 bits into the base; here the base keeps its own.
    assert_close(found, expected, allowed=(0.02 if dtype is torch.float16 else 0.1) * float(expected.abs().max()))


@pytest.mark.parametrize("kept", ["in 16 bits", "converted to 32"])
@pytest.mark.parametrize(("of_file", "of_base"), [(torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16)])
def test_a_layer_of_the_base_may_be_rounded_to_16_bits_of_either_kind(of_file, of_base, kept, tmp_path):
    key = "base_model.model.lm_head.base_layer.weight"
    base = base_of("llama")
    with torch.no_grad():  # numbers below the smallest normal one of float16, where bfloat16 is finer
        base.lm_head.weight[::3] *= 1e-5
    folder = write_peft(tmp_path / "peft", base.to(of_file), EQUAL["embeddings"][1]())
    base = base_of("llama")
    with torch.no_grad():
        base.lm_head.weight[::3] *= 1e-5
    base = base.to(of_base)
    if kept == "converted to 32":
        base = base.float()
    expected = peft_scores(read_peft(folder, base)).float()
    found = scores(BituneModel.from_pretrained(folder, base=base)).float()
    assert_close(found, expected, allowed=0.1 * float(expected.abs().max()))
    # One step of the coarser of the two is another number.
    change_tensors(folder / "adapter_model.safetensors", lambda tensors: tensors | {key: tensors[key] * (1 + 2**-7)})
    with refused(base, "'lm_head.weight'", "other numbers"):
        BituneModel.from_pretrained(folder, base=base)


def misread(change_config=None, change_keys=None, name="lora"):
    """A change of a PEFT folder's config and of the names in its file."""

    def change(folder):
        if change_config:
            edit(folder / "adapter_config.json", lambda config: config | change_config)
        if change_keys:
            change_tensors(
                folder / "adapter_model.safetensors", lambda tensors: {change_keys(key): value for key, value in tensors.items()}
            )

    return name, change


ONE = "copy the config and the weights of one adapter"
CAUSES = {
    "rank": (misread({"r": 3}), ["another shape than its config asks for", ONE]),
    "rank of embeddings": (misread({"r": 3}, name="embeddings"), ["another shape than its config asks for", ONE]),
    "direction of ia3": (misread({"feedforward_modules": []}, name="ia3"), ["another shape than its config asks for", ONE]),
    "fewer targets": (misread({"target_modules": ["q_proj"]}), ["its config does not ask for", ONE]),
    "more targets": (misread({"target_modules": [*LINEAR, "o_proj"]}), ["lack", ONE]),
    "no dora": (misread({"use_dora": False}, name="dora"), ["its config does not ask for", ONE]),
    "no prefix": (misread(change_keys=lambda key: key.removeprefix("base_model.model.")), ["names that PEFT", "save_pretrained"]),
    "an adapter's name": (
        misread(change_keys=lambda key: key.replace(".weight", ".default.weight")),
        ["names that PEFT", "save_pretrained"],
    ),
}


@pytest.mark.parametrize("case", CAUSES)
def test_what_is_not_the_bases_fault_is_not_laid_on_it(case, tmp_path):
    (name, change), words = CAUSES[case]
    base = base_of("llama")
    folder = write_peft(tmp_path / "peft", base, EQUAL[name][1]())
    change(folder)
    with refused(base, *words) as caught:
        BituneModel.from_pretrained(folder, base=base)
    assert case == "more targets" or "trained on" not in str(caught.value)


def reread(name: str, tmp_path, change, base=None):
    """A folder of PEFT with changed tensors, on a base."""
    family, config = EQUAL[name]
    folder = write_peft(tmp_path / "peft", base_of(family), config())
    change_tensors(folder / "adapter_model.safetensors", change)
    return BituneModel.from_pretrained(folder, base=base or base_of(family))


def test_another_layer_of_the_base_in_the_file_is_refused(tmp_path):
    key = "base_model.model.lm_head.base_layer.weight"
    base = base_of("llama")
    with refused(base, "'lm_head.weight'", "other numbers", "all adapters share"):
        reread("embeddings", tmp_path, lambda tensors: tensors | {key: tensors[key] * 1.01}, base)


@pytest.mark.parametrize("save_embedding_layers", [True, False])
@pytest.mark.parametrize("targets", [["embed_tokens", "q_proj"], ["lm_head"], ["embed_tokens", "lm_head"], ["q_proj"]])
@pytest.mark.parametrize(("family", "kind"), [("llama", lora), ("gemma", dora)])
def test_a_vocabulary_of_another_size_is_named(family, kind, targets, save_embedding_layers, tmp_path):
    """PEFT saves whole embeddings where the vocabulary was resized, adapted or not."""
    resized = base_of(family)
    resized.resize_token_embeddings(264)
    folder = write_peft(tmp_path / "peft", resized, kind(target_modules=targets), save_embedding_layers=save_embedding_layers)
    expected = peft_scores(read_peft(folder, resized))
    assert_close(scores(BituneModel.from_pretrained(folder, base=resized)), expected)
    base = base_of(family)
    if targets == ["q_proj"] and not save_embedding_layers:
        expected = peft_scores(read_peft(folder, base))
        assert_close(scores(BituneModel.from_pretrained(folder, base=base)), expected)
        return
    with refused(base, "vocabulary of 264 tokens", "this base has 260", "resized"):
        BituneModel.from_pretrained(folder, base=base)


def test_tensors_of_other_adapters_in_the_file_are_left_out(tmp_path):
    """PEFT before 0.19 wrote IA3's vectors of all adapters, and of LoRA those whose name holds the saved one's."""
    for name, others in [
        ("ia3", {".ia3_l": [".ia3_l.prefill", ".ia3_l_2"]}),
        ("lora", {".lora_A.weight": [".lora_A_2.weight", ".lora_A.my_default.weight"]}),
        ("dora", {".lora_magnitude_vector": [".lora_magnitude_vector_2"]}),
        ("embeddings", {".lora_embedding_A": [".lora_embedding_A.my_default"]}),
    ]:
        family, config = EQUAL[name]
        folder = write_peft(tmp_path / name, base_of(family), config())
        expected = peft_scores(read_peft(folder, base_of(family)))
        ((own, added),) = others.items()
        change_tensors(
            folder / "adapter_model.safetensors",
            lambda tensors, own=own, added=added: (
                tensors | {k.replace(own, new): v + 1 for k, v in tensors.items() if k.endswith(own) for new in added}
            ),
        )
        assert_close(scores(BituneModel.from_pretrained(folder, base=base_of(family))), expected)


@pytest.mark.parametrize(
    "key", ["x.ia3_l.prefill", "model.layers.0.self_attn.q_proj.lora_A.bias", "model.lm_head.weight", "lm_head"]
)
def test_what_belongs_to_nobody_is_refused(key, tmp_path):
    base = base_of("llama")
    with refused(base, "no place for", key):
        reread("lora", tmp_path, lambda tensors: tensors | {f"base_model.model.{key}": torch.ones(3)}, base)


REFUSED = {
    "biases": (lambda: lora(target_modules=LINEAR, bias="lora_only"), "bias"),
    "all biases": (lambda: lora(target_modules=LINEAR, bias="all"), "bias"),
    "whole modules": (lambda: lora(target_modules=LINEAR, modules_to_save=["lm_head"]), "modules_to_save"),
    "whole modules of ia3": (
        lambda: ia3(target_modules=["q_proj"], feedforward_modules=[], modules_to_save=["lm_head"]),
        "modules_to_save",
    ),
    "tokens": (lambda: lora(target_modules=LINEAR, trainable_token_indices=[1, 2]), "trainable_token_indices"),
    "parameters": (lambda: lora(target_modules=[], target_parameters=["q_proj.weight"]), "target_parameters"),
    "pissa": (lambda: lora(target_modules=LINEAR, init_lora_weights="pissa"), "init_lora_weights"),
    "olora": (lambda: lora(target_modules=LINEAR, init_lora_weights="olora"), "init_lora_weights"),
    "activated": (lambda: lora(target_modules=LINEAR, alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    "repeated layers": (lambda: lora(target_modules=LINEAR, layer_replication=[[0, 4], [2, 4]]), "layer_replication"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_changes_the_base_is_refused_by_name(name, tmp_path):
    config, setting = REFUSED[name]
    folder = write_peft(tmp_path / "peft", base_of("phi"), config())
    base = base_of("phi")
    with refused(base, "adapter_config.json", setting):
        BituneModel.from_pretrained(folder, base=base)
    with refused(base, setting):
        BituneModel.create(base, peft_config=config())


NO_SENSE = {
    "no such module": (lambda: lora(target_modules=["nothing"]), "nothing"),
    "all excluded": (lambda: lora(target_modules=["q_proj"], exclude_modules=["q_proj"]), "No modules were targeted"),
    "no such layer": (lambda: lora(target_modules=["q_proj"], layers_to_transform=[99]), "[99]"),
    "a norm": (lambda: lora(target_modules=["norm"]), "LlamaRMSNorm"),
    "an embedding by ia3": (lambda: ia3(target_modules=["embed_tokens"], feedforward_modules=[]), "Embedding"),
    "no targets": (lambda: lora(target_modules=[]), "target_modules"),
    "rank 0": (lambda: lora(target_modules=LINEAR, r=0), "`r`"),
    "dropout 2": (lambda: lora(target_modules=LINEAR, lora_dropout=2), "between 0 and 1"),
    "unknown beginning": (lambda: lora(target_modules=LINEAR, init_lora_weights="hope"), "hope"),
    "no expression": (lambda: lora(target_modules="(q_proj"), "regular expression"),
    "no expression in a pattern": (lambda: lora(target_modules=LINEAR, rank_pattern={"(": 2}), "regular expression"),
    "biases of an embedding": (lambda: lora(target_modules=["embed_tokens"], lora_bias=True), "lora_bias"),
}


@pytest.mark.parametrize("name", NO_SENSE)
def test_what_peft_cannot_put_on_a_base_is_a_sentence(name):
    base = base_of("llama")
    config, words = NO_SENSE[name]
    with refused(base, words):
        BituneModel.create(base, peft_config=config())


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), TypeError("x"), AttributeError("x"), ValueError("x")]
)
def test_what_is_not_known_keeps_its_name_and_leaves_the_base(error, monkeypatch):
    base = base_of("llama")
    before, logits = state_of(base), bare(base)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.reset_lora_parameters", fail)
    with pytest.raises(type(error)) as caught:
        BituneModel.create(base, peft_config=lora(target_modules=LINEAR))
    assert caught.value is error
    assert state_of(base) == before
    assert torch.equal(bare(base), logits)
