"""Stands in for the package `spaces` on a ZeroGPU Space, without its hardware: `GPU` and the workers behind it, as of 0.51.

As there: a call of a decorated generator function goes to a forked process; arguments and whatever is yielded are pickled; an error
comes back as gr.Error with the name of its class; closing is noticed at the next value; from the launch of a page on its process
cannot run a model. Stricter than there: no worker is used twice, so nothing that one keeps is found again.
Each call leaves a line in the file $STAND_IN_LOG.
"""

import inspect
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from pathlib import Path

import gradio as gr
import torch
from gradio.context import LocalContext

from tests.hosting.workers import Call, in_worker

_page = os.getpid()
_decorated: list[Callable] = []
_launch = gr.Blocks.launch


def GPU(task: Callable[..., Iterator], *, duration: Callable[..., int]) -> Callable[..., Iterator]:
    """The decorator, with the arguments that the page gives it."""
    assert inspect.isgeneratorfunction(task), "only generators are stood in for"

    @wraps(task)
    def run(*arguments: object, **named: object) -> Iterator:
        call = Call(duration(*arguments, **named), known=LocalContext.request.get(None) is not None)
        try:
            yield from in_worker(task, call, arguments, named)
        finally:
            with Path(os.environ["STAND_IN_LOG"]).open("a") as log:
                log.write(json.dumps(asdict(call)) + "\n")

    _decorated.append(task)
    return run


def _refuse(module: torch.nn.Module, arguments: tuple) -> None:
    if os.getpid() == _page:
        raise RuntimeError("The model was run in the page's own process, which has no GPU on ZeroGPU.")


def _one_launch(*arguments: object, **named: object):
    assert _decorated, "a ZeroGPU Space without a decorated function does not start"
    torch.nn.modules.module.register_module_forward_pre_hook(_refuse)
    gr.Blocks.launch = _launch
    return _launch(*arguments, **named)


gr.Blocks.launch = _one_launch
