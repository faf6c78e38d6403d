"""Which device a base runs on, and in which dtype."""

import functools
from time import perf_counter

import torch
import torch.nn.functional as F

from bitune.errors import ConfigError, UnknownNameError
from bitune.modeling.packed import can_multiply

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The names a dtype may be called by, besides `auto`."""


def choose_device(device: str | torch.device) -> torch.device:
    """The device to run on.

    Args:
        device: `auto` for cuda, else mps, else cpu; or one by name.

    Raises:
        ConfigError: torch does not know the name, or this computer has no such device.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"The device {device!r} is unknown; use auto, cpu, cuda, cuda:N or mps.") from error
    available = {"cpu": True, "cuda": has_cuda, "mps": has_mps}
    if not available.get(chosen.type, False):
        names = ", ".join(name for name, present in available.items() if present)
        raise ConfigError(
            f"The device {str(device)!r} was asked for, but torch {torch.__version__} finds only {names}; use auto."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"The device {str(device)!r} was asked for, but there are {torch.cuda.device_count()} GPUs, from cuda:0 on."
        )
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype to run in.

    Args:
        dtype: `auto` for bfloat16 on cuda, float16 on mps, on a CPU float32, or bfloat16 where it multiplies that natively and a few
            milliseconds of products show that it is faster; or one of DTYPES, by name or as torch has it.
        device: where it will run.

    Raises:
        UnknownNameError: it is none of DTYPES.
        ConfigError: it is int8, and the device no CPU.
    """
    if dtype == "auto":
        return {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.type) or fastest_on_cpu()
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, ["auto", *DTYPES])
    if dtype == "int8" and device.type != "cpu":
        raise ConfigError(f"The dtype 'int8' runs on a CPU and the base goes to {device}; use bfloat16 there, or the device cpu.")
    return DTYPES[dtype]


_ROWS = (1, 64)  # of a decoding step, and of a prompt
_WIDTH = 1024  # of a layer; a weight of this size is read from memory, as in a model
_GAIN = 1.2  # what bfloat16 must bring at both: below, the same computer would decide now so, now so


@functools.cache
def fastest_on_cpu() -> torch.dtype:
    """bfloat16 where this CPU has products of it and is clearly faster with them, else float32; found out once a process."""
    if not can_multiply(torch.bfloat16):
        return torch.float32
    gains = [_seconds(torch.float32, rows) / _seconds(torch.bfloat16, rows) for rows in _ROWS]
    return torch.bfloat16 if min(gains) >= _GAIN else torch.float32


@torch.inference_mode()
def _seconds(dtype: torch.dtype, rows: int) -> float:
    """The shortest of a few products of `rows` rows, in seconds."""
    inputs, weight, taken = torch.ones(rows, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype), []
    for _ in range(6):  # the first one is slower
        start = perf_counter()
        F.linear(inputs, weight)
        taken.append(perf_counter() - start)
    return min(taken)
