"""Which device a base runs on, and in which dtype."""

import torch

from bitune.errors import ConfigError, UnknownNameError

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
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
        dtype: `auto` for bfloat16 on cuda, float16 on mps, float32 on cpu; or one of DTYPES, by name or as torch has it.
        device: where it will run.

    Raises:
        UnknownNameError: it is none of DTYPES.
    """
    if dtype == "auto":
        return {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.type, torch.float32)
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, ["auto", *DTYPES])
    return DTYPES[dtype]
