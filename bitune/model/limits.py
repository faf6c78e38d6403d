"""What a base can be asked: token ids that it has, and lengths at which its cached keys stay true.

Where a rotary embedding takes its frequencies from the longest position of a call (`longrope`), a prompt that was read below the switch
cannot be answered beyond it: transformers would drop the mixed cache and read the prompt once more, causally. And of two rows in one
batch the longer one would choose the frequencies of both.
"""

import itertools
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor
from transformers import PreTrainedModel

from bitune.errors import ConfigError, PromptError, shown
from bitune.modeling.interface import vocabulary_size
from bitune.modeling.masks import DecoderLayout

_ALIKE = 4  # tokens by which prompts of a batch may differ for the sake of what comes behind them


def check_ids(model: PreTrainedModel, name: str, ids: Tensor | Sequence[int]) -> None:
    """ConfigError for an id that is no token of this base.

    Args:
        name: What the ids are called where they were given.
        ids: int64 of any shape, or a list of ids.
    """
    vocabulary = vocabulary_size(model)
    if isinstance(ids, Tensor):
        wrong = ids[(ids < 0) | (ids >= vocabulary)].tolist()
    else:
        wrong = [
            token for token in ids if isinstance(token, bool) or not isinstance(token, Integral) or not 0 <= token < vocabulary
        ]
    if wrong:
        raise ConfigError(
            f"{name} holds {shown(wrong[0])}, which is no token of this base: it has 0 to {vocabulary - 1}; take it out."
        )


def check_given_answer(
    model: PreTrainedModel, layout: DecoderLayout, prompts: Sequence[Sequence[int]], answer: Sequence[int]
) -> None:
    """Whether an answer that is given can be read after each of these prompts, all in one batch.

    Raises:
        ConfigError: An id is no token of the base.
        PromptError: Prompt and answer are longer than the base reads; or as in `check_one_side`.
    """
    for prompt in prompts:
        check_ids(model, "The prompt", prompt)
    check_ids(model, "The answer", answer)
    lengths = [len(prompt) for prompt in prompts]
    if max(lengths) + len(answer) > layout.context:
        raise PromptError(
            f"Prompt and answer have {max(lengths) + len(answer):,} tokens and the model reads {layout.context:,}; shorten one of them."
        )
    # Without an answer the last prompt token is read all the same.
    check_one_side(layout, lengths, [max(len(answer), 1)] * len(lengths), at_once=True)


def check_batch(
    model: PreTrainedModel,
    layout: DecoderLayout,
    prompts: tuple[Tensor, Tensor],
    answers: tuple[Tensor, Tensor] | None = None,
    most_tokens: int | None = None,
) -> None:
    """Whether prompts can be run in one batch, with given answers or with answers to be written.

    Args:
        prompts: Ids and mask, int64 [batch, P], padded on the left.
        answers: Ids and mask, int64 [batch, A], padded on the right.
        most_tokens: Of prompt and answer, padding included, where the answers are to be written.

    Raises:
        ConfigError: Padding is on the other side, or an id that is no padding is no token of the base.
        PromptError: As in `check_one_side`.
    """
    if not prompts[1][:, -1].all():
        raise ConfigError("A row of prompt_mask ends with 0; prompts are padded on the left and have at least one token.")
    check_ids(model, "prompt_ids", prompts[0][prompts[1].bool()])
    if answers is not None:
        if not answers[1][:, 0].all():
            raise ConfigError("A row of answer_mask begins with 0; answers are padded on the right and have at least one token.")
        check_ids(model, "answer_ids", answers[0][answers[1].bool()])
    if layout.limit is None and layout.rotary_switch is None:
        return
    prompt_tokens = prompts[1].sum(1).tolist()
    if answers is not None:
        check_one_side(layout, prompt_tokens, answers[1].sum(1).tolist(), at_once=True)
    else:  # a padded row counts as long as its batch, as transformers does where it may drop a cache
        check_one_side(layout, prompt_tokens, [most_tokens - count for count in prompt_tokens])


def is_beyond_switch(layout: DecoderLayout, prompt: int, answer: int, *, at_once: bool = False) -> bool:
    """Whether prompt and answer lie beyond the length at which the rotary embedding switches; with False, up to it or there is none.

    Args:
        prompt: Its tokens.
        answer: Most tokens of the answer; its last one is never read.
        at_once: The answer is given and is read in one forward, not written token by token.

    Raises:
        PromptError: They lie on both sides of it, or there are more tokens than this base can run.
    """
    run, cached = prompt + answer - 1, prompt - 1
    if layout.limit is not None and run > layout.limit:
        raise PromptError(
            _sentence(prompt, answer, layout.limit, "the most that this base reads and answers with the same positions")
        )
    if layout.rotary_switch is None or run <= layout.rotary_switch:
        return False
    if cached > layout.rotary_switch or (at_once and cached == 0):
        return True
    cause = "the length at which this base's rotary embedding takes other frequencies, so that what was read no longer fits"
    raise PromptError(_sentence(prompt, answer, layout.rotary_switch, cause))


def check_one_side(layout: DecoderLayout, prompts: Sequence[int], answers: Sequence[int], *, at_once: bool = False) -> None:
    """PromptError unless rows of these lengths can share a batch; arguments as in `is_beyond_switch`, for each row."""
    beyond = [is_beyond_switch(layout, *lengths, at_once=at_once) for lengths in zip(prompts, answers, strict=True)]
    if len(set(beyond)) > 1:
        raise PromptError(
            f"Prompts of {min(prompts):,} and of {max(prompts):,} tokens are in one batch, and in between, at {layout.rotary_switch:,}, "
            "this base's rotary embedding takes other frequencies, so one would change the other; run them apart."
        )


def batches_by_length(
    layout: DecoderLayout,
    prompts: Sequence[int],
    answers: Sequence[int],
    size: int,
    *,
    at_once: bool = False,
    behind: Sequence[int] | None = None,
) -> list[list[int]]:
    """Indices of the rows of each batch, at most `size`, in order of length, the longest first: what does not fit into memory is seen
    at once. All of a batch lie on one side of the switch; arguments and errors as in `check_one_side`.

    Args:
        behind: How many tokens are read behind each prompt, where these are several answers; by default `answers`. Among prompts of
            about one length they decide what comes together, as they are padded too.
    """
    beyond = [is_beyond_switch(layout, *lengths, at_once=at_once) for lengths in zip(prompts, answers, strict=True)]
    read = answers if behind is None else behind
    order = sorted(range(len(prompts)), key=lambda row: (not beyond[row], -(prompts[row] // _ALIKE), -read[row], -prompts[row]))
    sides = [list(rows) for _, rows in itertools.groupby(order, key=lambda row: beyond[row])]
    return [side[start : start + size] for side in sides for start in range(0, len(side), size)]


def _sentence(prompt: int, answer: int, length: int, cause: str) -> str:
    room = length - prompt + 1
    remedy = f"allow at most {room:,} for the answer, or shorten the prompt" if room > 0 else "shorten the prompt"
    return f"A prompt of {prompt:,} tokens with an answer of up to {answer:,} passes {length:,}, {cause}; {remedy}."
