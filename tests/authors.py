"""Folders as the authors' training script saves them, and the method computed from such a folder with stock models alone.

Nothing here runs bitune or PEFT (bitune only tells the name of an argument): adapters are numbers that are folded into the
weights of a copy of the base.
"""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from bitune.modeling.interface import cache_input

RANK = 4
FT_TYPES = {"lora": 4, "dora": 14, "ia3": 24}


def write_reference(
    folder: Path,
    base: PreTrainedModel,
    kind: str = "lora",
    pass_type: int = 607,
    ablation: int = 0,
    s_init: float = 0.02,
    seed: int = 0,
) -> Path:
    """A random checkpoint in the authors' layout: both adapters always, both with their own copy of the coefficients."""
    generator = torch.Generator().manual_seed(seed)
    paths = [name for name, _ in base.named_modules() if "_proj" in name]  # as finetune.py chooses them
    layers = base.config.num_hidden_layers
    mixed = pass_type != 1
    for place, other in ((folder, "prefill"), (folder / "prefill", "default")):
        place.mkdir(parents=True)
        tensors = {}
        for path in paths:
            linear = base.get_submodule(path)
            for name, value in _adapter(kind, linear.weight, "mlp" in path, generator).items():
                tensors[f"base_model.model.{path}.{name}"] = value
                if kind == "ia3":  # PEFT 0.11.1 writes the other adapter's vectors too; they take no part in anything
                    tensors[f"base_model.model.{path}.{name}.{other}"] = -value
        for letter in "kv" if mixed else "":
            trained = place == folder
            theta = torch.randn(layers, generator=generator) * 0.03 if trained else torch.full((layers,), s_init)
            tensors |= {f"base_model.model.pass_scale_{letter}.weight": theta}
            for diagnostic in ("_ratio", "_denominator"):
                tensors[f"base_model.model.pass_scale_{letter}.{diagnostic}"] = torch.rand(layers, generator=generator)
        save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
        (place / "adapter_config.json").write_text(json.dumps(_peft_config(kind, paths, mixed)))
        (place / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    settings = {"pass_type": pass_type, "ablation": ablation, "s_init": s_init, "ft_type": FT_TYPES[kind], "rank": RANK}
    others = {"skip_bidir": 0, "think_tokens": 0, "think_type": 0, "n_pass": 0, "attn_type": 0, "_name_or_path": "somebody/base"}
    (folder / "config.json").write_text(json.dumps(base.config.to_dict() | settings | others))
    return folder


def _adapter(kind: str, weight: Tensor, feedforward: bool, generator: torch.Generator) -> dict[str, Tensor]:
    out, into = weight.shape
    if kind == "ia3":
        return {"ia3_l": 1 + 0.5 * torch.randn((1, into) if feedforward else (out, 1), generator=generator)}
    tensors = {
        "lora_A.weight": torch.randn(RANK, into, generator=generator) * 0.5,
        "lora_B.weight": torch.randn(out, RANK, generator=generator) * 0.5,
    }
    if kind == "dora":
        tensors["lora_magnitude_vector"] = weight.detach().norm(dim=1) * (1 + 0.3 * torch.rand(out, generator=generator))
    return tensors


def _peft_config(kind: str, paths: list[str], mixed: bool) -> dict:
    """adapter_config.json of PEFT 0.11.1."""
    shared = {
        "auto_mapping": None,
        "base_model_name_or_path": "somebody/base",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": ["pass_scale_k", "pass_scale_v"] if mixed else [],
        "revision": None,
        "target_modules": sorted(paths, reverse=True),
        "task_type": "CAUSAL_LM",
    }
    if kind == "ia3":
        forward = [path for path in paths if "mlp" in path]
        return shared | {"peft_type": "IA3", "feedforward_modules": forward, "init_ia3_weights": True}
    return shared | {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "use_dora": kind == "dora",
        "use_rslora": False,
        **{
            "alpha_pattern": {},
            "rank_pattern": {},
            "loftq_config": {},
            "megatron_config": None,
            "megatron_core": "megatron.core",
        },
        **dict.fromkeys(("layer_replication", "layers_pattern", "layers_to_transform")),
    }


def folded(base: PreTrainedModel, place: Path) -> PreTrainedModel:
    """A copy of the base with an adapter folded into its weights."""
    model = copy.deepcopy(base)
    tensors = load_file(place / "adapter_model.safetensors")
    for path in {key.split(".lora_")[0].split(".ia3_l")[0] for key in tensors if "pass_scale" not in key}:
        linear = model.get_submodule(path.removeprefix("base_model.model."))
        weight = linear.weight.data
        if f"{path}.ia3_l" in tensors:
            vector = tensors[f"{path}.ia3_l"]
            weight *= vector
            if linear.bias is not None and vector.shape[1] == 1:
                linear.bias.data *= vector[:, 0]
            continue
        weight += tensors[f"{path}.lora_B.weight"] @ tensors[f"{path}.lora_A.weight"] / RANK
        if f"{path}.lora_magnitude_vector" in tensors:
            weight *= (tensors[f"{path}.lora_magnitude_vector"] / weight.norm(dim=1))[:, None]
    return model


@torch.no_grad()
def expected_logits(folder: Path, base: PreTrainedModel, prompt: Tensor, answer: Tensor) -> Tensor:
    """Logits [1, answer, vocabulary] by the authors' recipe (golden/README.md); eager attention. Prompts of 2 tokens and more."""
    settings = json.loads((folder / "config.json").read_text())
    default, prefill = folded(base, folder), folded(base, folder / "prefill")
    first = default if settings["ablation"] == 2 else prefill
    only_causal = settings["ablation"] == 1 and settings["pass_type"] != 1
    cache = _read(first, prompt[:, :-1], bidirectional=not only_causal)
    if settings["pass_type"] != 1:
        causal = _read(default, prompt[:, :-1], bidirectional=False)
        tensors = load_file(folder / "adapter_model.safetensors")
        for index, (one, two) in enumerate(zip(causal.layers, cache.layers, strict=True)):
            for letter, part in (("k", "keys"), ("v", "values")):
                theta = tensors[f"base_model.model.pass_scale_{letter}.weight"][index]
                size = theta.abs() if settings["pass_type"] == 607 else theta.relu()
                alpha = size / (size + settings["s_init"])
                setattr(two, part, (1 - alpha) * getattr(one, part) + alpha * getattr(two, part))
    return default(torch.cat([prompt[:, -1:], answer[:, :-1]], dim=1), **cache_input(cache)).logits


def _read(model: PreTrainedModel, ids: Tensor, bidirectional: bool) -> DynamicCache:
    mask = torch.zeros(1, 1, ids.shape[1], ids.shape[1]) if bidirectional else None
    cache = DynamicCache(config=model.config)
    model(ids, attention_mask=mask, **cache_input(cache))
    return cache
