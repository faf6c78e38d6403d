"""From causal only over the learned ratios to bidirectional only: what a mixing variant says on the way.

Knows an engine; every factor is a what-if, so all of them are rows of one batch over the same two prompt passes.
"""

from collections.abc import Sequence

from bitune.engine import Engine
from bitune.errors import ConfigError
from bitune.evaluation import Question, score
from bitune.results import SweepPoint
from bitune.variants import WhatIf

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
    if not factors:
        raise ConfigError("No factor is given; a sweep needs at least one between 0 and 2.")
    learned = engine.mixing(variant)
    what_ifs = {f"{variant} x {factor:g}": WhatIf(variant, learned.scaled(factor)) for factor in factors}
    names = [variant, *what_ifs]
    *_, last = engine.stream(prompt, names, template=template, max_new_tokens=max_new_tokens, what_ifs=what_ifs)
    answer = engine.base.tokenizer(last[variant].text, add_special_tokens=False).input_ids
    tokens = engine.prompt_ids(prompt, variant, template=template)
    variants = {name: engine.variants[variant].with_mixing(question.mixing) for name, question in what_ifs.items()}
    scores = dict.fromkeys(variants, 0.0)
    if answer:
        rows = score(engine.host, variants, [Question(tokens, [answer], 0)])
        scores = {name: row[0][0] for name, row in rows.items()}
    return [SweepPoint(factor, last[name], scores[name]) for factor, name in zip(factors, what_ifs, strict=True)]
