"""Answers of several variants: together against one after the other, a decode step, a sweep, and the end of a long answer."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

import bitune
from benchmarks.bases import Prompts, open_engine, plain_model
from benchmarks.measures import Measured, in_turn, ratio, seconds, timed
from benchmarks.setting import Setting
from bitune.inference.sweep import sweep
from bitune.schema.results import Update

PROMPT = 77


def answer(engine: bitune.Engine, prompt: str, variants: Sequence[str], tokens: int, **settings: object) -> Update:
    """What these variants say to a prompt in so many tokens."""
    *_, last = engine.stream(prompt, variants, template="none", max_new_tokens=tokens, **settings)
    lengths = {completion.tokens for completion in last.completions.values()}
    if lengths != {tokens}:
        raise RuntimeError(f"The answers have {sorted(lengths)} tokens in place of {tokens}; their times cannot be compared.")
    return last


def together(setting: Setting) -> dict[str, Measured]:
    """Three variants in one batch, and one after the other."""
    names, tokens = ("base", "bitune", "lora"), setting.tokens(24)
    engine = open_engine(setting, names[1:])
    prompts = Prompts(engine.base.tokenizer)

    def run(*batches: Sequence[str]) -> float:
        prompt = prompts.new(setting.tokens(PROMPT))
        return seconds(lambda: [answer(engine, prompt, batch, tokens) for batch in batches])

    works = {"in turn": lambda: run(*([name] for name in names)), "together": lambda: run(names)}
    times = in_turn(works, setting.rounds)
    return {"together": ratio(times["together"], times["in turn"])}


class Clock(BaseStreamer):
    """When each token of transformers' `generate` came."""

    def __init__(self):
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """The prompt comes first, then a token at a time."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is shown."""


def plain_step(model: PreTrainedModel, ids: Sequence[int], tokens: int) -> float:
    """Seconds of a decode step of plain transformers, mean from the first new token to the last."""
    clock, prompt = Clock(), torch.tensor([list(ids)], device=model.device)
    model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False, pad_token_id=0, streamer=clock
    )
    return (clock.times[-1] - clock.times[1]) / (tokens - 1)


def step(setting: Setting) -> dict[str, Measured]:
    """A step of five variants, and of Bitune alone, against plain transformers."""
    engine, model, tokens = open_engine(setting), plain_model(setting), setting.tokens(24)
    prompts = Prompts(engine.base.tokenizer)

    def ours(*names: str) -> float:
        last = answer(engine, prompts.new(setting.tokens(PROMPT)), names, tokens)
        return max(1 / last[name].tokens_per_second for name in names)

    def plain() -> float:
        ids = engine.prompt_ids(prompts.new(setting.tokens(PROMPT)), "base", template="none")
        return plain_step(model, ids, tokens)

    works = {"plain": plain, "five": lambda: ours(*engine.variants), "bitune": lambda: ours("bitune")}
    times = in_turn(works, setting.rounds)
    return {f"step-{name}": ratio(times[name], times["plain"]) for name in ("five", "bitune")}


def nine_factors(setting: Setting) -> dict[str, Measured]:
    """A sweep against one answer."""
    engine, tokens = open_engine(setting, ["bitune"]), setting.tokens(32)
    prompts = Prompts(engine.base.tokenizer)

    def new() -> str:
        return prompts.new(setting.tokens(PROMPT))

    works = {
        "one": timed(lambda: answer(engine, new(), ["bitune"], tokens)),
        "nine": timed(lambda: sweep(engine, new(), "bitune", template="none", max_new_tokens=tokens)),
    }
    times = in_turn(works, setting.few)
    return {"sweep": ratio(times["nine"], times["one"])}


def lengths_of(setting: Setting) -> tuple[int, int]:
    """Tokens of a long answer, and how many at either end are compared."""
    return (192, 64) if setting.quick else (512, 64)  # fewer come in one update on a tiny base


def last_and_first(arrivals: Sequence[tuple[float, int]], tokens: int, part: int) -> tuple[float, float]:
    """Seconds of the last tokens and of the first ones after the very first.

    Args:
        arrivals: (seconds, tokens so far), one or more for each update; between two updates tokens come evenly.
        tokens: Of the whole answer.
        part: How many at either end.
    """
    reached: dict[int, float] = {}
    for at, count in arrivals:
        reached.setdefault(count, at)
    begun, past_first, before_last, ended = np.interp([1, 1 + part, tokens - part, tokens], [*reached], [*reached.values()])
    return float(ended - before_last), float(past_first - begun)


def long_answer(setting: Setting) -> dict[str, Measured]:
    """The last 64 tokens of a long answer against the first 64, as the updates of one request bring them."""
    engine, (tokens, part) = open_engine(setting, ["bitune"]), lengths_of(setting)
    prompts, pairs = Prompts(engine.base.tokenizer), []
    answer(engine, prompts.new(setting.tokens(PROMPT)), ["bitune"], part)
    for _ in range(min(setting.rounds, 2)):
        prompt = prompts.new(setting.tokens(PROMPT))
        updates = engine.stream(prompt, ["bitune"], template="none", max_new_tokens=tokens)
        pairs.append(last_and_first([(time.perf_counter(), update["bitune"].tokens) for update in updates], tokens, part))
    return {"long-answer": ratio(*zip(*pairs, strict=True))}
