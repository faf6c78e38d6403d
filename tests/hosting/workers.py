"""Runs a generator function in a process of its own, as the workers of ZeroGPU do: everything that goes in or comes out is pickled."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import gradio as gr

_fork = multiprocessing.get_context("fork")


@dataclass
class Call:
    """One call and how it went: the seconds asked for, values that came, `end`, `closed`, an error's class or `aborted`; its process.

    `known`: whether the visitor's request is known where the call is made, as ZeroGPU takes the visitor's share of it from there.
    """

    seconds: int
    known: bool = False
    values: int = 0
    ended: str = "closed"
    worker: int | None = None


def in_worker(task: Callable[..., Iterator], call: Call, arguments: tuple, named: dict) -> Iterator:
    """What `task` yields in a new process, which ends with it. Closing this is noticed there at the next value."""
    here, there = _fork.Pipe()
    stop = _fork.Event()
    worker = _fork.Process(target=_serve, args=(task, here, there, stop), daemon=True)
    worker.start()
    there.close()
    call.worker, kind = worker.pid, "value"
    try:
        here.send((arguments, named))
        while True:
            kind, value = _received(here)
            if kind != "value":
                break
            call.values += 1
            yield value
        call.ended = value if kind == "error" else kind
        if kind != "end":
            raise gr.Error(value, title="ZeroGPU worker error", print_exception=False)
    finally:
        stop.set()
        while kind == "value":
            kind, _ = _received(here)
        worker.join()
        here.close()


def _received(connection) -> tuple[str, object]:
    try:
        return connection.recv()
    except EOFError:
        return "aborted", "GPU task aborted"


def _serve(task: Callable[..., Iterator], here, there, stop) -> None:
    here.close()
    arguments, named = there.recv()
    with ThreadPoolExecutor(1) as thread:  # not in the thread that was forked, which may have used OpenMP
        thread.submit(_run, task, arguments, named, there, stop).result()


def _run(task: Callable[..., Iterator], arguments: tuple, named: dict, there, stop) -> None:
    running = task(*arguments, **named)
    try:
        for value in running:
            if stop.is_set():
                running.close()
                break
            there.send(("value", value))
        there.send(("end", None))
    except Exception as error:
        traceback.print_exc()
        there.send(("error", type(error).__name__))
