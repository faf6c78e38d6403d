"""Tiny random models of many families, built from a config, and a tokenizer of bytes: all offline, in milliseconds."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from bitune import Base, BituneModel
from bitune.adapters.kinds import new_peft_config

VOCABULARY = 260
END = 257
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # a wrong mask or adapter shows, and scores of attention stay small: a softmax of large ones multiplies rounding
    "bos_token_id": 256,
    "eos_token_id": END,
    "pad_token_id": 258,
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
WINDOW = 6
# Two layers see everything, two a window; the window is shorter than the tests' prompts.
GEMMA3_LAYERS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]

FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "gemma": GemmaConfig(**GROUPED, head_dim=8),
    "gemma3": Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=WINDOW, layer_types=GEMMA3_LAYERS),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "mistral": MistralConfig(**GROUPED, sliding_window=WINDOW),
    "phi": PhiConfig(**SHAPE),
    "gpt_neox": GPTNeoXConfig(**SHAPE),
    "olmo2": Olmo2Config(**GROUPED),
}


def tiny_model(family: str = "llama", attention: str = "sdpa", seed: int = 0) -> PreTrainedModel:
    """A random model of a family, float32, eval mode."""
    torch.manual_seed(seed)
    # A config of its own: it names the attention in use, and the next model of the family would change that of this one.
    return AutoModelForCausalLM.from_config(deepcopy(FAMILIES[family]), attn_implementation=attention).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; 256 begins (not added by itself), 257 ends, 258 pads; with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=512,
    )
    fast.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
    )
    return fast


def saved_base(folder: Path, family: str = "llama") -> Base:
    """A tiny base, written with its tokenizer to `folder`."""
    base = tiny_base(family)
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return base


def tiny_base(family: str = "llama", seed: int = 0) -> Base:
    """What load_base would return for such a model."""
    return Base(tiny_model(family, seed=seed), tiny_tokenizer(), f"tiny-{family}", None, None)


def randomized(model: BituneModel, seed: int = 1, scale: float = 0.2) -> BituneModel:
    """The model with random adapters and coefficients, so that every part of it changes the answer."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            is_theta = name.startswith("mixing.")
            noise = noise.to(parameter)
            parameter.data = noise * 0.01 if is_theta else parameter.data + noise * scale
    return model.eval()


def bitune_on(base, method: str = "bitune", kind: str = "lora", seed: int = 1, **settings) -> BituneModel:
    """A random Bitune model of a method and PEFT kind on a base."""
    module = base.model if isinstance(base, Base) else base
    return randomized(BituneModel.create(base, method, new_peft_config(module, kind, rank=4), **settings), seed)


def ids(*lengths: int, seed: int = 2) -> list[torch.Tensor]:
    """Random prompts of these lengths, each [1, length]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 250, (1, length), generator=generator) for length in lengths]


def longrope_settings(switch: int, long_factor: Sequence[float]) -> dict[str, object]:
    """Rotary settings of a base with heads of 8 numbers that takes `long_factor` in calls of more than `switch` tokens, as Phi-3 does."""
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": list(long_factor),
        "original_max_position_embeddings": switch,
    }
