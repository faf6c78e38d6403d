"""The way of a request through the model: read the prompt, one token, many tokens.

A request owns the base in turns: one for its prompt passes, then one for every few tokens. Between turns the base is bare and
another request may run; see "Who owns the base" in docs/architecture.md.
"""

import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from bitune.adapters.manager import AdapterManager
from bitune.cancellation import check
from bitune.data.conversation import TurnEnd
from bitune.inference.answer import Answer
from bitune.inference.sampling import GenerationSettings, sampling
from bitune.model.conversation import Talk, read_conversations
from bitune.model.decoding import Decoder, PromptCache, read_variants
from bitune.schema.variants import Variant

TOKENS_A_TURN = 8
"""After so many tokens a request goes to the end of the line: half a second of the default base on two CPU cores, far less on a
GPU, so a short request never waits for the whole of a long one; and switching adapters costs less than one token."""


def generate(
    manager: AdapterManager,
    variants: Sequence[Variant],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    settings: GenerationSettings,
    cancelled: threading.Event,
    started: Callable[[], None] = lambda: None,
    ends: Sequence[Sequence[TurnEnd]] = (),
    begun: Sequence[int] = (),
) -> None:
    """Answer with several variants in step, until every answer is finished.

    Args:
        variants, prompts, answers: Of each row: what runs, the token ids that it reads, and where its tokens go.
        cancelled: Set by anybody; ends the request before the next layer of a prompt pass, or the next token.
        started: Called when the first turn has come.
        ends: Of each row, where the turns of its conversation end, to be read one on top of the other; none where all of it is a prompt.
        begun: Token ids with which all answers begin, which have them already.

    Raises:
        Cancelled: The request was stopped before its answers were finished.
    """
    clock = time.monotonic()
    with torch.no_grad():
        with manager.eval_turn(cancelled):
            started()
            read = read_prompts(manager, variants, prompts, lambda: check(cancelled), ends)
            decoders = [Decoder(read, rows) for rows in manager.batches([variant.answer_adapter for variant in variants])]
            del read  # decoders whose rows stand in another order have a cache of their own
        for decoder in decoders:
            for row, known in zip(decoder.rows, decoder.known, strict=True):
                answers[row].from_memory = known
            if begun and not all(answers[row].is_finished for row in decoder.rows):
                with manager.eval_turn(cancelled), decoder.active():
                    decoder.read(begun)
        processors = [sampling(settings, len(begun)) for _ in decoders]  # the same draws for every batch
        while not all(answer.is_finished for answer in answers):
            for decoder, processor in zip(decoders, processors, strict=True):
                rows = [answers[row] for row in decoder.rows]
                if not all(answer.is_finished for answer in rows):
                    with manager.eval_turn(cancelled), decoder.active():
                        decode_tokens(decoder, processor, rows, cancelled, clock)


def read_prompts(
    manager: AdapterManager,
    variants: Sequence[Variant],
    prompts: Sequence[Sequence[int]],
    check: Callable[[], None] = lambda: None,
    ends: Sequence[Sequence[TurnEnd]] = (),
) -> PromptCache:
    """Run the prompt passes of all variants, as far as they are not remembered: a row for each. In a turn, without gradients.

    Equal prompts, and passes that several variants share, are run once. `ends` as in `generate`.

    Args:
        check: Called before every layer; what it raises ends the passes.
    """
    if ends:
        talks = [Talk(variant, tuple(ids), tuple(own)) for variant, ids, own in zip(variants, prompts, ends, strict=True)]
        return read_conversations(manager, talks, check)
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    rows = [(variant, distinct.index(tuple(prompt))) for variant, prompt in zip(variants, prompts, strict=True)]
    return read_variants(manager, distinct, rows, check, remember=True)


def decode_tokens(
    decoder: Decoder, processor: LogitsProcessorList, answers: Sequence[Answer], cancelled: threading.Event, clock: float
) -> None:
    """Up to TOKENS_A_TURN tokens for the answer of every row of `decoder`, fewer where all of them are finished."""
    for _ in range(TOKENS_A_TURN):
        check(cancelled)
        tokens = decode_one_token(decoder, processor)
        seconds = time.monotonic() - clock
        for answer, token in zip(answers, tokens.tolist(), strict=True):
            answer.add(token, seconds)
        if all(answer.is_finished for answer in answers):
            return


def decode_one_token(decoder: Decoder, processor: LogitsProcessorList) -> Tensor:
    """One forward and the likeliest token after the processors, int64 [rows]; with shared noise among them that is a draw."""
    logits = decoder.next_logits()
    tokens = processor(None, logits).argmax(-1)
    decoder.append(tokens)
    return tokens
