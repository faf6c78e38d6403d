"""Decoding token by token gives transformers' own tokens, in every family; a prompt cache is not used twice."""

import pytest
import torch

from bitune.model.decoding import Decoder, generate, read_variants
from bitune.model.generation_config import eval_generation_config
from bitune.model.likelihoods import likelihoods
from bitune.schema.variants import BASE
from tests.closeness import assert_clear, assert_close
from tests.tiny import END, FAMILIES, bitune_on, ids, tiny_model

NEW = 8


@pytest.fixture(params=FAMILIES)
def model(request):
    return bitune_on(tiny_model(request.param))


def prompts() -> list[list[int]]:
    return [prompt[0].tolist() for prompt in ids(3, 11, 7, 1)]


def rows_of(model) -> list:
    """Bitune and the base, each on every prompt."""
    return [(variant, prompt) for variant in (model.variant, BASE.with_mixing(None)) for prompt in range(len(prompts()))]


@torch.no_grad()
def test_step_by_step_equals_generate(model):
    config = eval_generation_config((END,), max_new_tokens=NEW, min_new_tokens=NEW)
    with model.manager.turn():
        ((rows, expected),) = generate(read_variants(model.manager, prompts(), rows_of(model)), generation_config=config)
        read = read_variants(model.manager, prompts(), rows_of(model))
        decoder, tokens = Decoder(read, rows), []
        with decoder.active():
            for _ in range(NEW):
                logits = decoder.next_logits()
                logits[:, END] = -torch.inf  # as min_new_tokens does
                assert_clear(logits)
                tokens.append(logits.argmax(-1))
                decoder.append(tokens[-1])
    assert torch.equal(torch.stack(tokens, dim=1), expected[:, read.ids.shape[1] :])


@torch.no_grad()
def test_every_row_equals_itself_alone(model):
    """Rows of one batch, with padding and other adapters beside them, have the likelihoods of a batch of one."""
    answers = [[9, 8, 7], [5], [6, 7, 8, 9, 10], [4, 4]] * 2
    read = read_variants(model.manager, prompts(), rows_of(model))
    together = likelihoods(read, range(len(read.rows)), answers)
    for (variant, prompt), answer, value in zip(rows_of(model), answers, together, strict=True):
        (alone,) = likelihoods(read_variants(model.manager, [prompts()[prompt]], [(variant, 0)]), [0], [answer])
        assert_close(value.sum, alone.sum)
        assert value.greedy == alone.greedy


@torch.no_grad()
def test_a_cache_that_was_written_into_is_not_read_again():
    model = bitune_on(tiny_model())
    read = read_variants(model.manager, prompts(), rows_of(model))
    likelihoods(read, [0, 0, 1], [[5], [6], [7]])  # copies of rows: as often as one likes
    likelihoods(read, range(len(read.rows)), [[5]] * len(read.rows))
    with pytest.raises(RuntimeError, match="read the prompts again"):
        likelihoods(read, [0], [[5]])
