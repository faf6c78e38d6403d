"""The memory of the base with checkpoints against the base under plain transformers, each in processes of its own."""

import multiprocessing
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.answers import PROMPT, answer, plain_step
from benchmarks.bases import Prompts, open_engine, plain_model
from benchmarks.measures import Measured, in_turn, ratio, resident
from benchmarks.setting import Setting


def held(setting: Setting) -> int:
    """Bytes that the model takes now: on a GPU there, else the whole process."""
    return torch.cuda.memory_allocated() if setting.device.startswith("cuda") else resident()


def of_plain(setting: Setting) -> int:
    """After an answer of plain transformers."""
    torch.set_num_threads(setting.threads)
    model = plain_model(setting)
    plain_step(model, range(setting.tokens(PROMPT)), setting.tokens(24))
    return held(setting)


def of_engine(setting: Setting) -> int:
    """After an answer of the base and its four checkpoints."""
    torch.set_num_threads(setting.threads)
    engine = open_engine(setting)
    answer(engine, Prompts(engine.base.tokenizer).new(setting.tokens(PROMPT)), list(engine.variants), setting.tokens(24))
    return held(setting)


def of_full_memory(setting: Setting) -> int:
    """The same, once the prompts that it remembers take all that they may."""
    torch.set_num_threads(setting.threads)
    engine = open_engine(setting)
    prompts, passes = Prompts(engine.base.tokenizer), engine.manager.passes
    while True:
        before = passes.nbytes
        answer(engine, prompts.new(setting.tokens(256)), list(engine.variants), setting.tokens(2))
        if passes.nbytes <= before:  # what is new takes the place of what was there
            return held(setting)


def alone(work: Callable[[Setting], int], setting: Setting) -> float:
    """What `work` returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(work, (setting,)))


def resident_sets(setting: Setting) -> dict[str, Measured]:
    """Two processes of each, as sizes hardly differ."""
    works = {"plain": of_plain, "engine": of_engine, "full": of_full_memory}
    sizes = in_turn({name: partial(alone, work, setting) for name, work in works.items()}, min(setting.rounds, 2), warm_up=False)
    return {"memory": ratio(sizes["engine"], sizes["plain"]), "memory-passes": ratio(sizes["full"], sizes["plain"])}
