"""Base models: finds the weights, chooses device and dtype, and loads a frozen model with its tokenizer.

Knows no adapter and no Bitune: what leaves here is an ordinary transformers causal LM.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitune.base.default import EMBEDDED, reason
from bitune.base.sources import Weights, resolve_base
from bitune.base.unpacked import unpacked
from bitune.errors import BaseNotFoundError, BituneError, ConfigError, UnknownNameError, UnsupportedModelError

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The names a dtype may be called by, besides `auto`."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
"""A local folder with none of these has no tokenizer."""


@dataclass
class Base:
    """A frozen base model. `id`, `revision` and `sha256` say which weights these are, as a checkpoint records them.

    `model`: eval mode, no parameter requires a gradient, attention is sdpa or eager (both take a 4-D mask).
    `tokenizer`: pads on the left; None for a local folder that has none.
    `revision`: commit on the Hub, else None. `sha256`: of the weights if they are one file that was hashed, else None.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    id: str
    revision: str | None
    sha256: str | None


def load_base(
    source: str | os.PathLike = EMBEDDED.name,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | dict | None = None,
) -> Base:
    """Load a base from a folder, a .gguf file, a Hub id (optionally `id@revision`) or the embedded name.

    `device`: `auto` is cuda, else mps, else cpu. `dtype`: `auto` is bfloat16 on cuda, float16 on mps, float32 on cpu.
    `device_map`: as transformers takes it, `"auto"` to spread a large base over several GPUs; then `device` stays `auto`.
    Raises BaseNotFoundError (no source, or damaged files), UnsupportedModelError (not a causal language model that
    transformers knows), ConfigError or UnknownNameError (a device or dtype that cannot be had). Only safetensors and
    GGUF are read, and no code that comes with a model is run.
    """
    if device_map is not None and str(device) != "auto":
        raise ConfigError(f"device is {str(device)!r} and device_map is {device_map!r}; give one of the two.")
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    weights = resolve_base(source)
    with _told_plainly(weights), _quiet():
        weights = _quicker(weights)
        model = _load_model(weights, dtype, device_map)
        tokenizer = _load_tokenizer(weights)
    if device_map is None:
        try:
            model.to(device)
        except RuntimeError as error:  # most often: out of memory
            raise ConfigError(
                f"{weights.id} does not fit on {device} in {dtype}: {reason(error)}; choose another device."
            ) from error
    return Base(model, tokenizer, weights.id, weights.revision, weights.sha256)


def choose_device(device: str | torch.device) -> torch.device:
    """`auto` is the best device here; a named one is checked to be here. Raises ConfigError."""
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"The device {device!r} is unknown; use auto, cpu, cuda, cuda:N or mps.") from error
    here = {"cpu": True, "cuda": has_cuda, "mps": has_mps}
    if not here.get(chosen.type, False):
        there = ", ".join(name for name, present in here.items() if present)
        raise ConfigError(
            f"The device {str(device)!r} was asked for, but torch {torch.__version__} finds only {there}; use auto."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"The device {str(device)!r} was asked for, but there are {torch.cuda.device_count()} GPUs, from cuda:0 on."
        )
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """`auto` is what runs well on the device; else the dtype of that name. Raises UnknownNameError."""
    if dtype == "auto":
        return {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.type, torch.float32)
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, ["auto", *DTYPES])
    return DTYPES[dtype]


def _quicker(weights: Weights) -> Weights:
    """The same weights in the form that loads fastest: the embedded GGUF file is unpacked once and kept."""
    if weights.gguf is None or weights.sha256 != EMBEDDED.sha256:
        return weights

    def save(folder: Path) -> None:
        _load_model(weights, torch.float32, None).save_pretrained(folder)
        _load_tokenizer(weights).save_pretrained(folder)

    folder = unpacked(save)
    return weights if folder is None else replace(weights, folder=folder, gguf=None)


def _load_model(weights: Weights, dtype: torch.dtype, device_map: str | dict | None) -> PreTrainedModel:
    gguf = {} if weights.gguf is None else {"gguf_file": weights.gguf}
    config = AutoConfig.from_pretrained(weights.folder, trust_remote_code=False, **gguf)
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModelError(
            f"{weights.id} is a {config.model_type!r} model, which transformers cannot run as a causal language model; "
            "choose a decoder-only model."
        )
    if weights.gguf is not None:
        # Packed GGUF weights are not trainable and hide the linears from adapters: unpack them into plain nn.Linear.
        gguf["quantization_config"] = GgufConfig(dequantize=True)
    model, loaded = AutoModelForCausalLM.from_pretrained(
        weights.folder,
        config=config,
        dtype=dtype,
        device_map=device_map,
        attn_implementation=None,  # sdpa where the model can, else eager; overrules what a config.json may ask for
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **gguf,
    )
    if missing := sorted(loaded["missing_keys"]):  # transformers would go on with random numbers
        raise BaseNotFoundError(
            f"The weights of {weights.id} lack {len(missing)} tensors that its config promises, {missing[0]} first; "
            "copy or download them again."
        )
    if model.config._attn_implementation not in ("sdpa", "eager"):  # a model may prefer a kernel that takes no 4-D mask
        model.set_attn_implementation("eager")
    return model.eval().requires_grad_(False)


def _load_tokenizer(weights: Weights) -> PreTrainedTokenizerBase | None:
    if weights.gguf is not None:
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, gguf_file=weights.gguf, trust_remote_code=False)
    elif any((weights.folder / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=False)
    else:
        return None
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextlib.contextmanager
def _told_plainly(weights: Weights) -> Iterator[None]:
    """What loading raises, as one sentence of a BituneError. transformers, tokenizers, safetensors, gguf and accelerate share
    no root for their exceptions, so every Exception is caught here and kept as the cause."""
    place = weights.folder if weights.gguf is None else weights.folder / weights.gguf
    try:
        yield
    except BituneError:
        raise
    except ImportError as error:
        raise BaseNotFoundError(
            f"The base at {place} needs a package that is not installed: {reason(error)}; install it."
        ) from error
    except Exception as error:
        if _is_foreign(str(error)):
            raise UnsupportedModelError(
                f"The base at {place} is of a kind that transformers {transformers.__version__} does not know, and code that "
                f"comes with a model is never run: {reason(error)}; choose a model that transformers has built in."
            ) from error
        raise BaseNotFoundError(
            f"The base at {place} could not be loaded: {reason(error)}; if a file is damaged, copy or download it again."
        ) from error


def _is_foreign(message: str) -> bool:
    """Whether transformers says so that it has no such architecture. It raises a bare ValueError for this, as for all else."""
    signs = (
        "contains custom code",
        "does not recognize this architecture",
        "Should have a `model_type` key",
        "not supported yet",
    )
    return any(sign in message for sign in signs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No advice of transformers while loading, and its bars only on a terminal. Restores both."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hide = bars and not sys.stderr.isatty()
    logging.set_verbosity_error()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if hide:
            logging.enable_progress_bar()
