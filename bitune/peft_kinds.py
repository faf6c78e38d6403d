"""The PEFT kinds one can train: LoRA, DoRA, IA3, as configs for a given base. Knows no training and no checkpoint."""

from collections.abc import Sequence

from peft import IA3Config, LoraConfig, PeftConfig
from torch import nn
from transformers import PreTrainedModel

from bitune.errors import ConfigError, UnknownNameError

PEFT_KINDS = ("lora", "dora", "ia3")
RANK = 8


def new_peft_config(
    model: PreTrainedModel,
    kind: str = "lora",
    rank: int = RANK,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    dropout: float = 0.0,
) -> PeftConfig:
    """A config of `kind` for a bare base.

    `targets`: last parts of module names (`q_proj`, ...); default every linear layer of the decoder, as in the paper.
    `alpha`: LoRA's numerator, default 2 x rank (the authors' code fixes it at 1). IA3 takes neither rank nor alpha; as in the
    authors' code its feed-forward vectors scale the input of every linear layer of the `mlp` blocks.
    """
    if kind not in PEFT_KINDS:
        raise UnknownNameError("PEFT kind", kind, PEFT_KINDS)
    if rank < 1:
        raise ConfigError(f"The rank is {rank}; it must be at least 1.")
    linears = linear_layers(model)
    targets = sorted(set(targets) if targets else set(linears))
    missing = [name for name in targets if name not in linears]
    if missing:
        raise UnknownNameError("linear layer of this base", missing[0], linears)
    if kind == "ia3":
        return IA3Config(task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=[t for t in targets if linears[t]])
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=targets,
        use_dora=kind == "dora",
    )


def linear_layers(model: PreTrainedModel) -> dict[str, bool]:
    """Last part of the name of every linear layer inside the decoder -> whether it lies in a feed-forward (`mlp`) block."""
    head = model.get_output_embeddings()
    names = {}
    for path, module in model.named_modules():
        base = getattr(module, "base_layer", module)  # a base that already carries adapters
        if isinstance(base, nn.Linear) and base is not head and ".base_layer" not in path and "lora_" not in path:
            *blocks, name = path.split(".")
            names[name] = any("mlp" in block or "feed_forward" in block for block in blocks)
    return names


def kind_of(config: PeftConfig) -> str:
    """The kind's name as people write it: `lora`, `dora`, `ia3`, or PEFT's own in lower case."""
    if isinstance(config, LoraConfig) and config.use_dora:
        return "dora"
    return str(config.peft_type.value).lower()
