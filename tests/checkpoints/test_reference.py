"""The authors' folders: every kind of adapter and setting, against the same numbers computed with stock models alone."""

import json
import shutil

import pytest
import torch

from bitune import METHODS, BituneModel, CheckpointError
from tests.authors import expected_logits, write_reference
from tests.closeness import assert_apart, assert_close
from tests.tiny import bitune_on, ids, tiny_model
from tests.unharmed import change_tensors, refused

SETTINGS = {
    (607, 0): "bitune",
    (607, 1): "only_causal",
    (607, 2): "shared_weights",
    (801, 0): "bitune",
    (801, 1): "only_causal",
    (801, 2): "shared_weights",
    (1, 0): "no_mixing",
    (1, 1): "no_mixing",
    (1, 2): "naive_bidirectional",
}


def scores(model, prompt, answer) -> torch.Tensor:
    with torch.no_grad():
        return model(prompt, answer).logits


@pytest.fixture(scope="module")
def eager():
    """The bases that the recipe runs on; write no adapter on them."""
    return {family: tiny_model(family, attention="eager") for family in ("llama", "gemma", "phi")}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pass_type", [607, 801])
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("family", ["llama", "gemma", "phi"])
def test_families_and_kinds_give_the_recipes_numbers(family, kind, pass_type, attention, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager[family], kind, pass_type)
    model = BituneModel.from_reference(folder, base=tiny_model(family, attention))
    for prompt, answer in zip(ids(2, 5, 13), ids(3, 1, 4), strict=True):
        assert_close(scores(model, prompt, answer), expected_logits(folder, eager[family], prompt, answer))
    model.save_pretrained(tmp_path / "converted")
    again = BituneModel.from_pretrained(tmp_path / "converted", base=tiny_model(family, attention))
    assert torch.equal(scores(again, prompt, answer), scores(model, prompt, answer))


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
@pytest.mark.parametrize(("pass_type", "ablation"), SETTINGS)
def test_settings_give_the_recipes_numbers(pass_type, ablation, kind, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager["llama"], kind, pass_type, ablation)
    model = BituneModel.from_reference(folder, base=tiny_model())
    assert model.bitune_config.method == METHODS[SETTINGS[pass_type, ablation]]
    prompt, answer = ids(11, 4)
    assert_close(scores(model, prompt, answer), expected_logits(folder, eager["llama"], prompt, answer))


def test_the_recipe_tells_settings_apart(eager, tmp_path):
    """Otherwise the tests above could pass by chance."""
    prompt, answer = ids(11, 4)
    found = [
        expected_logits(write_reference(tmp_path / f"{p}-{a}", eager["llama"], "ia3", p, a), eager["llama"], prompt, answer)
        for p, a in SETTINGS
        if (p, a) != (1, 1)
    ]
    for index, one in enumerate(found):
        for other in found[:index]:
            assert_apart(one, other)


@pytest.mark.parametrize("family", ["llama", "gemma", "phi"])
def test_prompts_of_one_token_are_read_by_the_answering_adapter(family, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager[family])
    model = BituneModel.from_reference(folder, base=tiny_model(family))
    prompt, answer = ids(1, 4)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"pass_type": 1, "ablation": 2}))
    alone = BituneModel.from_reference(folder, base=tiny_model(family))
    assert torch.equal(scores(model, prompt, answer), scores(alone, prompt, answer))


def change_settings(folder, **changes) -> None:
    settings = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not ...}))


def without(part: str):
    return lambda tensors: {key: value for key, value in tensors.items() if part not in key}


def change_unused(folder, change) -> None:
    """Change all tensors of a folder that take no part: diagnostics, IA3 of the other adapter, coefficients beside `prefill`."""
    for place, parts in ((folder, ("._", ".ia3_l.prefill")), (folder / "prefill", ("pass_scale_", ".ia3_l.default"))):
        change_tensors(
            place / "adapter_model.safetensors",
            lambda t, parts=parts: {k: change(v) if any(part in k for part in parts) else v for k, v in t.items()},
        )


HARMLESS = {
    "no prefill where it is not used": lambda f: (change_settings(f, ablation=2), shutil.rmtree(f / "prefill")),
    "no ablation in the settings": lambda f: change_settings(f, ablation=...),
    "no diagnostics": lambda f: [change_tensors(p / "adapter_model.safetensors", without("._")) for p in (f, f / "prefill")],
    "no coefficients beside prefill": lambda f: change_tensors(
        f / "prefill" / "adapter_model.safetensors", without("pass_scale")
    ),
    "other coefficients beside prefill": lambda f: change_tensors(
        f / "prefill" / "adapter_model.safetensors", lambda t: {k: v * 7 if "pass_scale" in k else v for k, v in t.items()}
    ),
    "diagnostics that are not finite": lambda f: change_unused(f, lambda value: value * float("nan")),
    "diagnostics that are whole numbers": lambda f: change_unused(f, lambda value: value.long()),
    "pickles and tokenizers beside": lambda f: [(f / n).write_bytes(b"x") for n in ("adapter_model.bin", "tokenizer.json")],
    "short names of targets": lambda f: [
        (p / "adapter_config.json").write_text(
            json.dumps(
                json.loads((p / "adapter_config.json").read_text())
                | {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
            )
        )
        for p in (f, f / "prefill")
    ],
}


@pytest.mark.parametrize(
    ("case", "kind"), [*((case, "lora") for case in HARMLESS), *((case, "ia3") for case in HARMLESS if "diagnostics" in case)]
)
def test_variations_of_a_folder_that_change_nothing(case, kind, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager["llama"], kind)
    original = shutil.copytree(folder, tmp_path / "original")
    HARMLESS[case](folder)
    if "ablation" in json.loads((folder / "config.json").read_text()):
        shutil.copy(folder / "config.json", original / "config.json")
    prompt, answer = ids(11, 4)
    model = BituneModel.from_reference(folder, base=tiny_model())
    assert_close(scores(model, prompt, answer), expected_logits(original, eager["llama"], prompt, answer))


def test_16_bit_files_load(eager, tmp_path):
    """The authors' scripts train in bfloat16."""
    folder = write_reference(tmp_path / "reference", eager["llama"])
    for place in (folder, folder / "prefill"):
        change_tensors(place / "adapter_model.safetensors", lambda t: {key: value.bfloat16() for key, value in t.items()})
    model = BituneModel.from_reference(folder, base=tiny_model())
    for place in (folder, folder / "prefill"):  # the recipe computes in float32
        change_tensors(place / "adapter_model.safetensors", lambda t: {key: value.float() for key, value in t.items()})
    prompt, answer = ids(11, 4)
    assert_close(scores(model, prompt, answer), expected_logits(folder, eager["llama"], prompt, answer))


THETA = "base_model.model.pass_scale_v.weight"
WRONG = {
    "no settings": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "settings are a list": (lambda f: (f / "config.json").write_text("[]"), "config.json holds a list"),
    "no pass_type": (lambda f: change_settings(f, pass_type=...), "has no pass_type"),
    "pass_type 0": (lambda f: change_settings(f, pass_type=0), "pass_type 0"),
    "pass_type 2": (lambda f: change_settings(f, pass_type=2), "pass_type 2"),
    "pass_type 610": (lambda f: change_settings(f, pass_type=610), "pass_type 610"),
    "pass_type 800": (lambda f: change_settings(f, pass_type=800), "pass_type 800"),
    "pass_type as text": (lambda f: change_settings(f, pass_type="607"), "pass_type '607'"),
    "pass_type as a list": (lambda f: change_settings(f, pass_type=[607]), "pass_type [607]"),
    "pass_type true": (lambda f: change_settings(f, pass_type=True), "pass_type True"),
    "ablation 3": (lambda f: change_settings(f, ablation=3), "ablation 3"),
    "ablation as a list": (lambda f: change_settings(f, ablation=[0]), "ablation [0]"),
    "ablation 420 of pass_type 1": (lambda f: change_settings(f, pass_type=1, ablation=420), "ablation 420"),
    "s_init 0": (lambda f: change_settings(f, s_init=0), "s_init"),
    "s_init as text": (lambda f: change_settings(f, s_init="small"), "s_init"),
    "thinking": (lambda f: change_settings(f, think_tokens=2), "think_tokens 2"),
    "a pass before": (lambda f: change_settings(f, n_pass=1), "n_pass 1"),
    "no default adapter": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "no prefill": (lambda f: shutil.rmtree(f / "prefill"), "prefill/adapter_config.json is missing"),
    "no weights": (lambda f: (f / "prefill" / "adapter_model.safetensors").unlink(), "prefill/adapter_model.safetensors"),
    "pickled weights": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "adapter_model.safetensors: only pickled",
    ),
    "no coefficients": (lambda f: change_tensors(f / "adapter_model.safetensors", without(THETA)), f"lacks '{THETA}'"),
    "coefficients a head": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: t | {THETA: torch.ones(4, 2, 1, 1)}),
        "(4,) and (4, 2, 1, 1)",
    ),
    "one coefficient": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: t | {THETA: torch.ones(1)}),
        "(4,) and (1,)",
    ),
    "NaN": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: t | {THETA: torch.full((4,), float("nan"))}),
        "not finite",
    ),
    "a layer less": (lambda f: change_tensors(f / "adapter_model.safetensors", without("layers.3.")), "layers.3."),
    "other modules": (
        lambda f: (f / "adapter_config.json").write_text(
            (f / "adapter_config.json").read_text().replace("pass_scale_v", "think_embeds")
        ),
        "modules_to_save",
    ),
}


@pytest.fixture(scope="module", params=["bare", "occupied"])
def any_base(request):
    model = tiny_model()
    if request.param == "occupied":
        bitune_on(model)
    return model


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_folder_is_said_and_the_base_left_alone(case, any_base, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager["llama"])
    change, words = WRONG[case]
    change(folder)
    with refused(any_base, words):
        BituneModel.from_reference(folder, base=any_base)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_a_folder_of_another_base_is_refused(kind, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager["phi"], kind)
    for family in ("llama", "gpt_neox"):
        model = tiny_model(family)
        with refused(model, "base"):
            BituneModel.from_reference(folder, base=model)


def test_a_plain_peft_folder_is_no_reference(tmp_path):
    with pytest.raises(CheckpointError, match="config.json is missing"):
        BituneModel.from_reference(tmp_path, base=tiny_model())


@pytest.mark.parametrize(("pass_type", "ablation"), [(607, 0), (1, 2)])
def test_a_reference_is_not_taken_for_a_plain_adapter(pass_type, ablation, any_base, eager, tmp_path):
    folder = write_reference(tmp_path / "reference", eager["llama"], "lora", pass_type, ablation)
    with refused(any_base, "authors", "from_reference", "python -m bitune convert"):
        BituneModel.from_pretrained(folder, base=any_base)
