"""Loads a base: a frozen causal language model with its tokenizer.

Knows no adapter and no Bitune: what leaves here is an ordinary transformers causal LM.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bitune.base.checks import check_files, check_gguf_layers
from bitune.base.default import EMBEDDED
from bitune.base.dequantized import dequantized_default, kept_default
from bitune.base.devices import choose_device, choose_dtype
from bitune.base.failures import GGUF_FAILURES, MODEL_FAILURES, TOKENIZER_FAILURES, load_errors, move_errors
from bitune.base.fingerprint import fingerprint
from bitune.base.sources import Weights, resolve_base
from bitune.errors import BaseNotFoundError, ConfigError, UnsupportedModelError
from bitune.modeling.int8 import round_weights
from bitune.modeling.interface import takes_masks, vocabulary_size
from bitune.progress import doing

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
"""A local folder with none of these has no tokenizer."""


@dataclass
class Base:
    """A frozen base model, and which weights these are, as a checkpoint records it.

    Args:
        model: in eval mode; no parameter requires a gradient; attention is sdpa or eager, which both take a 4-D mask.
        tokenizer: pads on the left; None for a local folder that has none.
        id: Hub id, embedded name, or the bare name of a local folder or file.
        revision: commit on the Hub, else None.
        sha256: of the weights if they are one file that was hashed, else None.
        unrounded: fingerprint of the weights before they were rounded to 8 bits; None where they were not.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    id: str
    revision: str | None
    sha256: str | None
    unrounded: tuple[float, ...] | None = None

    @property
    def dtype(self) -> str:
        """What its linear layers' weights are kept in: `int8`, or the dtype of the model by torch's name."""
        return str(self.model.dtype).removeprefix("torch.") if self.unrounded is None else "int8"


def load_base(
    source: str | os.PathLike = EMBEDDED.name,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | dict | None = None,
) -> Base:
    """Load a base. Only safetensors and GGUF are read, and no code that comes with a model is run.

    Args:
        source: a folder, a .gguf file, a Hub id with an optional revision (`user/name@revision`), or the embedded name.
        device: `auto` for cuda, else mps, else cpu; or one by name.
        dtype: `auto` for bfloat16 on cuda, float16 on mps, what is faster of float32 and bfloat16 on a cpu; or one by name.
            `int8` on a CPU: the model is in float32, with the weights of its linear layers rounded to 8 bits, and an Engine keeps them so.
        device_map: as transformers takes it, `"auto"` to spread a large base over several GPUs; then `device` stays `auto`.

    Raises:
        BaseNotFoundError: there is no such source, or its files are damaged.
        UnsupportedModelError: it is no causal language model that transformers knows.
        ConfigError, UnknownNameError: the device or dtype cannot be had, or the base does not fit into its memory.
    """
    if device_map is not None and str(device) != "auto":
        raise ConfigError(f"device is {str(device)!r} and device_map is {device_map!r}; give one of the two.")
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    is_int8 = dtype == torch.int8
    if is_int8 and device_map is not None:
        raise ConfigError(f"The dtype is int8 and device_map is {device_map!r}; give one of the two.")
    dtype = torch.float32 if is_int8 else dtype
    with doing(f"Loading the base {os.fspath(source)}"), quiet():
        weights = _found(source)
        if weights.gguf is None:
            check_files(weights.folder)
        model = _load_model(weights, dtype, device_map)
        tokenizer = _load_tokenizer(weights)
    _pad_inside(model, tokenizer)
    if device_map is None:
        with move_errors(weights, device, dtype):
            model.to(device)
    return Base(model, tokenizer, weights.id, weights.revision, weights.sha256, _round(model, weights) if is_int8 else None)


def _round(model: PreTrainedModel, weights: Weights) -> tuple[float, ...]:
    """Round what 8 bits hold, in place; the fingerprint of what was there."""
    before = fingerprint(model)
    if not round_weights(model):
        raise UnsupportedModelError(
            f"{weights.id} is a {model.config.model_type!r} model without torch's linear layers, which alone are kept in int8; load it "
            "in another dtype."
        )
    return before


def _found(source: str | os.PathLike) -> Weights:
    """The files of a base, of the embedded default those that load fastest: from its unpacked copy nothing else is needed."""
    if os.fspath(source) == EMBEDDED.name and (folder := kept_default()) is not None:
        return Weights(EMBEDDED.name, folder, sha256=EMBEDDED.sha256)
    return _dequantized(resolve_base(source))


def _dequantized(weights: Weights) -> Weights:
    """The embedded default in the form that loads fastest; any other weights as they are."""
    if weights.gguf is None or weights.sha256 != EMBEDDED.sha256:
        return weights

    def save(folder: Path) -> None:
        _load_model(weights, torch.float32, None).save_pretrained(folder)
        _load_tokenizer(weights).save_pretrained(folder)

    folder = dequantized_default(save)
    return weights if folder is None else replace(weights, folder=folder, gguf=None)


def _load_model(weights: Weights, dtype: torch.dtype, device_map: str | dict | None) -> PreTrainedModel:
    with load_errors(weights, MODEL_FAILURES if weights.gguf is None else GGUF_FAILURES):
        model = _read_model(weights, dtype, device_map)
    if not takes_masks(model):  # a model may prefer a kernel that takes no 4-D mask
        model.set_attn_implementation("eager")
    return model.eval().requires_grad_(False)


def _read_model(weights: Weights, dtype: torch.dtype, device_map: str | dict | None) -> PreTrainedModel:
    config, gguf = read_config(weights), {}
    if weights.gguf is not None:
        gguf["gguf_file"] = weights.gguf
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
    return model


def read_config(weights: Weights) -> PreTrainedConfig:
    """The config of a base that a model can be built from.

    Raises:
        UnsupportedModelError: transformers runs no causal language model with it.
        BaseNotFoundError: it promises more layers than a GGUF file has tensors; of a folder `check_files` says that.
    """
    gguf = {} if weights.gguf is None else {"gguf_file": weights.gguf}
    config = AutoConfig.from_pretrained(weights.folder, trust_remote_code=False, **gguf)
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModelError(
            f"{weights.id} is a {config.model_type!r} model, which transformers cannot run as a causal language model; "
            "choose a decoder-only model."
        )
    if weights.gguf is not None:
        check_gguf_layers(weights.folder / weights.gguf, config.get_text_config(decoder=True).num_hidden_layers)
    return config


def _load_tokenizer(weights: Weights) -> PreTrainedTokenizerBase | None:
    if weights.gguf is None and not any((weights.folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    gguf = {} if weights.gguf is None else {"gguf_file": weights.gguf}
    with load_errors(weights, TOKENIZER_FAILURES):
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=False, **gguf)
    tokenizer.padding_side = "left"
    return tokenizer


def _pad_inside(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Make tokenizer and model pad with a token that the embedding has: whatever stands there is looked up, though nobody sees it.

    Many bases have none, or -1, or a token that was added to the tokenizer alone.
    """
    rows = vocabulary_size(model)

    def is_inside(token: int | None) -> bool:
        return token is not None and 0 <= token < rows

    if not is_inside(model.generation_config.pad_token_id):
        model.generation_config.pad_token_id = None  # then `generate` takes the end token
    if tokenizer is not None and not is_inside(tokenizer.pad_token_id):
        others = [tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, 0]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(next(filter(is_inside, others)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No advice and no bars of transformers while loading: progress.py has a line for it. Restores both."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
