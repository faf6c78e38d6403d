"""Thousands of damaged checkpoint folders: each loads and is what its files say, or is refused in one sentence and leaves nothing behind."""

import contextlib
import functools
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from bitune import Base, BituneError, BituneModel, DataError, Engine, PromptError
from bitune.adapters import patterns
from bitune.adapters.kinds import new_peft_config
from tests.authors import write_reference
from tests.mutations import changed_files, settings, within
from tests.tiny import FAMILIES, randomized, tiny_tokenizer
from tests.unharmed import contents, hooks, state_of

SECONDS = 20.0  # far above what a case takes: it says "hangs", not "slow"
PROMPT = torch.arange(5, 13)[None]
LOG = "".join(json.dumps({"step": step, "loss": 1.0, "alpha_k": [0.5, 0.4], "alpha_v": [0.5, 0.6]}) + "\n" for step in (1, 2))
SHARES = {"ours": 6, "dora": 2, "peft": 5, "authors": 4}  # of all cases, in seventeenths


def small_base() -> Base:
    """Two layers: what a case costs is nearly all PEFT's work on the modules."""
    torch.manual_seed(0)
    config = LlamaConfig(**(FAMILIES["llama"].to_dict() | {"num_hidden_layers": 2, "initializer_range": 0.1}))
    return Base(AutoModelForCausalLM.from_config(config).eval(), tiny_tokenizer(), "small", None, None)


def write(kind: str, folder: Path) -> None:
    """A real checkpoint folder of a kind."""
    base = small_base()
    if kind == "authors":
        write_reference(folder, base.model)
        return
    if kind in ("ours", "dora"):
        config = new_peft_config(
            base.model, "dora" if kind == "dora" else "lora", rank=2, targets=["q_proj", "v_proj"], dropout=0.1
        )
        model = randomized(BituneModel.create(base, peft_config=config, prompt_template="Q: {prompt} A:"), scale=0.05)
        model.log, model.card = LOG, "# A card\n"
        model.record_training({"steps": 2, "settings": {"rate": 0.001}})
        model.save_pretrained(folder)
        return
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=4,
        target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"layers.0.self_attn.q_proj": 3},
        alpha_pattern={"v_proj": 2},
        layers_to_transform=[0, 1],
        layers_pattern="layers",
    )
    torch.manual_seed(1)
    plain = get_peft_model(base.model, config)
    for parameter in plain.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    plain.save_pretrained(folder)


class Folder:
    """A checkpoint folder on the disk, its files as they were, and the engine that loads it."""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.folder = kind, folder
        write(kind, folder)
        self.files = contents(folder)
        self.engine = Engine(small_base())
        self.model = self.engine.base.model
        self.before = self.state()

    def state(self) -> dict[str, object]:
        with torch.no_grad():
            logits = self.model(PROMPT).logits
        return state_of(self.model) | {
            "variants": list(self.engine.variants),
            "hooks": hooks(self.model),
            "logits": logits.sum().item(),
        }

    def put(self, changed: dict[str, bytes | None]) -> None:
        """Write changed files, or take them away."""
        for name, content in changed.items():
            if content is None:
                (self.folder / name).unlink()
            else:
                (self.folder / name).write_bytes(content)

    def load(self) -> BituneModel:
        """The model, through the engine where this kind goes there."""
        if self.kind == "authors":
            return BituneModel.from_reference(self.folder, self.engine.base, trainable=False)
        self.engine.add_checkpoint(self.folder, "it")
        return self.engine._entries["it"].model

    def unload(self, model: BituneModel) -> None:
        if self.kind == "authors":
            model.release()
        else:
            self.engine.remove_checkpoint("it")

    def check_loaded(self, model: BituneModel) -> None:
        """It is what its files say: the numbers of the files, and those that PEFT gives for its adapters."""
        if model.mixing is not None:
            assert all(torch.isfinite(ratios).all() for ratios in model.mixing_ratios())
        for slot, name in model.names.items():
            place = self.place(model, slot)
            written = load_file(place / "adapter_model.safetensors")
            for key, value in model.manager.weights(name).items():
                torch.testing.assert_close(value, written[key].float(), rtol=0, atol=0)
            if self.kind != "authors":
                with torch.no_grad(), model.manager.active_adapter(name):
                    found = self.model(PROMPT).logits
                torch.testing.assert_close(
                    found,
                    peft_logits(*(file.read_bytes() for file in adapter_files(place))),
                    rtol=1e-4,
                    atol=1e-5,
                    equal_nan=True,
                )
        if self.kind in ("ours", "dora"):
            self.check_ours(model)

    def place(self, model: BituneModel, slot: str) -> Path:
        if self.kind == "peft":
            return self.folder
        if self.kind == "authors":
            return self.folder if slot == "causal" else self.folder / "prefill"
        return self.folder / model.bitune_config.adapters[slot]

    def check_ours(self, model: BituneModel) -> None:
        config = json.loads((self.folder / "bitune_config.json").read_text("utf-8"))
        assert model.bitune_config.prompt_template == config.get("prompt_template")
        assert [p.adapter for p in model.bitune_config.passes] == [p["adapter"] for p in config["passes"]]
        if model.mixing is not None:
            theta = load_file(self.folder / "mixing.safetensors")
            start = config["mixing"].get("theta_init", 0.01)
            for found, kind in zip(model.mixing_ratios(), "kv", strict=True):
                size = theta[f"theta_{kind}"].double()
                size = size.clamp(min=0) if config["mixing"].get("parameterization") == "relu" else size.abs()
                torch.testing.assert_close(found.double(), size / (size + start), rtol=1e-5, atol=1e-7)
        with contextlib.suppress(DataError):
            assert isinstance(self.engine.training_log("it"), list)
        with contextlib.suppress(PromptError):
            self.engine.prompt_ids("Why?", "it")


@functools.cache
def plain_model() -> PreTrainedModel:
    return small_base().model


def adapter_files(place: Path) -> tuple[Path, Path]:
    return place / "adapter_config.json", place / "adapter_model.safetensors"


@functools.cache
def peft_logits(config: bytes, weights: bytes) -> torch.Tensor:
    """What PEFT gives for an adapter folder with these files."""
    with tempfile.TemporaryDirectory() as place:
        for file, content in zip(adapter_files(Path(place)), (config, weights), strict=True):
            file.write_bytes(content)
        wrapped = PeftModel.from_pretrained(plain_model(), place).eval()
    try:
        with torch.no_grad():
            return wrapped(PROMPT).logits
    finally:
        wrapped.unload()
        vars(plain_model()).pop("peft_config", None)


def explore(kind: str, parent: Path, monkeypatch, examples: int) -> None:
    monkeypatch.setattr(patterns, "TIME_LIMIT", 1.0)  # patterns that hang are among the values
    damaged, counts = Folder(kind, parent / "checkpoint"), Counter()

    @settings(examples)
    @given(changed_files(damaged.files))
    def check(changed):
        damaged.put(changed)
        try:
            with within(SECONDS):
                try:
                    model = damaged.load()
                except BituneError as error:
                    counts["refused"] += 1
                    message = str(error)
                    assert "\n" not in message and message[-1] in ".?" and len(message) < 1500, message
                else:
                    counts["loaded"] += 1
                    damaged.check_loaded(model)
                    damaged.unload(model)
            assert damaged.state() == damaged.before
        finally:
            damaged.put({name: damaged.files[name] for name in changed})

    check()
    print(kind, dict(counts))
    assert min(counts["loaded"], counts["refused"]) > examples // 25, counts


# PEFT and torch warn of much that is odd in a config; what becomes of it is what is looked at here.
odd = pytest.mark.filterwarnings("ignore")


@odd
@pytest.mark.parametrize("kind", SHARES)
def test_damaged_folders_load_as_they_are_or_are_refused(kind, tmp_path, monkeypatch):
    explore(kind, tmp_path, monkeypatch, 90 * SHARES[kind])


@odd
@pytest.mark.long
@pytest.mark.parametrize("kind", SHARES)
def test_many_damaged_folders(kind, tmp_path, monkeypatch):
    explore(kind, tmp_path, monkeypatch, 1_180 * SHARES[kind])
