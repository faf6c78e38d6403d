"""What is measured: the base with checkpoints under an engine, the same base under plain transformers, and prompts to answer.

Checkpoints are fresh adapters, two Bitunes of rank 8 and two LoRAs of rank 16 as those in assets/checkpoints, since speed does not
ask what was learned. No token ends an answer, so that every answer has the length that is asked for.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GgufConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import bitune
from benchmarks.setting import Setting
from bitune.adapters.kinds import new_peft_config
from bitune.base.sources import resolve_base
from bitune.errors import UnknownNameError

TEXT = (
    "a river carries stones and sand from the hills to the sea and leaves them where the water slows down while an old lighthouse "
    "keeper counts ships then gulls then waves before supper"
)
WORDS = TEXT.split()
RANKS = {"bitune": 8, "lora": 16}
CHECKPOINTS = {"bitune": "bitune", "lora": "lora", "bitune-2": "bitune", "lora-2": "lora"}
MORE_CHECKPOINTS = CHECKPOINTS | {"bitune-3": "bitune", "lora-3": "lora", "bitune-4": "bitune"}

SHAPES = {
    "tiny": LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    ),
    "gemma-2b": GemmaConfig(
        vocab_size=256_000,
        hidden_size=2048,
        intermediate_size=16_384,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
    ),
    "llama-3-8b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    ),
}
"""Sizes of Google's Gemma-2B and Meta's Llama-3-8B, as their config.json say them; and a tiny one."""


def prepare(setting: Setting) -> None:
    """Put what the figures load into the run's folder: the base as plain transformers reads it, and the checkpoints."""
    if setting.shape is None:
        _save_plain(setting.base, setting.folder / "plain")
    base = open_base(setting)
    for name, method in MORE_CHECKPOINTS.items():
        config = new_peft_config(base.model, "lora", RANKS[method])
        model = bitune.BituneModel.create(base, method, config)
        model.save_pretrained(setting.folder / "checkpoints" / name)
        model.release()


def open_base(setting: Setting) -> bitune.Base:
    """The base as Bitune loads it, without an end token."""
    if setting.shape is None:
        base = bitune.load_base(setting.base, device=setting.device, dtype=setting.dtype)
    else:
        base = bitune.Base(_random_model(setting), _word_tokenizer(setting), setting.base, None, None)
    base.model.generation_config.eos_token_id = base.tokenizer.eos_token = None
    return base


def open_engine(setting: Setting, names: Sequence[str] = tuple(CHECKPOINTS)) -> bitune.Engine:
    """An engine with these checkpoints."""
    engine = bitune.Engine(open_base(setting))
    for name in names:
        engine.add_checkpoint(setting.folder / "checkpoints" / name)
    return engine


def plain_model(setting: Setting) -> PreTrainedModel:
    """The base as transformers alone loads it, without an end token."""
    if setting.shape is None:
        model = AutoModelForCausalLM.from_pretrained(setting.folder / "plain", dtype=setting.dtype).eval().to(setting.device)
    else:
        model = _random_model(setting)
    model.generation_config.eos_token_id = None
    return model


class Prompts:
    """New prompts of any length: no two of them begin alike, so that nothing of one was read with another."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._tokenizer, self._random = tokenizer, random.Random(0)

    def new(self, tokens: int) -> str:
        """Text of exactly so many tokens, special ones in front included."""
        text = " ".join(self._random.choices(WORDS, k=tokens))
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        return text[: encoded["offset_mapping"][tokens - 1][1]]


def _save_plain(source: str, folder: Path) -> None:
    weights = resolve_base(source)
    gguf = {} if weights.gguf is None else {"gguf_file": weights.gguf}
    packed = {} if weights.gguf is None else {"quantization_config": GgufConfig(dequantize=True)}
    AutoModelForCausalLM.from_pretrained(weights.folder, dtype=torch.float32, **gguf, **packed).save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.folder, **gguf).save_pretrained(folder)


def _random_model(setting: Setting) -> PreTrainedModel:
    """The same weights every time."""
    if setting.shape not in SHAPES:
        raise UnknownNameError("shape", setting.shape, SHAPES)
    torch.manual_seed(0)
    with torch.device(setting.device):
        model = AutoModelForCausalLM.from_config(SHAPES[setting.shape], dtype=getattr(torch, setting.dtype))
    return model.eval().requires_grad_(False)


def _word_tokenizer(setting: Setting) -> PreTrainedTokenizerFast:
    """A word is a token: those of prompts, and a number for each other token."""
    words = list(dict.fromkeys(WORDS))
    words += map(str, range(len(words), SHAPES[setting.shape].vocab_size))
    tokenizer = Tokenizer(models.WordLevel({word: token for token, word in enumerate(words)}, unk_token=words[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=words[-1], padding_side="left")
