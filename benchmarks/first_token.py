"""The time to the first token: of Bitune against plain transformers, and of a prompt that was read before."""

import itertools
from collections.abc import Sequence

from transformers import PreTrainedModel

import bitune
from benchmarks.answers import PROMPT, answer
from benchmarks.bases import MORE_CHECKPOINTS, Prompts, open_engine, plain_model
from benchmarks.measures import Measured, Work, in_turn, ratio, seconds, timed
from benchmarks.setting import Setting
from bitune.schema.variants import CAUSAL, MixingRatios, PromptPass, Variant, WhatIf


def plain_first(model: PreTrainedModel, engine: bitune.Engine, prompt: str) -> str:
    """Text to text under plain transformers, one token."""
    encoded = engine.base.tokenizer(prompt, return_tensors="pt").to(model.device)
    ids = encoded["input_ids"]
    new = model.generate(ids, attention_mask=encoded["attention_mask"], max_new_tokens=1, do_sample=False, pad_token_id=0)
    return engine.base.tokenizer.decode(new[0, ids.shape[1] :])


def against_plain(
    setting: Setting, engine: bitune.Engine, model: PreTrainedModel, lengths: Sequence[int]
) -> dict[int, dict[str, list[float]]]:
    """Seconds to the first token of Bitune, of its causal reading alone and of plain transformers, by length of the prompt."""
    prompts = Prompts(engine.base.tokenizer)
    adapter = engine.variants["bitune"].answer_adapter
    engine.add_variant("one reading", Variant((PromptPass(adapter, CAUSAL),), None, adapter))
    times = {}
    for length in lengths:
        tokens = setting.tokens(length)

        def ours(name: str, tokens: int = tokens) -> Work:
            return timed(lambda: answer(engine, prompts.new(tokens), [name], 1))

        def plain(tokens: int = tokens) -> float:
            return seconds(lambda: plain_first(model, engine, prompts.new(tokens)))

        works = {"plain": plain, "bitune": ours("bitune"), "one reading": ours("one reading")}
        is_long = length > 1000 and setting.device == "cpu"  # a round takes half a minute on two cores
        if is_long:
            del works["one reading"]
        times[length] = in_turn(works, setting.few if is_long else setting.rounds, warm_up=not is_long)
    return times


def first_token(setting: Setting) -> dict[str, Measured]:
    """Prompts of three lengths; and both readings of one against the causal one."""
    times = against_plain(setting, open_engine(setting, ["bitune"]), plain_model(setting), (77, 256, 1800))
    figures = {f"first-token-{length}": ratio(of["bitune"], of["plain"]) for length, of in times.items()}
    return figures | {"readings": ratio(times[256]["bitune"], times[256]["one reading"])}


def from_memory(setting: Setting) -> dict[str, Measured]:
    """A new prompt, then the same one again with another seed, with other ratios, and in the tab Attention."""
    engine = open_engine(setting, ["bitune"])
    prompts, seeds = Prompts(engine.base.tokenizer), itertools.count(1)
    question = {"other ratios": WhatIf("bitune", MixingRatios.constant(engine.base_facts.layers, 0.3))}
    prompt = ""

    def new() -> float:
        nonlocal prompt
        prompt = prompts.new(setting.tokens(PROMPT))
        return seconds(lambda: answer(engine, prompt, ["bitune"], 1))

    works = {
        "new": new,
        "rerun": timed(lambda: answer(engine, prompt, ["bitune"], 1, temperature=1.0, seed=next(seeds))),
        "what-if": timed(lambda: answer(engine, prompt, list(question), 1, what_ifs=question)),
        "attention": timed(lambda: engine.attention(prompt, "bitune", layers=[0], template="none")),
    }
    times = in_turn(works, setting.rounds)
    return {name: ratio(times[name], times["new"]) for name in ("rerun", "what-if", "attention")}


def large(setting: Setting) -> dict[str, Measured]:
    """What is asked of large bases on a GPU: three lengths of prompt, and eight variants together."""
    engine, tokens = open_engine(setting, list(MORE_CHECKPOINTS)), setting.tokens(24)
    times = against_plain(setting, engine, plain_model(setting), (32, 256, 2000))
    prompts, eight = Prompts(engine.base.tokenizer), ["base", *MORE_CHECKPOINTS]
    works = {
        "one": timed(lambda: answer(engine, prompts.new(setting.tokens(256)), ["bitune"], tokens)),
        "eight": timed(lambda: answer(engine, prompts.new(setting.tokens(256)), eight, tokens)),
    }
    answers = in_turn(works, setting.rounds)
    figures = {f"large-{length}": ratio(of["bitune"], of["plain"]) for length, of in times.items()}
    return figures | {"eight": ratio(answers["eight"], answers["one"])}
