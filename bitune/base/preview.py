"""What can be told of a base before its weights are read or downloaded: whether it can run Bitune, and how large it is.

For whoever has something to lose by a base that does not load after all, such as the one that is loaded.
"""

import math
import os
import sys
from dataclasses import dataclass

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from bitune.base.checks import check_files
from bitune.base.default import EMBEDDED
from bitune.base.dequantized import kept_default
from bitune.base.failures import GGUF_FAILURES, MODEL_FAILURES, load_errors
from bitune.base.loading import quiet, read_config
from bitune.base.local import Weights, check_base, weight_files
from bitune.base.sources import delivered, fetch_base, hub_config, hub_name, no_safetensors
from bitune.errors import BaseNotFoundError
from bitune.files import read_header
from bitune.hub import is_on_hub, sizes_on_hub
from bitune.modeling.interface import attention_implementation
from bitune.modeling.layout import read_layout
from bitune.progress import doing


@dataclass(frozen=True)
class Preview:
    """A base that has not been loaded.

    Args:
        weights: its files; of one on the Hub perhaps the config and the tokenizer alone.
        numbers: how many its weights hold, by the headers of their files.
        commit: how `fetch_base` names exactly these files.
    """

    weights: Weights
    numbers: int
    commit: str


def preview(source: str | os.PathLike) -> Preview:
    """Look at a base. Of one on the Hub only what is small is downloaded, of the embedded default everything.

    Raises:
        BaseNotFoundError: there is no such base, or its files are damaged, as far as they were read.
        UnsupportedModelError: its config tells that it cannot run Bitune. What only a forward tells, loading finds.
    """
    weights, commit = check_base(source), os.fspath(source)
    if weights is None and commit == EMBEDDED.name:
        kept = kept_default()
        weights = fetch_base(source) if kept is None else Weights(EMBEDDED.name, kept, sha256=EMBEDDED.sha256)
    if weights is None:
        repository, revision = hub_name(commit)
        folder = hub_config(repository, revision)
        weights, commit = Weights(repository, folder, revision=folder.name), f"{repository}@{folder.name}"
    if weights.gguf is not None:
        numbers = _numbers_of_gguf(weights)
    else:
        tensors, numbers = _sizes(weights)
        check_files(weights.folder, tensors)
    _check_kind(weights)
    return Preview(weights, numbers, commit)


def _sizes(weights: Weights) -> tuple[int, int]:
    """How many tensors and numbers there are in all files with weights of a folder; the Hub is asked for those that are not here."""
    sizes = [_sizes_of(weights, name) for name in weight_files(weights.folder) or ["model.safetensors"]]
    return sum(tensors for tensors, _ in sizes), sum(numbers for _, numbers in sizes)


def _sizes_of(weights: Weights, name: str) -> tuple[int, int]:
    if (weights.folder / name).is_file():
        tensors = read_header(weights.folder / name, sys.maxsize, BaseNotFoundError).tensors
        return len(tensors), sum(math.prod(tensor.shape) for tensor in tensors.values())
    with delivered(weights.id, weights.revision):
        if not is_on_hub(weights.id, name, weights.revision):
            raise no_safetensors(weights.id)
        return sizes_on_hub(weights.id, name, weights.revision)


def _numbers_of_gguf(weights: Weights) -> int:
    """Of a GGUF file, however many bits each number has there."""
    with doing(f"Reading the header of {weights.gguf}"), load_errors(weights, GGUF_FAILURES):
        return sum(int(tensor.n_elements) for tensor in GGUFReader(weights.folder / weights.gguf).tensors)


def _check_kind(weights: Weights) -> None:
    """UnsupportedModelError for a family that cannot run Bitune: the model is built without memory for its weights."""
    with quiet(), load_errors(weights, MODEL_FAILURES if weights.gguf is None else GGUF_FAILURES):
        config = read_config(weights)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    read_layout(model)
    attention_implementation(model)
