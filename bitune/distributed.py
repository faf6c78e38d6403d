"""The processes of `accelerate launch`: which one this is, and how they share a list. A process alone shares with itself.

torch and accelerate are imported where there are several: a command that asks which process it is answers before that.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def count() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the one process that prints and saves."""
    return int(os.environ.get("RANK", 0)) == 0


def is_sharded() -> bool:
    """Whether they train in shards: FSDP in accelerate's config."""
    if count() == 1:
        return False
    from accelerate.utils import parse_flag_from_env

    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def meet() -> None:
    """Let the processes find each other, before weights are loaded: from here on "cuda" is this one's own device."""
    if count() > 1:
        _state()


def _state() -> "PartialState":
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Asked for nothing, accelerate looks for accelerators only, and processes without one would not know of each other.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`: the processes take turns.

    accelerate's `split_between_processes` cuts a list in blocks: of batches sorted by length one process would get all long ones.
    """
    return items if count() == 1 else items[_state().process_index :: count()]


def gather(values: list[T]) -> list[T]:
    """The values of all processes, in every one of them."""
    if count() == 1:
        return values
    from accelerate.utils import gather_object

    meet()
    return gather_object(values)


def leave() -> None:
    """Take leave of the other processes when all is done; left to the interpreter's end, gloo's threads can abort it."""
    if count() > 1:
        _state().wait_for_everyone()
        _state().destroy_process_group()
