"""From causal only over the learned ratios to bidirectional only: what a mixing variant says on the way.

Knows an engine; every factor is a what-if, so all of them are rows of one batch over the same two prompt passes.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing

from bitune.errors import ConfigError, UnknownNameError
from bitune.inference.engine import Engine
from bitune.schema.results import SweepPoint
from bitune.schema.variants import WhatIf

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def sweep(
    engine: Engine,
    prompt: str,
    variant: str,
    factors: Sequence[float] = FACTORS,
    *,
    template: str = "own",
    max_new_tokens: int = 32,
) -> list[SweepPoint]:
    """Greedy answers of `variant` with its ratios scaled by each factor (MixingRatios.scaled), and the log-probability that
    each gives to the answer of the learned ratios.

    Raises what Engine.stream raises; ConfigError for a variant that mixes nothing, or no factor.
    """
    *_, points = stream_sweep(engine, prompt, variant, factors, template=template, max_new_tokens=max_new_tokens)
    return points


def stream_sweep(
    engine: Engine,
    prompt: str,
    variant: str,
    factors: Sequence[float] = FACTORS,
    *,
    template: str = "own",
    max_new_tokens: int = 32,
) -> Iterator[list[SweepPoint]]:
    """What `sweep` returns while it comes about: the answers so far, without log-probabilities, and at last all of it.

    Closing the iterator cancels.
    """
    if not factors:
        raise ConfigError("No factor is given; a sweep needs at least one between 0 and 2.")
    learned = engine.mixing(variant)
    what_ifs = {f"{variant} scaled, {index}": WhatIf(variant, learned.scaled(factor)) for index, factor in enumerate(factors)}
    checkpoint = engine.variants[variant]
    updates = engine.stream(prompt, [variant, *what_ifs], template=template, max_new_tokens=max_new_tokens, what_ifs=what_ifs)
    with closing(updates):
        for last in updates:
            yield [SweepPoint(factor, last[name], None) for factor, name in zip(factors, what_ifs, strict=True)]
    answer = last[variant].token_ids
    if engine.variants.get(variant) is not checkpoint:  # another one of this name would be asked about this one's answer
        raise UnknownNameError("variant", variant, engine.variants)
    scores = engine.log_probabilities(prompt, list(what_ifs), answer, template=template, what_ifs=what_ifs)
    yield [SweepPoint(factor, last[name], scores[name]) for factor, name in zip(factors, what_ifs, strict=True)]
