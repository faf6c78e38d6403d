"""Alternating: turns on top of a mixed cache, beside the same computation done by hand with transformers alone."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from bitune import METHODS, PromptError
from bitune.model.conversation import Talk, check_conversation, read_conversations
from bitune.model.decoding import Decoder, read_variants
from bitune.modeling.interface import cache_input
from bitune.schema.variants import MixingRatios
from tests.closeness import assert_apart, assert_close
from tests.tiny import FAMILIES, GROUPED, bitune_on, ids, longrope_settings, tiny_model

families = pytest.mark.parametrize("family", sorted(FAMILIES))
ENDS = ((5, 9), (16, 22))  # two turns, each longer than the window together with what came before
TOKENS = 30


def talk_of(model, tokens: int = TOKENS, ends=ENDS, seed: int = 2) -> Talk:
    return Talk(model.variant, tuple(ids(tokens, seed=seed)[0][0].tolist()), ends)


def logits_after(model, read) -> torch.Tensor:
    """Logits [rows, vocabulary] of the first token of the answers, as the engine decodes."""
    found = torch.zeros(len(read.rows), model.base.config.vocab_size)
    for batch in model.manager.batches(read.adapters(range(len(read.rows)))):
        decoder = Decoder(read, batch)
        with decoder.active():
            found[batch] = decoder.next_logits()
    return found


@torch.no_grad()
def alternating(model, *talks: Talk) -> torch.Tensor:
    with model.manager.eval_turn():
        return logits_after(model, read_conversations(model.manager, talks))


@torch.no_grad()
def as_one_prompt(model, talk: Talk) -> torch.Tensor:
    with model.manager.eval_turn():
        return logits_after(model, read_variants(model.manager, [talk.ids], [(talk.variant, 0)]))


def hand_masks(layout, attention: str, before: int, tokens: int):
    """Which of all tokens each of the last `tokens` may see, as a person would write it down; a cache that forgets nothing."""
    masks = {}
    for kind, window in layout.windows.items():
        mask = torch.zeros(1, 1, tokens, before + tokens, dtype=torch.bool)
        for query in range(before, before + tokens):
            for key in range(before + tokens):
                is_near = window is None or abs(query - key) < window
                ahead = {"causal": key <= query, "bidirectional": True, "anticausal": key >= query or key < before}[attention]
                mask[0, 0, query - before, key] = is_near and ahead
        masks[kind] = mask
    return masks if len(masks) > 1 else next(iter(masks.values()))


@torch.no_grad()
def by_hand(model, talk: Talk) -> torch.Tensor:
    """Logits [1, vocabulary] after the last token: each adapter made active as PEFT does it, transformers' cache, masks written down."""
    cache, manager = DynamicCache(), model.manager

    def run(cache, start, end, adapter, attention):
        with manager.active_adapter(adapter):
            return model.base(
                input_ids=torch.tensor([talk.ids[start:end]]),
                attention_mask=hand_masks(manager.layout, attention, start, end - start),
                position_ids=torch.arange(start, end)[None],
                **cache_input(cache),
            ).logits

    def read_twice(cache, start, end):
        copies = [copy.deepcopy(cache) for _ in talk.variant.passes]
        for one, own in zip(talk.variant.passes, copies, strict=True):
            run(own, start, end, one.adapter, one.attention)
        if talk.variant.mixing is not None:
            for index, (first, second) in enumerate(zip(copies[0].layers, copies[1].layers, strict=True)):
                for part, alpha in (("keys", talk.variant.mixing.keys[index]), ("values", talk.variant.mixing.values[index])):
                    own, other = getattr(first, part), getattr(second, part)
                    mixed = (1 - alpha) * own[:, :, start:] + alpha * other[:, :, start:]
                    setattr(first, part, torch.cat([own[:, :, :start], mixed], dim=2))
        return copies[0]

    at = 0
    for asked, answered in (*talk.ends, (len(talk.ids), len(talk.ids))):
        if asked - 1 > at:
            cache, at = read_twice(cache, at, asked - 1), asked - 1
        logits = run(cache, at, answered, talk.variant.answer_adapter, "causal")
        at = answered
    return logits[:, -1]


@pytest.mark.parametrize(
    ("family", "method"), [*((family, "bitune") for family in sorted(FAMILIES)), *(("gemma3", method) for method in METHODS)]
)
def test_it_is_what_one_does_by_hand(family, method):
    model = bitune_on(tiny_model(family).double(), method)
    talk = talk_of(model)
    found, expected = alternating(model, talk), by_hand(model, talk).float()
    assert_close(found, expected)
    if method not in ("lora", "only_causal"):
        assert_apart(as_one_prompt(model, talk), expected, "read as one prompt it is something else")


@pytest.mark.parametrize("ends", [((1, 1),), ((1, 2), (3, 3)), ((6, 6), (7, 29)), ((29, 29),), ((4, 9), (9, 12), (12, 20))])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_turns_of_one_token_and_answers_of_none(family, ends):
    model = bitune_on(tiny_model(family))
    talk = talk_of(model, ends=ends)
    assert_close(alternating(model, talk), by_hand(model, talk))


@families
def test_conversations_of_several_lengths_share_a_batch(family):
    model = bitune_on(tiny_model(family))
    other = model.variant.with_mixing(MixingRatios.constant(4, 0.3))
    shorter = Talk(other, talk_of(model, seed=4).ids[:17], ((1, 3), (8, 9)))
    talks = [talk_of(model), shorter, talk_of(model, tokens=26, ends=ENDS[:1])]
    together = alternating(model, *talks)
    for row, talk in zip(together, talks, strict=True):
        assert_close(row, by_hand(model, talk)[0])


@families
@pytest.mark.parametrize("method", ["lora", None])
def test_one_causal_pass_is_how_transformers_goes_on_with_a_chat(family, method):
    model = bitune_on(tiny_model(family), "lora")
    adapter = model.names["causal"] if method else None
    variant = model.variant if method else METHODS["lora"].renamed({"causal": None}).with_mixing(None)
    talk = Talk(variant, talk_of(model).ids, ENDS)
    cache = DynamicCache(config=model.base.config)  # transformers' own, with its windows
    with torch.no_grad(), model.manager.eval_turn(), model.manager.active_adapter(adapter):
        for start, end in ((0, ENDS[0][1]), (ENDS[0][1], ENDS[1][1]), (ENDS[1][1], TOKENS)):
            expected = model.base(input_ids=torch.tensor([talk.ids[start:end]]), **cache_input(cache)).logits[:, -1]
        whole = model.base(input_ids=torch.tensor([talk.ids])).logits[:, -1]
    assert_close(expected, whole)
    assert_close(alternating(model, talk), expected)
    assert_close(as_one_prompt(model, talk), expected)


def lengths_run(model, call) -> list[int]:
    """How many tokens each forward of the decoder had during `call()`."""
    lengths = []
    hook = model.base.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        call()
    finally:
        hook.remove()
    return lengths


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral"])
def test_what_is_kept_is_what_would_be_run(family):
    """To the last bit, and only what is new is run."""
    model = bitune_on(tiny_model(family))
    model.manager.passes.limit = 2**20
    talk = talk_of(model)
    anew = alternating(model, talk)
    before = Talk(talk.variant, talk.ids[: ENDS[1][0]], ENDS[:1])
    alternating(model, before)
    kept = []
    ran = lengths_run(model, lambda: kept.append(alternating(model, talk)))
    assert torch.equal(kept[0], anew)
    assert ran == [1], "all of it was kept; the last token belongs to the answer"
    model.manager.passes.clear()
    alternating(model, before)
    answer, question = ENDS[1][1] - ENDS[1][0] + 1, TOKENS - 1 - ENDS[1][1]
    assert lengths_run(model, lambda: kept.append(alternating(model, talk))) == [answer, question, 1]
    assert torch.equal(kept[1], anew)
    model.manager.passes.limit = 0
    assert torch.equal(alternating(model, talk), anew), "kept nowhere, made again"


def test_nobody_gets_the_conversation_of_another():
    model = bitune_on(tiny_model())
    model.manager.passes.limit = 2**20
    talk = talk_of(model)

    def known(one: Talk) -> bool:
        with torch.no_grad(), model.manager.eval_turn():
            return read_conversations(model.manager, [one]).known[0]

    assert [known(talk), known(talk)] == [False, True]
    assert not known(Talk(model.variant, talk.ids, ((5, 10), ENDS[1]))), "other turns of the same tokens"
    assert not known(Talk(model.variant.with_mixing(MixingRatios.constant(4, 0.5)), talk.ids, ENDS))
    assert not known(Talk(METHODS["lora"].renamed(model.names).with_mixing(None), talk.ids, ENDS))
    assert not known(Talk(model.variant, (talk.ids[0] + 1, *talk.ids[1:]), ENDS))
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B.bidirectional" in name).add_(1)
    assert not known(talk), "other weights"


def test_a_check_may_end_it_before_any_layer():
    model = bitune_on(tiny_model())
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 11:
            raise InterruptedError

    with torch.no_grad(), model.manager.eval_turn(), pytest.raises(InterruptedError):
        read_conversations(model.manager, [talk_of(model)], check)


@pytest.mark.parametrize(("ends", "tokens", "fits"), [(((5, 9),), 12, True), (((5, 9),), 20, False), (((30, 33),), 40, True)])
def test_a_conversation_lies_on_one_side_of_a_rotary_switch(ends, tokens, fits):
    """Longer than 24 tokens, all keys are turned otherwise: what was kept of a shorter beginning would be none of this conversation."""
    torch.manual_seed(0)
    config = LlamaConfig(**GROUPED, rope_parameters=longrope_settings(24, [4.0, 3.0, 2.0, 8.0]))
    model = bitune_on(AutoModelForCausalLM.from_config(config).eval())
    layout, talk = model.manager.layout, talk_of(model, tokens=tokens, ends=ends)
    if not fits:
        with pytest.raises(PromptError, match="passes 24.*read the turns before again"):
            check_conversation(layout, talk.ids, ends, 6)
        return
    check_conversation(layout, talk.ids, ends, 6)
    assert_close(alternating(model, talk), by_hand(model, talk))


def test_without_a_switch_every_length_fits():
    check_conversation(SimpleNamespace(rotary_switch=None), range(1000), ((1, 1),), 1000)
