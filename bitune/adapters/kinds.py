"""The PEFT kinds one can train and load: LoRA, DoRA, IA3, as configs for a given base. Knows no training and no checkpoint."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

import peft
from peft import IA3Config, LoraConfig, PeftConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bitune.adapters.settings import check_settings
from bitune.errors import CheckpointError, ConfigError, UnknownNameError, reason, shown
from bitune.schema.peft_kinds import PEFT_KINDS, RANK

_CONFIGS: dict[str, type[PeftConfig]] = {"LORA": LoraConfig, "IA3": IA3Config}
# What replaces modules of the base or needs inputs that only PeftModel.forward hands in. Everything else is decided by the layers
# that PEFT makes of a config (adapters.layers), not by the names of its settings: those grow with every release.
_BEYOND_LAYERS = (
    "alora_invocation_tokens",
    "layer_replication",
    "megatron_config",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
)
# Ways to begin that subtract the adapter from the base; known by name because they take minutes before it shows.
_CHANGES_THE_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")


def new_peft_config(
    model: PreTrainedModel,
    kind: str = "lora",
    rank: int = RANK,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    dropout: float = 0.0,
) -> PeftConfig:
    """A config of `kind` for a bare base.

    `targets`: last parts of module names (`q_proj`, ...); default every linear layer of the decoder, as in the paper, in a
    mixture of experts those of the attention: experts are fused into parameters that PEFT adapts in a way of its own.
    `alpha`: LoRA's numerator, default 2 x rank (the authors' code fixes it at 1). IA3 takes neither rank nor alpha; as in the
    authors' code its feed-forward vectors scale the input of every linear layer of the `mlp` blocks.
    """
    if kind not in PEFT_KINDS:
        raise UnknownNameError("PEFT kind", kind, PEFT_KINDS)
    if rank < 1:
        raise ConfigError(f"The rank is {rank}; it must be at least 1.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"The dropout is {dropout}; it must be a share from 0 to below 1.")
    if alpha is not None and not math.isfinite(alpha):
        raise ConfigError(f"LoRA's alpha is {alpha}; it must be a number with an end.")
    if kind == "ia3" and (dropout or alpha is not None):
        given = f"dropout {dropout}" if dropout else f"LoRA alpha {alpha}"
        raise ConfigError(f"IA3 does not use the {given}; leave it out, or choose lora or dora.")
    linears = linear_layers(model)
    fused = set() if kind == "ia3" else {name for name in linears if _is_taken_for_experts(name, model)}
    default = _attention_only(model) if is_mixture_of_experts(model) else set(linears)
    chosen = sorted(set(targets or default - fused))
    if unknown := [name for name in chosen if name not in linears]:
        raise UnknownNameError("linear layer of this base", unknown[0], linears)
    if refused := fused.intersection(chosen):
        raise ConfigError(
            f"On a {model.config.model_type} PEFT takes the target {min(refused)!r} for the experts, which are fused; choose among "
            f"{', '.join(sorted(linears.keys() - fused))}."
        )
    shared = {
        "task_type": "CAUSAL_LM",
        "target_modules": chosen,
        "exclude_modules": _outside_decoder(model),
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's own kind of linear layer
    }
    if kind == "ia3":
        return IA3Config(**shared, feedforward_modules=[name for name in chosen if linears[name]])
    return LoraConfig(
        **shared, r=rank, lora_alpha=2 * rank if alpha is None else alpha, lora_dropout=dropout, use_dora=kind == "dora"
    )


def linear_layers(model: PreTrainedModel) -> dict[str, bool]:
    """Last part of the name of every linear layer inside the decoder -> whether it lies in a feed-forward (`mlp`) block.

    A layer that only has a number is named with the part before it. Routers of experts are left out: they return choices.
    """
    paths = _linear_paths(model, _decoder(model))
    return {_last_part(path): "mlp" in path or "feed_forward" in path for path in paths}


def _is_taken_for_experts(name: str, model: PreTrainedModel) -> bool:
    """Whether PEFT reads this target as experts of transformers 4, which transformers 5 has fused into parameters.

    It does so by the last part of the name and the family, also where an attention has a layer that is called alike (afmoe's `gate_proj`);
    of two that were fused together it then asks for both.
    """
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # the other one of the two is missing
        return True
    return bool(config.target_parameters)


def is_mixture_of_experts(model: PreTrainedModel) -> bool:
    """Whether tokens go to experts, which see them apart from the rows they came in."""
    settings = model.config.get_text_config(decoder=True).to_dict()
    return any(settings.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"))


def _attention_only(model: PreTrainedModel) -> set[str]:
    return {_last_part(path) for path in _linear_paths(model, _decoder(model)) if "attn" in path or "attention" in path}


def _last_part(path: str) -> str:
    *blocks, name = path.split(".")
    return f"{blocks[-1]}.{name}" if name.isdigit() else name


def _decoder(model: PreTrainedModel) -> nn.Module:
    decoder = model.get_decoder()
    return decoder if _linear_paths(model, decoder) else model.base_model  # some families call their output head so


def _linear_paths(model: PreTrainedModel, part: nn.Module) -> list[str]:
    """Paths within `part` of `model` of the linear layers that can be adapted."""
    head, paths = model.get_output_embeddings(), []  # with the adapters it carries, as `module` below
    for path, module in part.named_modules():
        base = getattr(module, "base_layer", module)  # a base that already carries adapters
        plain = isinstance(base, nn.Linear | Conv1D) and "Router" not in type(base).__name__
        if plain and module is not head and ".base_layer" not in path and "lora_" not in path:
            paths.append(path)
    return paths


def _outside_decoder(model: PreTrainedModel) -> str | None:
    """A regular expression for modules outside the decoder, which may be called alike, or None: only text is read here."""
    decoder = _decoder(model)
    prefix = next(path for path, module in model.named_modules() if module is decoder)
    outside = any(not path.startswith(f"{prefix}.") for path in _linear_paths(model, model))
    return rf"(?!{re.escape(prefix)}\.).*" if outside else None


def kind_of(config: PeftConfig) -> str:
    """The kind's name as people write it: `lora`, `dora`, `ia3`, or PEFT's own in lower case."""
    if isinstance(config, LoraConfig) and config.use_dora:
        return "dora"
    return str(config.peft_type.value).lower()


def read_peft_config(data: Mapping[str, object], file: str) -> PeftConfig:
    """The config in an adapter_config.json; CheckpointError names `file` and the setting that is unknown or makes no sense."""
    kind = data.get("peft_type")
    if not isinstance(kind, str) or kind not in _CONFIGS:
        raise CheckpointError(
            f"{file} is of the PEFT type {shown(kind)}; bitune runs LORA (DoRA with it) and IA3: use one of them."
        )
    known = {field.name for field in fields(_CONFIGS[kind])} - {"runtime_config"}
    # A newer PEFT writes all of its options; one that is not in use may be left out, another would change the numbers.
    unknown = sorted(key for key in data.keys() - known if data[key] and key != "runtime_config")
    if unknown:
        raise CheckpointError(
            f"{file} has the setting {shown(unknown[0])}, which PEFT {peft.__version__} does not know; update PEFT if a newer one wrote it."
        )
    settings = {key: value for key, value in data.items() if key in known}
    check_settings(settings, _CONFIGS[kind], file)
    try:
        return _CONFIGS[kind](**settings)
    except (TypeError, ValueError) as error:  # TypeError: a part of it, as eva_config, that lacks a key or has another
        raise CheckpointError(f"{file} is no {kind} config ({reason(error)}); download or save the adapter again.") from error


def check_switchable(config: PeftConfig, name: str) -> None:
    """Refuse a config whose adapter could not share its base, as far as the config alone can tell.

    Args:
        config: Of an adapter that is not on a base yet.
        name: What the error calls it.

    Raises:
        CheckpointError: It is of another kind than LoRA (DoRA with it) and IA3, or replaces parts of the base.
    """
    if str(config.peft_type.value) not in _CONFIGS:
        raise CheckpointError(
            f"{name} is of the PEFT type {config.peft_type.value}; bitune runs LORA (DoRA with it) and IA3: use one of them."
        )
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    refused = [setting for setting in _BEYOND_LAYERS if settings.get(setting)]
    if settings.get("bias", "none") != "none":
        refused.append("bias")
    if str(settings.get("init_lora_weights", True)).startswith(_CHANGES_THE_BASE):
        refused.append("init_lora_weights")
    # What PEFT itself says is another arithmetic than LoRA's: layers of some are made with what only a training has.
    variants = [field.name for field in fields(config) if field.metadata.get("is_lora_variant") and field.name != "use_dora"]
    refused += [setting for setting in variants if settings[setting] not in (None, False)]
    if refused:
        raise CheckpointError(
            f"{name} sets {refused[0]} to {shown(settings[refused[0]])}: that changes the base, which all adapters share, or needs more "
            "than LoRA, DoRA and IA3 do; train the adapter without it."
        )
