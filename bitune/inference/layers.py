"""Which layers' mixing, and which prompt tokens' second reading, an answer depends on; and what it would have become layer after layer.

Knows an engine. Prompt passes are remembered, so that a prompt that was answered is not read again.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from bitune.errors import ConfigError, PromptError, shown
from bitune.inference.engine import Engine
from bitune.inference.request import NO_WHAT_IFS, Request, ratios_of
from bitune.model.effects import Mix, changes_by_mix
from bitune.model.lens import layer_logits
from bitune.model.limits import check_given_answer
from bitune.model.prefill import Row
from bitune.schema.conversation import RECOMPUTE, Turn
from bitune.schema.layers import Guess, LayerEffects, LayerReading, MixingEffects
from bitune.schema.variants import MixingRatios, WhatIf

GUESSES = 5
"""How many of the likeliest tokens are kept after each layer."""


def stream_mixing_effects(
    engine: Engine,
    prompt: str,
    variant: str,
    answer: Sequence[int],
    *,
    template: str = "own",
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    history: Sequence[Turn] = (),
    earlier: str = RECOMPUTE,
) -> Iterator[MixingEffects]:
    """What becomes of the log-probability of an answer when one layer, or one prompt token, is mixed otherwise, while it is measured.

    Each change is a row of a batch over the same two prompt passes. A turn on the base takes so many rows as memory and other requests
    allow, and between two turns all that is known so far is yielded. Closing the iterator ends the measuring.

    Args:
        prompt, template, what_ifs, history, earlier: As in `Engine.stream`.
        variant: One that mixes, or a what-if.
        answer: Token ids, most often what the variant itself has answered.

    Raises:
        ConfigError: The variant mixes nothing, there is no answer, or the conversation is read turn by turn; and what `Engine.stream` raises.
        PromptError: The prompt is one token long, so nothing of it is read twice; or prompt and answer are more than the base reads.
    """
    request = engine.request(prompt, [variant], template, what_ifs, history, earlier)
    _check_read_at_once(request)
    ratios, ids = ratios_of(variant, request.variants), request.ids[variant]
    if not answer:
        raise ConfigError("There is no answer whose probability could change; give one of at least one token.")
    if len(ids) < 2:
        raise PromptError("The prompt is one token long, and the last token is not read twice, so nothing is mixed; write more.")
    check_given_answer(engine.base.model, engine.manager.layout, [ids], answer)
    layers = range(ratios.layers)
    mixes = [Mix(MixingRatios.constant(ratios.layers, alpha)) for alpha in (0.0, 1.0)]
    mixes += [mix for layer in layers for mix in _mixes_of_layer(ratios, layer)]
    mixes += [Mix(ratios, undone=token) for token in range(len(ids) - 1)]
    texts = [tuple(engine.base.tokenizer.decode([token]) for token in tokens) for tokens in (ids, answer)]
    with engine.holding(request):
        changes: list[float] = []
        measuring = changes_by_mix(engine.manager, request.variants[variant], ids, answer, mixes)
        (log_probability,) = next(measuring)
        yield _effects(log_probability, changes, ratios.layers, *texts)
        for more in measuring:
            changes += more
            yield _effects(log_probability, changes, ratios.layers, *texts)


def _mixes_of_layer(ratios: MixingRatios, layer: int) -> list[Mix]:
    """Keys undone, values undone, keys completed, values completed."""

    def put(alphas: Sequence[float], alpha: float) -> tuple[float, ...]:
        return (*alphas[:layer], alpha, *alphas[layer + 1 :])

    pairs = [
        pair
        for alpha in (0.0, 1.0)
        for pair in ((put(ratios.keys, alpha), ratios.values), (ratios.keys, put(ratios.values, alpha)))
    ]
    return [Mix(MixingRatios(*pair)) for pair in pairs]


def _effects(
    log_probability: float, changes: Sequence[float], layers: int, prompt: Sequence[str], answer: Sequence[str]
) -> MixingEffects:
    """What is known after so many changes, in the order in which they are measured."""
    known = (*changes, *[None] * (2 + 4 * layers + len(prompt) - 1 - len(changes)))
    by_layer, tokens = known[2 : 2 + 4 * layers], known[2 + 4 * layers :]
    return MixingEffects(
        log_probability, *known[:2], LayerEffects(*(by_layer[start::4] for start in range(4))), tokens, prompt, answer
    )


def layer_lens(
    engine: Engine,
    prompt: str,
    variants: Sequence[str],
    answer: Sequence[int] = (),
    position: int = 0,
    *,
    template: str = "own",
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    history: Sequence[Turn] = (),
    earlier: str = RECOMPUTE,
) -> list[LayerReading]:
    """What variants would say at a place of an answer after each layer: the state there through the base's own final norm and head.

    All variants read the same beginning of an answer, each after its own prompt; one that mixes does so on its mixed cache and on the one
    that its first pass alone leaves.

    Args:
        prompt, variants, template, what_ifs, history, earlier: As in `Engine.stream`.
        answer: Token ids. The first `position` of them are read, and the one after these is followed through the layers; where there is
            none, the likeliest after the last layer on the variant's own cache.
        position: 0 is the first token of an answer.

    Returns:
        For each variant its own cache, then that of its first pass where it mixes.

    Raises:
        ConfigError: The position is not one of this answer, or the conversation is read turn by turn; and what `Engine.stream` raises.
        PromptError: Prompt and answer are more than the base reads.
        UnsupportedModelError: The layers of this base cannot be looked at one by one.
    """
    if type(position) is not int or not 0 <= position <= len(answer):
        raise ConfigError(
            f"There is no position {shown(position)} in an answer of {len(answer)} tokens; it goes from 0 to {len(answer)}."
        )
    request = engine.request(prompt, variants, template, what_ifs, history, earlier)
    _check_read_at_once(request)
    prefix, prompts = list(answer[:position]), list(request.ids.values())
    check_given_answer(engine.base.model, engine.manager.layout, prompts, [*prefix, 0])
    rows, of = [], []
    for index, (name, variant) in enumerate(request.variants.items()):
        rows.append(Row.of(variant, index))
        of.append((name, "own"))
        if variant.mixing is not None:
            rows.append(Row(index, variant.passes[:1], answer_adapter=variant.answer_adapter))
            of.append((name, "first_pass"))
    with engine.holding(request):
        found = layer_logits(engine.manager, prompts, rows, prefix)
    likeliest = {name: int(logits[-1].argmax()) for (name, cache), logits in zip(of, found, strict=True) if cache == "own"}
    followed = {name: answer[position] if position < len(answer) else token for name, token in likeliest.items()}
    return [_reading(engine, *whose, logits, followed[whose[0]]) for whose, logits in zip(of, found, strict=True)]


def _reading(engine: Engine, variant: str, cache: str, logits: Tensor, token: int) -> LayerReading:
    decode = engine.base.tokenizer.decode
    probabilities = logits.softmax(-1)
    best, ids = probabilities.topk(min(GUESSES, logits.shape[-1]), dim=-1)
    rows = zip(best.tolist(), ids.tolist(), strict=True)
    guesses = tuple(tuple(Guess(one, decode([one]), value) for value, one in zip(*row, strict=True)) for row in rows)
    return LayerReading(variant, cache, decode([token]), tuple(probabilities[:, token].tolist()), guesses)


def _check_read_at_once(request: Request) -> None:
    if request.ends:
        raise ConfigError(
            "This conversation is read turn by turn (alternating), and what was read before keeps its own mixing; layers are looked at in "
            "prompts that are read as one, so choose recompute."
        )
