"""Why answers part: what every variant gives to every token of every answer, and what it would rather have said.

Knows an engine. The answers are read behind the prompts' caches, which are remembered, not written: one forward over all of them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bitune.errors import ConfigError
from bitune.inference.engine import Engine
from bitune.inference.generate import read_prompts
from bitune.inference.request import NO_WHAT_IFS, Request
from bitune.inference.sampling import GenerationSettings
from bitune.inference.session import Session
from bitune.inference.streaming import session_of
from bitune.model.conversation import check_conversation
from bitune.model.decoding import PromptCache
from bitune.model.generation_config import end_tokens
from bitune.model.likelihoods import read_each, tokens_at_once
from bitune.model.limits import check_given_answer
from bitune.schema.conversation import RECOMPUTE, Turn
from bitune.schema.parting import TOP, Parting, TokenScores
from bitune.schema.variants import WhatIf

TOKENS_A_TURN = 512
"""After reading so many tokens of answers a request goes to the end of the line: a second or two of the default base on two CPU cores."""


def part(
    engine: Engine,
    prompt: str,
    variants: Sequence[str],
    answers: Mapping[str, Sequence[int]],
    *,
    template: str = "own",
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    history: Sequence[Turn] = (),
    earlier: str = RECOMPUTE,
) -> Parting:
    """What each of `variants` gives to each of `answers`, token by token, each after the prompt as that variant reads it.

    Temperature, top-p and seed do not enter: these are the probabilities that the answers' draws were made from at temperature 1.

    Args:
        prompt, variants, template, what_ifs, history, earlier: As in `Engine.stream`.
        answers: Token ids by name of the variant that gave them, as in `Completion.token_ids`.

    Raises:
        ConfigError: An answer has no token, or one that the base has not; and what `Engine.stream` raises.
        PromptError: Prompt and answer together are more than the base reads.
    """
    request = engine.request(prompt, variants, template, what_ifs, history, earlier)
    own = {name: tuple(answer) for name, answer in answers.items()}
    distinct = list(dict.fromkeys(own.values()))
    _check(engine, request, distinct)
    rows = _rows(engine, request, distinct)
    scores = {name: dict(zip(request.variants, rows[distinct.index(answer)], strict=True)) for name, answer in own.items()}
    tops = [of_one.top for of_answer in rows for of_one in of_answer]
    said = {token for answer in distinct for token in answer}.union(*(top.ravel().tolist() for top in tops))
    texts = {token: text_of(token, engine.base.tokenizer) for token in sorted(said)}
    ends = set(end_tokens(engine.base.model, engine.base.tokenizer))
    return Parting(own, scores, texts, frozenset(name for name, answer in own.items() if answer[-1] in ends))


def go_on(
    engine: Engine,
    prompt: str,
    variant: str,
    begun: Sequence[int],
    *,
    template: str = "own",
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    history: Sequence[Turn] = (),
    earlier: str = RECOMPUTE,
) -> Session:
    """Let one variant go on from the beginning of an answer, whoever would have said it.

    The prompt is read as for any answer; the beginning is read as if the variant had written it, causally, with the adapter that
    answers, and no part of the prompt. Behind a beginning of its own it writes what it wrote, draws included.

    Args:
        prompt, template, what_ifs, history, earlier: As in `Engine.stream`.
        variant: The one that goes on.
        begun: Token ids of the beginning, at least one.
        max_new_tokens: Most tokens behind the beginning.
        temperature, top_p, seed, stop: As in `Engine.stream`; the draws of the beginning count as drawn.

    Returns:
        As `Engine.stream`, of this variant alone. The text begins with the beginning's; figures are of what comes behind it.

    Raises:
        ConfigError: There is no beginning, or an id in it is no token of the base; and what `Engine.stream` raises.
    """
    if not begun:
        raise ConfigError("No token is given to go on from; give at least one.")
    settings = GenerationSettings(max_new_tokens, temperature, top_p, seed, stop)
    request = engine.request(prompt, [variant], template, what_ifs, history, earlier)
    return session_of(engine, request, settings, tuple(begun))


def text_of(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a token inside of a text; at the beginning of one, some tokenizers drop its space."""
    alone, behind = (tokenizer.decode([token] * count) for count in (1, 2))
    return behind.removeprefix(alone) if behind.startswith(alone) else alone


def _check(engine: Engine, request: Request, answers: Sequence[tuple[int, ...]]) -> None:
    if not answers or not all(answers):
        raise ConfigError("An answer without a token has nothing to look at; give answers of at least one token.")
    layout = engine.manager.layout
    for answer in answers:
        check_given_answer(engine.base.model, layout, list(request.ids.values()), answer)
        for name, turns in request.ends.items():
            check_conversation(layout, request.ids[name], turns, len(answer))


@torch.no_grad()
def _rows(engine: Engine, request: Request, answers: Sequence[tuple[int, ...]]) -> list[list[TokenScores]]:
    """[answer][variant]."""
    manager, count = engine.manager, len(request.variants)
    pairs = [(row, answer) for row in range(count) for answer in range(len(answers))]
    most = min(TOKENS_A_TURN, tokens_at_once(manager))
    batches = _batches([len(answers[answer]) for _, answer in pairs], most)
    found: list[TokenScores] = []
    with engine.holding(request):
        with manager.eval_turn():
            passes = list(request.variants.values()), list(request.ids.values())
            prompts = read_prompts(manager, *passes, ends=list(request.ends.values()))
        for batch in batches:
            with manager.eval_turn():
                found += _read(prompts, pairs[batch], answers, alone=len(batches) == 1)
    return [[found[row * len(answers) + answer] for row in range(count)] for answer in range(len(answers))]


def _batches(lengths: Sequence[int], most: int) -> list[slice]:
    """Neighbours of at most so many tokens, which are read together; one that is too long by itself is alone."""
    starts, tokens = [0], 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > most:
            starts.append(index)
            tokens = 0
        tokens += length
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def _read(
    prompts: PromptCache, pairs: Sequence[tuple[int, int]], answers: Sequence[tuple[int, ...]], *, alone: bool
) -> list[TokenScores]:
    """The scores of pairs of a prompt's row and an answer. `alone`: the prompts' cache is not needed any more."""
    rows = sorted({row for row, _ in pairs})
    own = prompts if alone else prompts.part(rows)
    return read_each(own, [rows.index(row) for row, _ in pairs], [answers[answer] for _, answer in pairs], _scores)


def _scores(logits: Tensor, nodes: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> list[TokenScores]:
    """`likelihoods.Reduce` to TokenScores, in float32."""
    logits = logits.float()
    normalizers = logits.logsumexp(-1)
    best, top = logits.topk(min(TOP, logits.shape[-1]), dim=-1)
    best, top = (best - normalizers[:, None]).cpu().numpy(), top.int().cpu().numpy()
    scores = []
    for path, said in zip(nodes, tokens, strict=True):
        places = torch.tensor(path, device=logits.device)
        chosen = logits[places, torch.tensor(said, device=logits.device)]
        ranks = torch.stack([(logits[place] > value).sum() for place, value in zip(path, chosen, strict=True)])
        values = (chosen - normalizers[places]).cpu().numpy(), ranks.int().cpu().numpy()
        scores.append(TokenScores(*values, top[path], best[path]))
    return scores
