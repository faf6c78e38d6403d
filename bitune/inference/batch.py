"""Several prompts at once, each answered by several variants: rows of one batch, whose answers are those of one prompt at a time.

Knows an engine; knows no file and no set.
"""

from collections.abc import Mapping, Sequence

from bitune.cancellation import PartOf, current
from bitune.errors import PromptError
from bitune.inference.answer import Answer
from bitune.inference.engine import Engine
from bitune.inference.generate import generate
from bitune.inference.request import NO_WHAT_IFS, Request
from bitune.inference.sampling import GenerationSettings
from bitune.model.generation_config import end_tokens
from bitune.model.limits import batches_by_length, check_one_side
from bitune.schema.results import Completion
from bitune.schema.variants import WhatIf


def answer_batch(
    engine: Engine,
    prompts: Sequence[str],
    variants: Sequence[str],
    *,
    template: str = "own",
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    **settings: object,
) -> list[dict[str, Completion]]:
    """Answer several prompts with several variants in one batch; each answer is the one that `Engine.stream` gives to its prompt.

    Stopped by the event of the block that the calling thread is in (`cancellation.cancellable`).

    Args:
        prompts: What a person wrote.
        variants, template, what_ifs: As in `Engine.stream`.
        settings: The fields of GenerationSettings. Above temperature 0 all rows see the same random draws.

    Returns:
        Of each prompt the answers by variant. Their seconds and speeds are those of the whole batch.

    Raises:
        PromptError, ConfigError, UnknownNameError: Before anything runs; a PromptError names the prompt by its number in the batch.
        Cancelled: It was stopped.
    """
    how = GenerationSettings(**settings)
    requests = requests_of(engine, prompts, variants, template, what_ifs)
    limits = [answer_limit(engine, request, how.max_new_tokens) for request in requests]
    ids = [own for request in requests for own in request.ids.values()]
    check_one_side(
        engine.manager.layout,
        list(map(len, ids)),
        [limit for request, limit in zip(requests, limits, strict=True) for _ in request.ids],
    )
    ends = frozenset(end_tokens(engine.base.model, engine.base.tokenizer))
    answers = [
        {name: Answer(name, engine.base.tokenizer, how, limit, ends) for name in request.variants}
        for request, limit in zip(requests, limits, strict=True)
    ]
    if requests:
        rows = [variant for request in requests for variant in request.variants.values()]
        written = [answer for of_one in answers for answer in of_one.values()]
        with engine.holding(requests[0]):
            generate(engine.manager, rows, ids, written, how, PartOf(current()))
    return [{name: answer.snapshot() for name, answer in of_one.items()} for of_one in answers]


def requests_of(
    engine: Engine, prompts: Sequence[str], variants: Sequence[str], template: str, what_ifs: Mapping[str, WhatIf]
) -> list[Request]:
    """Each prompt as the variants read it; a PromptError names the prompt by its number, from 1."""
    requests = []
    for number, prompt in enumerate(prompts, 1):
        try:
            requests.append(engine.request(prompt, variants, template, what_ifs))
        except PromptError as error:
            raise PromptError(f"Prompt {number:,} of {len(prompts):,} cannot be asked. {error}") from error
    return requests


def answer_limit(engine: Engine, request: Request, max_new_tokens: int) -> int:
    """The most tokens that an answer to this prompt may have: as many as all its variants have room for."""
    return min(max_new_tokens, engine.manager.layout.context - longest(request))


def longest(request: Request) -> int:
    """Tokens of the prompt, by the variant that reads the most."""
    return max(map(len, request.ids.values()))


def batches(engine: Engine, requests: Sequence[Request], max_new_tokens: int, size: int, tokens: int) -> list[list[int]]:
    """Which of `requests` are answered together: at most `size` of about one length, the longest first, and together, padded, of at most
    `tokens` tokens; a prompt that is longer is alone. PromptError for one that this base cannot run."""
    lengths = [longest(request) for request in requests]
    limits = [answer_limit(engine, request, max_new_tokens) for request in requests]
    found = []
    for batch in batches_by_length(engine.manager.layout, lengths, limits, size):
        fits = max(1, tokens // max(lengths[index] for index in batch))
        found += [batch[start : start + fits] for start in range(0, len(batch), fits)]
    return found
