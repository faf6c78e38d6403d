"""A short name for the weights of a checkpoint: two that answer differently have different ones, wherever they lie and whatever they are called."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLED_VALUES = 256
"""Of each tensor, evenly spread: training moves all of them, and gigabytes are told apart at once."""


def fingerprint(said: Iterable[str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash.

    Args:
        said: What is told of a checkpoint in words.
        tensors: Its weights by name, in an order of their own; of each count the name, the shape and SAMPLED_VALUES values.

    Returns:
        16 hexadecimal digits, the same on every device.
    """
    found = hashlib.sha256("\n".join(said).encode())
    for name, tensor in tensors:
        flat = tensor.detach().flatten()
        step = max(1, -(-flat.numel() // SAMPLED_VALUES))
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(flat[::step].to("cpu", torch.float32).numpy().tobytes())
    return found.hexdigest()[:16]
