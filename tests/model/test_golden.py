"""The authors' own numbers: logits, losses, caches, ratios, greedy tokens and gradients of every case in tests/golden."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from bitune import BituneModel, CheckpointError
from bitune.model.prefill import Row, prefill
from tests.closeness import assert_close

FOLDER = Path(__file__).parent.parent / "golden"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/case.json"))
PROMPTS = ["p0", "p1", "p2", "p3"]
SLOTS = {"default": "causal", "prefill": "bidirectional"}


def assert_golden(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Logits, losses and caches agree as closely as the authors' numbers can be computed anew, see golden/README.md."""
    assert_close(found, expected, allowed=1e-4 + 1e-4 * expected.abs())


def float32_base(name: str) -> PreTrainedModel:
    """The base of a case; also where its weights are stored in 16 bits the authors' numbers are of float32."""
    return AutoModelForCausalLM.from_pretrained(FOLDER / name / "base", dtype=torch.float32)


class Case:
    def __init__(self, name: str):
        folder = FOLDER / name
        self.facts = json.loads((folder / "case.json").read_text())
        self.expected = load_file(folder / "expected.safetensors")
        self.base = float32_base(name)
        self.reference = folder / "reference_checkpoint"
        self.model = BituneModel.from_reference(self.reference, base=self.base)

    def prompt(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, length = self.expected[f"{key}.input_ids"], int(self.expected[f"{key}.prompt_length"])
        return tokens[:, :length], tokens[:, length:]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def check_scores_and_tokens(model: BituneModel, case: Case) -> None:
    for key in PROMPTS:
        prompt, answer = case.prompt(key)
        with torch.no_grad():
            output = model(prompt, answer)
        # Their last row comes after the answer's last token; ours predict the answer only.
        assert_golden(output.logits, case.expected[f"{key}.logits"][:, :-1])
        assert_golden(output.loss, case.expected[f"{key}.loss"])
        new = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert torch.equal(new[:, prompt.shape[1] :], case.expected[f"{key}.generated"]), key


def test_there_are_cases():
    assert len(CASES) >= 11


def test_logits_losses_and_greedy_tokens(case):
    check_scores_and_tokens(case.model, case)


def test_next_token_logits_while_generating(case):
    for key in PROMPTS:
        prompt, _ = case.prompt(key)
        out = case.model.generate(
            prompt,
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert_golden(torch.stack(out.logits, dim=1), case.expected[f"{key}.generated_logits"])


def test_the_base_is_the_base_again_outside_the_model(case):
    for key in PROMPTS:
        tokens = case.expected[f"{key}.input_ids"]
        with torch.no_grad():
            assert_golden(case.base(tokens).logits, case.expected[f"{key}.base_logits"])


def test_caches_of_each_pass_and_mixed(case):
    variant = case.model.variant
    for key in PROMPTS:
        prompt, _ = case.prompt(key)
        rows = [Row(0, (reading,)) for reading in variant.passes] + [Row.of(variant, 0)]
        with torch.no_grad():
            cache = prefill(case.model.manager, prompt, torch.ones_like(prompt), rows)
        names = ["causal", "bidir", "mixed"] if variant.mixing else ["bidir", "mixed"]
        for row, name in enumerate(names):
            for kind, part in (("k", "keys"), ("v", "values")):
                expected = case.expected.get(f"{key}.{kind}_{name}")
                found = torch.stack([getattr(layer, part)[row : row + 1] for layer in cache.layers])
                assert expected is not None or name == "bidir", (key, kind, name)
                if expected is not None:
                    assert_golden(found, expected)


def test_ratios(case):
    if not case.facts["mixing"]:
        assert case.model.mixing is None
        return
    for found, kind in zip(case.model.mixing_ratios(), "kv", strict=True):
        assert_close(found, case.expected[f"alpha_{kind}"], allowed=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_gradients(case, training):
    """d loss / d theta and d loss / d adapter for p1; parameters without gradient in theirs have none in ours."""
    model = case.model.train(training)
    model.zero_grad()
    model(*case.prompt("p1")).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    gradients = {key: value for key, value in case.expected.items() if key.startswith("grad.")}
    assert len(gradients) >= 7  # one of every projection of a layer
    for key, expected in gradients.items():
        name = ours(key, model)
        assert_close(found[name].flatten(), expected.flatten(), key, allowed=1e-3 * float(expected.abs().max()))
    trained = {slot for slot, name in model.names.items() if any(f".{name}" in key for key in found)}
    assert trained == {SLOTS[name] for name in case.facts["adapters_receiving_gradient"]}
    case.model.eval()


def ours(key: str, model: BituneModel) -> str:
    """The name here of a parameter that the authors' code calls `key`."""
    _, adapter, rest = key.split(".", 2)
    if adapter.startswith("pass_scale"):
        return f"mixing.theta_{adapter[-1]}"
    stem, kind = rest.rsplit(".", 1) if rest.endswith(".weight") else (rest, "weight")
    name = f"base.{stem}.{model.names[SLOTS[adapter]]}"
    return next(n for n in (f"{name}.{kind}", name) if n in dict(model.named_parameters()))


def test_converting_and_saving_keeps_parity(case, tmp_path):
    case.model.save_pretrained(tmp_path / "converted")
    base = float32_base(case.facts["case"])
    check_scores_and_tokens(BituneModel.from_pretrained(tmp_path / "converted", base=base), case)


def altered(case: Case, tmp_path: Path, **changes) -> Path:
    """A copy of the authors' folder with other settings."""
    import shutil

    folder = tmp_path / "altered"
    shutil.copytree(case.reference, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pass_type": 605}, "pass_type 605"),
        ({"pass_type": 0}, "pass_type 0"),
        ({"ablation": 7}, "ablation 7"),
        ({"skip_bidir": 3}, "skip_bidir 3"),
    ],
)
def test_settings_that_were_not_published_are_refused(changes, words, tmp_path):
    case = Case("llama_607_lora")
    with pytest.raises(CheckpointError, match=words):
        BituneModel.from_reference(altered(case, tmp_path, **changes), base=case.base)


def test_relu_form_cuts_negative_coefficients(tmp_path):
    case = Case("llama_607_lora")
    model = BituneModel.from_reference(altered(case, tmp_path, pass_type=801), base=case.base)
    for found, kind in zip(model.mixing_ratios(), "kv", strict=True):
        theta = case.expected[f"theta_{kind}"].clamp(min=0)
        assert_close(found, theta / (theta + 0.01), allowed=1e-6)
    assert any((case.expected[f"theta_{kind}"] < 0).any() for kind in "kv")


@pytest.mark.parametrize(
    ("pass_type", "ablation", "method"),
    [
        (1, 0, "no_mixing"),
        (1, 1, "no_mixing"),
        (1, 2, "naive_bidirectional"),
        (607, 1, "only_causal"),
        (607, 2, "shared_weights"),
        (801, 0, "bitune"),
        (607, 420, "anticausal"),
    ],
)
def test_settings_become_rows_of_the_table(pass_type, ablation, method, tmp_path):
    from bitune.schema.variants import METHODS

    case = Case("llama_607_lora")
    model = BituneModel.from_reference(altered(case, tmp_path, pass_type=pass_type, ablation=ablation), base=case.base)
    assert model.bitune_config.method == METHODS[method]
