"""Can this base run Bitune? Said once, when a base is taken, with the reason: never found out by a wrong answer later."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitune.errors import UnsupportedModelError, is_out_of_memory, reason
from bitune.modeling.interface import attention_implementation
from bitune.modeling.layout import read_layout
from bitune.modeling.masks import DecoderLayout
from bitune.modeling.probe import ANSWER, PROMPT, SHORTER, Probe
from bitune.modeling.rotary import left_as_it_was, probe_lengths, turns_by_length
from bitune.modeling.siblings import noting_siblings


def check_supported(model: PreTrainedModel) -> DecoderLayout:
    """The layout of a base that can run Bitune; UnsupportedModelError says why another cannot.

    Reads the config first, then proves with forwards over a few tokens that the model obeys the masks it is given, that a prompt in a
    padded batch is read as alone, and up to which length its keys stay what they are. The model is left as it was.
    """
    layout = read_layout(model)
    attention_implementation(model)
    if layout.context < PROMPT + ANSWER:
        raise UnsupportedModelError(
            f"The config of this {model.config.model_type!r} base allows {layout.context} tokens, prompt and answer together, which is too "
            f"few for both; correct its config.json, or choose a base that reads at least {PROMPT + ANSWER}."
        )
    with left_as_it_was(model):
        model.eval()
        with noting_siblings(model) as siblings:
            width = _probe(model, layout)
        lengths = probe_lengths(model, layout)
    context = layout.context if lengths.limit is None else min(layout.context, lengths.limit)
    found = {"limit": lengths.limit, "rotary_switch": lengths.rotary_switch, "cache_width": width, "siblings": tuple(siblings)}
    return replace(layout, context=context, **found)


@torch.no_grad()
def _probe(model: PreTrainedModel, layout: DecoderLayout) -> int:
    """Own causal masks and padding must change nothing, bidirectional ones must let the first token see the last.

    Returns how many numbers a token has in the cache.
    """
    kind, probe, rounding = model.config.model_type, Probe(model, layout), _ROUNDING[model.dtype == torch.float32]
    with _known(
        f"{kind!r} does not run on a few tokens of text with a key/value cache, under transformers alone ({{}}); choose another base"
    ):
        stored, logits = probe.by_itself()
    if len(stored) != 2 * layout.layers:
        raise UnsupportedModelError(
            f"{kind!r} fills a key/value cache of {len(stored) // 2} layers and its config names {layout.layers}; Bitune mixes keys and "
            "values layer by layer, so choose a base that fills each layer once."
        )
    if not all(bool(part.isfinite().all()) for part in (*stored, logits)):
        raise UnsupportedModelError(
            f"This {kind!r} base gives NaN or infinite keys, values or logits in {model.dtype} on a few tokens of text, under transformers "
            "alone: its weights or its config.json are damaged, or the dtype is too narrow; load it in float32, or download it again."
        )
    with _known(f"{kind!r} does not run with a 4-D attention mask and a key/value cache, so it cannot read bidirectionally"):
        whole, shorter, (batch, by_token) = probe.alone(0), probe.alone(SHORTER), probe.in_a_batch()
    as_plain = [(part[:1], own) for part, own in zip(whole.stored, stored, strict=True)]
    if not _all_close([*as_plain, (whole.answered[:1], logits[:, -1 - ANSWER :])], rounding):
        _check_turned_alike(model, layout, probe.tokens + ANSWER)
        raise UnsupportedModelError(
            f"{kind!r} gives other keys or logits when its own causal mask and positions are passed in, so masks cannot be trusted."
        )
    if not any(bool(values.any()) for values in stored[1::2]):
        raise UnsupportedModelError(
            f"The values of all layers of this {kind!r} base are zeros, so that no token sees another: its weights are damaged; copy or "
            "download them again."
        )
    if torch.equal(whole.first[0], whole.first[1]):
        raise UnsupportedModelError(f"{kind!r} ignores the attention mask it is given, so it cannot read bidirectionally.")
    for rows, alone, answered in ((slice(0, 2), whole, 1 + ANSWER), (slice(2, 4), shorter, 1)):
        pairs = [(part[rows], own) for part, own in zip(batch.stored, alone.stored, strict=True)]
        pairs += [(logits[rows, :answered], alone.answered[:, :answered]) for logits in (batch.answered, by_token)]
        if not _all_close(pairs, rounding):
            _check_turned_alike(model, layout, probe.tokens + ANSWER)
            raise UnsupportedModelError(
                f"{kind!r} gives other keys or logits when the prompt is padded on the left, so prompts of different lengths cannot share "
                "a batch."
            )
    return sum(part.shape[1] * part.shape[-1] for part in stored)


def _check_turned_alike(model: PreTrainedModel, layout: DecoderLayout, tokens: int) -> None:
    """UnsupportedModelError where the rotary embedding takes other frequencies in a call of `tokens` tokens than in one of two: then
    it is not to blame on masks or padding that the probe's calls, which have so many, differ."""
    if turns_by_length(model, layout, shorter=2, longer=tokens):
        raise UnsupportedModelError(
            f"The rotary embedding of this {model.config.model_type!r} base takes other frequencies in a call of {tokens} tokens than in "
            f"one of 2, so a prompt that was read cannot be answered; set original_max_position_embeddings in its config.json to "
            f"{tokens} or more, or choose another base."
        )


def _all_close(pairs: Iterable[tuple[Tensor, Tensor]], rounding: float) -> bool:
    """Whether two tensors of each pair are the same to `rounding`, relative to their size; of keys and values [rows, heads, tokens, dim]
    the last tokens are compared, which both have."""
    for found, wanted in pairs:
        tokens = min(found.shape[-2], wanted.shape[-2])
        found, wanted = found[..., -tokens:, :].float(), wanted[..., -tokens:, :].float()
        if not (found - wanted).norm() <= rounding * wanted.norm().clamp(min=1e-6):  # NaN is not the same
            return False
    return True


_ROUNDING = {True: 1e-3, False: 0.1}
"""Of float32 and of 16 bits, where two experts of the same weight may change places."""

# What transformers' models raise where they cannot run so. Whatever else they raise is a bug, theirs or ours, and keeps its name.
_CANNOT: tuple[tuple[type[Exception], tuple[str, ...]], ...] = (
    (ValueError, ("",)),
    (IndexError, ("",)),
    (AssertionError, ("",)),
    (NotImplementedError, ("",)),
    # torch's own class for tensors that do not fit together, and also for a device that fails
    (RuntimeError, ("size", "shape", "dimension", "permute", "expand", "einsum")),
    (TypeError, ("unexpected keyword argument",)),
)


@contextmanager
def _known(sentence: str) -> Iterator[None]:
    """Raise what a model raises that cannot run as in this block as UnsupportedModelError; anything else passes as it is.

    `sentence` has {} where the reason belongs; where the same model did run before, the block itself is the reason.
    """
    try:
        yield
    except Exception as error:
        known = any(isinstance(error, kind) and any(sign in str(error) for sign in signs) for kind, signs in _CANNOT)
        if not known or is_out_of_memory(error) or isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(sentence.format(reason(error)) + ".") from error
