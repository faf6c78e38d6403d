"""Captured prompt passes and decode steps give the scores of the usual way, in every family; who owns one, and when one is let go.

On a GPU they are CUDA graphs; elsewhere the same forward runs as it is, and is let onto the CPU by these tests alone.
"""

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bitune import Base, BituneModel
from bitune.model.decoding import Decoder, PromptCache, read_variants
from bitune.model.maps import attention_maps
from bitune.modeling import decode_step
from bitune.modeling.captured import CapturedForwards
from bitune.modeling.decode_step import DecodeStep
from bitune.modeling.prompt_forward import PromptForward
from bitune.schema.variants import BASE
from tests.closeness import assert_clear, assert_close
from tests.tiny import FAMILIES, SHAPE, bitune_on, ids, longrope_settings, tiny_model

CAPACITY = 16
TURNS, TOKENS = 5, 4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """A device on which forwards are captured, with a small capacity: the tests' answers outgrow it."""
    monkeypatch.setattr("bitune.adapters.rows.DEVICES", (request.param,))
    monkeypatch.setattr(decode_step, "_CAPACITY", CAPACITY)
    return request.param


@pytest.fixture
def model(device, tmp_path):
    return on(device, tmp_path)


def on(device: str, folder: Path, family: str = "llama", kind: str = "lora", attention: str = "sdpa") -> BituneModel:
    return frozen(tiny_model(family, attention).to(device), folder, kind)


def frozen(module, folder: Path, kind: str = "lora") -> BituneModel:
    """A random Bitune that does not learn, as an engine loads it; where adapters learn nothing is captured."""
    base = Base(module, None, "tiny", None, None)
    model = bitune_on(base, kind=kind)
    model.save_pretrained(folder / "checkpoint")
    model.release()
    return BituneModel.from_pretrained(folder / "checkpoint", base, trainable=False)


def read(model, *prompts: list[int]) -> PromptCache:
    """Bitune and the base, each on every prompt."""
    prompts = prompts or [prompt[0].tolist() for prompt in ids(3, 11, 7, 1)]
    rows = [(variant, prompt) for variant in (model.variant, BASE.with_mixing(None)) for prompt in range(len(prompts))]
    return read_variants(model.manager, prompts, rows)


def decoder_of(prompts: PromptCache) -> Decoder:
    (rows,) = prompts.manager.batches(prompts.adapters(range(len(prompts.rows))))
    return Decoder(prompts, rows)


def turn(decoder: Decoder) -> list[torch.Tensor]:
    """The scores of some tokens, greedily chosen."""
    found = []
    with decoder.active():
        for _ in range(TOKENS):
            found.append(decoder.next_logits())
            assert_clear(found[-1])
            decoder.append(found[-1].argmax(-1))
    return found


@torch.no_grad()
def answered(model, limit: int, *prompts: list[int]) -> torch.Tensor:
    """Scores [tokens, rows, vocabulary], with so many bytes for captured forwards."""
    model.manager.captured.limit = limit
    with model.manager.turn():
        decoder = decoder_of(read(model, *prompts))
        return torch.stack([scores for _ in range(TURNS) for scores in turn(decoder)])


@pytest.mark.parametrize(
    ("family", "kind", "attention"),
    [
        *((family, "lora", "sdpa") for family in FAMILIES),
        ("llama", "dora", "sdpa"),
        ("llama", "ia3", "sdpa"),
        ("gemma3", "lora", "eager"),
    ],
)
def test_the_scores_are_those_of_the_usual_way(device, tmp_path, family, kind, attention):
    model = on(device, tmp_path, family, kind, attention)
    expected = answered(model, 0)
    for _ in range(3):  # the first answer begins the usual way, the others in a step that is there
        assert_close(answered(model, 10**9), expected)
    held = list(model.manager.captured._known)
    has_window = any(window is not None for window in model.manager.layout.windows.values())
    assert {type(one) for one in held} == ({DecodeStep} if has_window or attention == "eager" else {DecodeStep, PromptForward})
    assert all((one._graph is not None) == (device == "cuda") for one in held)


def test_requests_that_take_turns_have_steps_of_their_own(model):
    prompts = [[prompt[0].tolist()] for prompt in ids(9, 9, seed=4)]
    expected = [answered(model, 0, *prompt) for prompt in prompts]
    answered(model, 10**9, *prompts[0])
    with model.manager.turn(), torch.no_grad():
        decoders = [decoder_of(read(model, *prompt)) for prompt in prompts]
        found = [[], []]
        for _ in range(TURNS):
            for decoder, scores in zip(decoders, found, strict=True):
                scores += turn(decoder)
        assert None not in (first := decoders[0]._step, second := decoders[1]._step) and first is not second
    for scores, wanted in zip(found, expected, strict=True):
        assert_close(torch.stack(scores), wanted)


def test_what_another_request_left_behind_is_not_read(model):
    expected = answered(model, 0)
    answered(model, 10**9)
    for step in model.manager.captured._known:
        if isinstance(step, DecodeStep):
            step._content.fill_(torch.nan)
    assert_close(answered(model, 10**9), expected)


def write_into_the_base(model) -> None:
    model.manager.model.get_input_embeddings().weight[:, 0] += 0.05


def move_the_base(model) -> None:
    for parameter in model.manager.model.parameters():
        parameter.data = parameter.data.clone()
        parameter.data[:] *= 1.01


def write_into_an_adapter(model) -> None:
    layer = next(module for name, module in model.manager.model.named_modules() if "lora_B." in name)
    layer.weight.mul_(2)


def add_an_adapter(model) -> None:
    bitune_on(model.manager.model, seed=5)


def attend_otherwise(model) -> None:
    model.manager.model.set_attn_implementation("eager")


@pytest.mark.parametrize("change", [write_into_the_base, move_the_base, write_into_an_adapter, add_an_adapter, attend_otherwise])
@torch.no_grad()
def test_what_changes_between_turns_counts_at_once(device, tmp_path, change):
    found = []
    for limit in (0, 10**9):
        model = on(device, tmp_path / str(limit))
        for _ in range(2):
            model.manager.captured.limit = limit
            with model.manager.turn():
                decoder = decoder_of(read(model))
                scores = turn(decoder)
        assert (decoder._step is not None) == bool(limit)
        with model.manager.turn(), torch.no_grad():
            change(model)
            scores += turn(decoder) + turn(decoder)
        found.append(torch.stack(scores))
    assert_close(found[1], found[0])


def test_a_first_token_does_not_wait_for_a_step_that_is_new(model):
    model.manager.captured.limit = 10**9
    for is_there in (False, True):
        with model.manager.turn(), torch.no_grad():
            decoder = decoder_of(read(model))
            with decoder.active():
                decoder.append(decoder.next_logits().argmax(-1))
                assert (decoder._step is not None) == is_there
                decoder.next_logits()
                assert decoder._step is not None


def test_a_prompt_pass_is_captured_when_its_length_comes_again(model):
    """Of the same adapters; prompts of other lengths up to the next size share it, and are padded."""
    model.manager.captured.limit = 10**9
    with model.manager.turn(), torch.no_grad():
        prompts = [prompt[0].tolist() for prompt in ids(30, 41, 50, seed=3)]
        found = []
        for limit in (0, 10**9):
            model.manager.captured.limit = limit
            found.append([part for prompt in prompts for part in keys_and_values(read(model, prompt).cache)])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)
    (forward,) = model.manager.captured._known
    assert isinstance(forward, PromptForward) and forward._tokens == 64
    assert forward.nbytes > sum(part.nbytes for part in keys_and_values(forward.repeat()))


def keys_and_values(cache) -> list[torch.Tensor]:
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]


def test_attention_is_recorded_however_often_it_is_asked_for(model):
    """Under the function that records it nothing is captured: a graph would record nobody's."""
    prompt = ids(30, seed=3)[0][0].tolist()
    found = []
    for limit in (0, *[10**9] * 3):
        model.manager.captured.limit = limit
        maps = attention_maps(model.manager, model.variant, prompt, [5, 6], [1])
        found.append(np.stack([layers[0] for layers in maps.passes.values()]))
    for one in found[1:]:
        assert_close(one, found[0], allowed=2e-3)


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
def test_requests_in_inference_mode_and_others_share_them(model, first):
    expected = answered(model, 0)
    for mode in (first, first, torch.no_grad, torch.inference_mode):
        with mode():
            found = answered(model, 10**9)
        assert_close(found.clone(), expected)


def test_a_step_holds_nothing_of_the_prompt_that_it_was_made_for(model):
    cache = read(model).cache
    step = DecodeStep(model.manager.model, model.manager.layout, cache, CAPACITY)
    step.prepare()
    given = {part.untyped_storage().data_ptr() for part in keys_and_values(cache)}
    held = [value for value in vars(step).values() if isinstance(value, torch.Tensor)] + keys_and_values(step._cache)
    assert not given & {tensor.untyped_storage().data_ptr() for tensor in held}
    assert cache not in vars(step).values() and not any(layer in step._cache.layers for layer in cache.layers)


def test_nothing_is_captured_where_adapters_learn(device):
    model = bitune_on(tiny_model().to(device))
    answered(model, 10**9)
    assert not model.manager.captured._known


def test_a_model_that_asks_a_cache_how_long_it_is_keeps_the_usual_way(model, caplog):
    expected = answered(model, 0)
    inner = model.manager.model.model

    def ask(_, arguments, named) -> None:
        next(value for key, value in named.items() if key.startswith(("cache", "past"))).get_seq_length(1)

    hook = inner.layers[1].register_forward_pre_hook(ask, with_kwargs=True)
    with caplog.at_level(logging.WARNING):
        assert_close(answered(model, 10**9), expected)
    hook.remove()
    assert "cannot be captured" in caplog.text
    assert model.manager.captured.limit == 0 and not model.manager.captured._known


def test_forwards_have_their_bytes_and_no_more(model):
    cache, layout = read(model).cache, model.manager.layout
    owners = [type("Owner", (), {})() for _ in range(3)]

    def make(capacity: int = CAPACITY) -> DecodeStep:
        step = DecodeStep(model.manager.model, layout, cache, capacity)
        step.prepare, step.forward, step.capture = lambda: None, lambda: None, lambda pool: None
        return step

    one = make().nbytes
    assert one == cache.layers[0].keys[:, :, :1].nbytes * 2 * layout.layers * CAPACITY
    known = CapturedForwards(2 * one)
    first, second = (known.take("kind", owner, make, waits=True) for owner in owners[:2])
    assert first is not second
    assert known.take("kind", owners[2], make, waits=True) is None, "both are lent and there is no room for a third"
    known.give_back(first)
    assert known.take("kind", owners[2], make, waits=False) is first
    del owners[1]
    other = known.take("another kind", owners[0], make, waits=True)
    assert other in known and second not in known and first in known
    assert known.take("large", owners[0], lambda: make(3 * CAPACITY), waits=True) is None, "larger than all that may be kept"
    known.give_back(other)
    known.limit = one
    assert first in known and other not in known, "what was used longest ago went, and not what is lent"
    known.limit = 0
    assert first not in known


@pytest.mark.parametrize(
    "rotary",
    [longrope_settings(64, [2.0] * 4), {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}],
    ids=["longrope", "dynamic"],
)
def test_a_rotary_embedding_that_asks_for_the_longest_position_keeps_the_usual_way(device, tmp_path, rotary):
    config = LlamaConfig(**SHAPE | {"max_position_embeddings": 128}, rope_parameters=rotary)
    model = frozen(LlamaForCausalLM(config).eval().to(device), tmp_path)
    answered(model, 10**9)
    assert not model.manager.captured._known


def test_a_copy_of_a_base_captures_for_itself(model):
    answered(model, 10**9)
    copied = copy.deepcopy(model.manager.captured)
    assert (copied.limit, len(copied._known)) == (10**9, 0)


class Asks(nn.Module):
    """A part that asks the device for a number, as routing among experts may."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if float(x.abs().sum()) >= 0 else x


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_base_that_cannot_be_captured_runs_without_and_says_so(device, tmp_path, caplog):
    if device == "cpu":
        return
    base = tiny_model().to(device)
    base.model.norm = Asks(base.model.norm)
    model = frozen(base, tmp_path)
    expected = answered(model, 0)
    with caplog.at_level(logging.WARNING):
        assert_close(answered(model, 10**9), expected)
    assert "cannot be captured as CUDA graphs" in caplog.text and model.manager.captured.limit == 0
    assert_close(answered(model, 0), expected)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.rand(4, device=device).min() >= 0, "random numbers are drawn as before"
