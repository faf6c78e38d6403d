"""Greedy answers for comparisons: each token is chosen so clearly that rounding, which differs between computations, cannot change it."""

from torch import Tensor
from transformers import LogitsProcessorList

from bitune.inference.sampling import GenerationSettings, sampling
from tests.closeness import assert_clear


def greedy(model, *prompt: Tensor, **arguments: object) -> Tensor:
    """What `model.generate` gives for greedy `arguments`, int64 [rows, tokens]; AssertionError if a choice was close."""
    generated = model.generate(*prompt, **arguments, output_logits=True, return_dict_in_generate=True)
    for logits in generated.logits:
        assert_clear(logits)
    return generated.sequences


def clear_sampling(settings: GenerationSettings, begun: int = 0) -> LogitsProcessorList:
    """The engine's `sampling`, which fails where the choice after it would be close."""
    return LogitsProcessorList([*sampling(settings, begun), _clear])


def _clear(ids: Tensor | None, scores: Tensor) -> Tensor:
    assert_clear(scores)
    return scores
