"""python -m bitune in one of several processes that train in shards over the CPU.

accelerate's own FSDP 2, over gloo. Only what accelerate thinks of the processes is changed: on a CPU it would leave FSDP out without a
word, and run the same command with whole copies.
"""

import sys

from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from bitune import cli, distributed
from bitune.training import sharded


def as_on_devices(state: PartialState, *arguments, find_out=PartialState.__init__, **named) -> None:
    find_out(state, *arguments, **named)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def keep_whole(model, keep=sharded.keep_whole) -> None:
    units = sum(isinstance(module, FSDPModule) for module in model.modules())
    if distributed.is_main():
        print(f"trained in {units} units")
    keep(model)


if __name__ == "__main__":
    PartialState.__init__ = as_on_devices
    sharded.keep_whole = keep_whole
    sys.exit(cli.main())
