"""Folders that PEFT itself writes, of many settings, and what PeftModel gives for them: the measure for what bitune loads."""

import functools
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from tests.greedy import greedy
from tests.tiny import SHAPE, ids, tiny_model

PROMPT, ANSWER = ids(9, 4, seed=11)
GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
LINEAR = ["q_proj", "v_proj", "down_proj"]
EMBEDDINGS = ["embed_tokens", "lm_head", "q_proj"]
lora = functools.partial(LoraConfig, r=4, lora_alpha=6, task_type="CAUSAL_LM")
dora = functools.partial(lora, use_dora=True)
ia3 = functools.partial(IA3Config, task_type="CAUSAL_LM")

# name -> family of the base, config. Gemma ties its embeddings and scales them; GPT-2 has linear layers of its own kind.
EQUAL: dict[str, tuple[str, Callable[[], PeftConfig]]] = {
    "lora": ("llama", lambda: lora(target_modules=LINEAR)),
    "dropout": ("llama", lambda: lora(target_modules=LINEAR, lora_dropout=0.5)),
    "dora dropout": ("llama", lambda: dora(target_modules=LINEAR, lora_dropout=0.5)),
    "rank pattern": ("llama", lambda: lora(target_modules=LINEAR, rank_pattern={"v_proj": 2, r"layers\.1\..*q_proj": 7})),
    "alpha pattern": ("llama", lambda: lora(target_modules=LINEAR, alpha_pattern={"v_proj": 3, r"layers\.1\..*q_proj": 20})),
    "rslora": ("llama", lambda: lora(target_modules=LINEAR, use_rslora=True)),
    "rslora, patterns": ("llama", lambda: lora(target_modules=LINEAR, use_rslora=True, rank_pattern={"v_proj": 2})),
    "two layers": ("llama", lambda: lora(target_modules=LINEAR, layers_to_transform=[1, 3])),
    "a layer by pattern": ("llama", lambda: lora(target_modules=LINEAR, layers_to_transform=2, layers_pattern="layers")),
    "excluded": ("llama", lambda: lora(target_modules=LINEAR, exclude_modules=r".*layers\.0\..*")),
    "expression": ("llama", lambda: lora(target_modules=r".*\.(q_proj|up_proj)")),
    "PEFT's own targets": ("llama", lambda: lora()),
    "all-linear": ("llama", lambda: lora(target_modules="all-linear")),
    "biases of LoRA": ("phi", lambda: lora(target_modules=["q_proj", "fc1"], lora_bias=True)),
    "gaussian": ("llama", lambda: lora(target_modules=LINEAR, init_lora_weights="gaussian")),
    "dora": ("llama", lambda: dora(target_modules=LINEAR)),
    "dora, patterns": ("llama", lambda: dora(target_modules=LINEAR, rank_pattern={"v_proj": 2}, alpha_pattern={"q_proj": 9})),
    "dora, all-linear": ("llama", lambda: dora(target_modules="all-linear")),
    "embeddings": ("llama", lambda: lora(target_modules=EMBEDDINGS)),
    "embeddings by expression": ("llama", lambda: lora(target_modules=r".*(embed_tokens|lm_head|o_proj)")),
    "input embedding": ("llama", lambda: lora(target_modules=["embed_tokens"])),
    "head": ("llama", lambda: lora(target_modules=["lm_head", "v_proj"])),
    "dora, embeddings": ("llama", lambda: dora(target_modules=EMBEDDINGS)),
    "embeddings, dropout": ("llama", lambda: lora(target_modules=EMBEDDINGS, lora_dropout=0.5)),
    "embeddings, rank pattern": ("llama", lambda: lora(target_modules=EMBEDDINGS, rank_pattern={"lm_head": 7})),
    "tied embeddings": ("gemma", lambda: lora(target_modules=EMBEDDINGS)),
    "tied, input": ("gemma", lambda: lora(target_modules=["embed_tokens", "q_proj"])),
    "tied, head": ("gemma", lambda: lora(target_modules=["lm_head", "q_proj"])),
    "tied, dora": ("gemma", lambda: dora(target_modules=EMBEDDINGS)),
    "tied, scaled": ("gemma3", lambda: lora(target_modules=EMBEDDINGS)),
    "adapters tied": ("gemma", lambda: lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)),
    "ia3": ("llama", lambda: ia3(target_modules=LINEAR, feedforward_modules=["down_proj"])),
    "ia3, PEFT's own targets": ("llama", lambda: ia3()),
    "ia3, expressions": ("llama", lambda: ia3(target_modules=r".*\.(k_proj|up_proj)", feedforward_modules=r".*up_proj")),
    "ia3, excluded": (
        "llama",
        lambda: ia3(target_modules=LINEAR, feedforward_modules=["down_proj"], exclude_modules=["layers.0.self_attn.q_proj"]),
    ),
    "ia3, head": ("llama", lambda: ia3(target_modules=["lm_head", "k_proj"], feedforward_modules=["lm_head"])),
    "ia3, tied head": ("gemma", lambda: ia3(target_modules=["lm_head", "k_proj"], feedforward_modules=[])),
    "ia3, biases": ("phi", lambda: ia3(target_modules=["q_proj", "fc2"], feedforward_modules=["fc2"])),
    "gpt2": ("gpt2", lambda: lora(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "gpt2, dora": ("gpt2", lambda: dora(target_modules=["c_attn"], fan_in_fan_out=True)),
    "gpt2, all-linear": ("gpt2", lambda: lora(target_modules="all-linear", fan_in_fan_out=True)),
    "gpt2, embeddings": ("gpt2", lambda: lora(target_modules=["wte", "lm_head", "c_attn"], fan_in_fan_out=True)),
    "gpt2, positions": ("gpt2", lambda: lora(target_modules=["wpe", "c_attn"], fan_in_fan_out=True)),
    "gpt2, ia3": (
        "gpt2",
        lambda: ia3(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
    ),
}
# What PEFT says about these configs whoever loads them.
_TOLD_BY_PEFT = (
    "`is_gradient_checkpointing` is deprecated",
    "Already found a `peft_config` attribute",
    "Model has `tie_word_embeddings=True`",
    "Setting `save_embedding_layers` to `True`",
    "fan_in_fan_out is set to ",
    r"Adapter 'default': \d+ LoRA tensor\(s\) have invalid shape",  # the biases of `lora_bias` are no matrices
    "Could not find a config file in ",
)


def base_of(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    if family != "gpt2":
        return tiny_model(family).to(dtype)
    torch.manual_seed(0)
    config = GPT2Config(**SHAPE | {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0})
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval().to(dtype)


def quiet(function):
    """The function without what PEFT tells about itself."""

    @functools.wraps(function)
    def silenced(*args, **kwargs):
        with warnings.catch_warnings():
            for text in _TOLD_BY_PEFT:
                warnings.filterwarnings("ignore", text)
            return function(*args, **kwargs)

    return silenced


@torch.no_grad()
def randomize(model: PeftModel, seed: int = 1) -> PeftModel:
    """Random adapters, small beside the base, that change every layer they are in."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_A", "lora_B", "lora_embedding", "ia3_l")):
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            parameter.copy_(noise + ("ia3_l" in name))
        elif "lora_magnitude" in name:
            parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


@quiet
def write_peft(folder: Path, base: PreTrainedModel, config: PeftConfig, seed: int = 1, save_embedding_layers="auto") -> Path:
    """A folder that PEFT's own save_pretrained wrote for a random adapter on `base`, which is not changed."""
    model = randomize(get_peft_model(deepcopy(base), config), seed)
    model.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
    return folder


@quiet
def read_peft(folder: Path, base: PreTrainedModel) -> PeftModel:
    return PeftModel.from_pretrained(deepcopy(base), folder).eval()


@torch.no_grad()
def peft_scores(model: PreTrainedModel | PeftModel) -> Tensor:
    """Logits [1, answer, vocabulary] that predict ANSWER after PROMPT: one ordinary causal forward."""
    logits = model(input_ids=torch.cat([PROMPT, ANSWER], dim=1)).logits
    return logits[:, PROMPT.shape[1] - 1 : -1]


def peft_answer(model: PreTrainedModel | PeftModel) -> Tensor:
    return greedy(model, input_ids=PROMPT, attention_mask=torch.ones_like(PROMPT), **GREEDY)
