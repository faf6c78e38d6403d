"""Two ways to compute a thing give the same: the method against transformers, batches against single runs, limits against rows."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from bitune import METHODS, MixingRatios
from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_left
from bitune.model.decoding import read_prompts, score
from bitune.model.prefill import Row, prefill
from bitune.modeling.interface import cache_input
from bitune.schema.variants import BASE
from tests.closeness import assert_apart, assert_close
from tests.greedy import greedy
from tests.tiny import END, FAMILIES, WINDOW, bitune_on, ids, tiny_model

GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
families = pytest.mark.parametrize("family", sorted(FAMILIES))
methods = pytest.mark.parametrize("method", sorted(METHODS))


def caches_of(manager, prompt, rows):
    with torch.no_grad():
        return prefill(manager, prompt, torch.ones_like(prompt), rows)


def stacked(cache) -> torch.Tensor:
    """[rows, layers x (k, v), ...] as one tensor; sliding layers keep fewer tokens, so flattened a row."""
    parts = [part.flatten(1) for layer in cache.layers for part in (layer.keys, layer.values)]
    return torch.cat(parts, dim=1)


@families
def test_a_causal_pass_is_the_models_own_prompt_pass(family):
    model = tiny_model(family)
    manager = AdapterManager.of(model)
    (prompt,) = ids(14)
    ours = caches_of(manager, prompt, [Row(0, BASE.passes)])
    own = DynamicCache(config=model.config)
    with torch.no_grad():
        model(prompt[:, :-1], **cache_input(own))
    assert_close(stacked(ours), stacked(own))


@families
def test_base_variant_generates_as_plain_transformers(family):
    model = tiny_model(family)
    manager = AdapterManager.of(model)
    for prompt in ids(1, 2, 14):
        cache = caches_of(manager, prompt, [Row(0, BASE.passes)])
        mask = torch.ones_like(prompt)
        ours = greedy(model, prompt, attention_mask=mask, **{**GREEDY, **cache_input(cache)})
        assert torch.equal(ours, model.generate(prompt, attention_mask=mask, **GREEDY)), prompt.shape


@families
def test_left_padded_batch_equals_one_by_one(family):
    model = bitune_on(tiny_model(family))
    prompts = ids(1, 2, 5, 13)
    batch, mask = pad_left([p[0].tolist() for p in prompts], 258)
    answers = ids(4, 4, 4, 4, seed=5)
    answer_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    with torch.no_grad():
        together = model(batch, torch.cat(answers), mask, answer_mask)
    tokens = greedy(model, batch, mask, **GREEDY)
    losses = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        length = int(answer_mask[row].sum())
        with torch.no_grad():
            alone = model(prompt, answer[:, :length])
        assert_close(together.logits[row, :length], alone.logits[0])
        assert torch.equal(tokens[row, -6:], model.generate(prompt, **GREEDY)[0, -6:]), row
        losses += [alone.loss] * length
    assert_close(together.loss, torch.stack(losses).mean())


@families
def test_one_batch_of_adapters_equals_one_adapter_at_a_time(family, monkeypatch):
    model = bitune_on(tiny_model(family))
    (prompt,) = ids(13)
    rows = [Row.of(model.variant, 0), Row(0, BASE.passes), Row(0, model.variant.passes[1:])]
    together = caches_of(model.manager, prompt, rows)
    assert model.manager.can_mix([None, *model.names.values()])
    asked = []
    monkeypatch.setattr(AdapterManager, "can_mix", lambda self, adapters: asked.append(adapters))
    assert_close(stacked(together), stacked(caches_of(model.manager, prompt, rows)))
    assert asked, "nobody asked can_mix, so both caches were computed in the same way"


@families
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_mistakes_move_the_logits_by_far_more_than_rounding(family, kind):
    """So that the comparisons with tiny models would show them: they are small in all else."""
    model = bitune_on(tiny_model(family), kind=kind)
    prompt, answer = ids(13, 4)
    causal, bidirectional = model.variant.passes
    keys, values = model.mixing()
    right = Row(0, (causal, bidirectional), keys, values, causal.adapter)
    wrong = {
        "masks of the passes swapped": replace(
            right, passes=(replace(causal, attention="bidirectional"), replace(bidirectional, attention="causal"))
        ),
        "adapters of the passes swapped": replace(
            right, passes=(replace(causal, adapter=bidirectional.adapter), replace(bidirectional, adapter=causal.adapter))
        ),
        "both passes causal": replace(right, passes=(causal, replace(bidirectional, attention="causal"))),
        "one adapter for both passes": replace(right, passes=(causal, replace(bidirectional, adapter=causal.adapter))),
        "the wrong adapter answers": replace(right, answer_adapter=bidirectional.adapter),
        "no adapter answers": replace(right, answer_adapter=None),
        "mixed the other way round": replace(right, alpha_k=1 - keys, alpha_v=1 - values),
        "ratios of keys and values swapped": replace(right, alpha_k=values, alpha_v=keys),
        "ratios of another layer": replace(right, alpha_k=keys.roll(1), alpha_v=values.roll(1)),
        "another token read": replace(right, prompt=1),
    }
    other = prompt.clone()
    other[0, 4] += 1
    rows = [right, *wrong.values()]
    with torch.no_grad():
        read = read_prompts(model.manager, torch.cat([prompt, other]), torch.ones_like(prompt).expand(2, -1), rows)
        answers, found = answer.expand(len(rows), -1), {}
        for indices, logits in score(read, range(len(rows)), answers, torch.ones_like(answers), lambda indices, logits: logits):
            found |= dict(zip(indices, logits, strict=True))
        assert_close(found[0], model(prompt, answer).logits[0])
    for index, mistake in enumerate(wrong, 1):
        assert_apart(found[index], found[0], mistake)


@families
def test_the_passes_see_what_they_should(family):
    """Eager attention weights of each pass: exactly zero where nothing may be seen, above zero where it may."""
    from bitune.modeling.masks import pass_masks

    model = tiny_model(family, attention="eager")
    layout = AdapterManager.of(model).layout
    (prompt,) = ids(11)
    index = torch.arange(11)
    distance = index[:, None] - index[None]
    types = getattr(model.config, "layer_types", None) or ["all"] * 4
    for attention, seen in (("causal", distance >= 0), ("anticausal", distance <= 0), ("bidirectional", distance == distance)):
        masks = pass_masks(layout, [attention], torch.ones_like(prompt), "eager", model.dtype)
        with torch.no_grad():
            maps = model(prompt, attention_mask=masks, output_attentions=True).attentions
        for layer, weights in enumerate(maps):
            sliding = types[layer] == "sliding_attention" or family == "mistral"
            expected = seen & (distance.abs() < WINDOW) if sliding else seen
            assert torch.equal(weights[0] > 0, expected.expand(4, -1, -1)), (attention, layer)


@methods
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_every_method_and_kind_trains_all_its_parts(method, kind):
    model = bitune_on(tiny_model(), method, kind).train()
    prompt, answer = ids(9, 4)
    model(prompt, answer).loss.backward()
    for slot, name in model.names.items():
        gradients = [p.grad for key, p in model.named_parameters() if f".{name}" in key and p.grad is not None]
        assert any(g.abs().max() > 0 for g in gradients), slot
    if model.mixing is not None:
        assert model.mixing.theta_k.grad.abs().max() > 0
        assert model.mixing.theta_v.grad.abs().max() > 0
    moved = {key for key, p in model.named_parameters() if p.grad is not None or p.requires_grad}
    adapters = tuple(f".{name}" for name in model.names.values())
    foreign = {key for key in moved if not key.startswith("mixing.") and not key.removesuffix(".weight").endswith(adapters)}
    assert not foreign, f"the base is frozen, but training would move {sorted(foreign)}"


@methods
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_training_mode_scores_as_eval_mode(method, kind):
    model = bitune_on(tiny_model(), method, kind)
    prompt, answer = ids(9, 4)
    with torch.no_grad():
        assert_close(model.train()(prompt, answer).logits, model.eval()(prompt, answer).logits)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_limits_of_mixing_are_rows_of_the_table(family):
    """alpha 0 is the causal pass alone, alpha 1 the bidirectional pass alone (no mixing)."""
    model = bitune_on(tiny_model(family))
    layers = model.manager.layout.layers
    (prompt,) = ids(13)
    limits = [model.variant.with_mixing(MixingRatios.constant(layers, alpha)) for alpha in (0.0, 1.0)]
    single = [Row(0, (reading,)) for reading in model.variant.passes]
    cache = stacked(caches_of(model.manager, prompt, [*(Row.of(v, 0) for v in limits), *single]))
    assert torch.equal(cache[0], cache[2])
    assert torch.equal(cache[1], cache[3])
    assert_apart(cache[2], cache[3])


def test_a_pass_that_rows_share_is_run_once(monkeypatch):
    model = bitune_on(tiny_model())
    (prompt,) = ids(9)
    sizes = []
    decoder = type(model.base.base_model)
    forward = decoder.forward
    monkeypatch.setattr(
        decoder,
        "forward",
        lambda self, input_ids=None, **k: sizes.append(len(input_ids)) or forward(self, input_ids=input_ids, **k),
    )
    half = model.variant.with_mixing(MixingRatios.constant(4, 0.5))
    caches_of(
        model.manager, prompt, [Row.of(model.variant, 0), Row.of(half, 0), Row(0, model.variant.passes[:1]), Row(0, BASE.passes)]
    )
    assert sizes == [3], "causal with A, bidirectional with B, the base: three rows of one forward"


def test_beams_sampling_stop_strings_and_streamers_are_transformers_own(base):
    from transformers import TextStreamer

    class Collected(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            said.append(text)

    model = bitune_on(base)
    batch, mask = pad_left([p[0].tolist() for p in ids(4, 9)], 258)
    beams = model.generate(batch, mask, num_beams=3, num_return_sequences=2, **GREEDY)
    assert beams.shape == (4, 9 + 6)
    alone = model.generate(batch[1:], mask[1:], num_beams=3, num_return_sequences=2, **GREEDY)
    assert torch.equal(beams[2:], alone), "beams of a padded batch are those of the prompt alone"
    torch.manual_seed(0)
    sampled = model.generate(batch, mask, do_sample=True, temperature=1.5, max_new_tokens=6, pad_token_id=258, eos_token_id=None)
    torch.manual_seed(1)
    other = model.generate(batch, mask, do_sample=True, temperature=1.5, max_new_tokens=6, pad_token_id=258, eos_token_id=None)
    assert not torch.equal(sampled, other)
    said: list[str] = []
    tokens = model.generate(batch[1:], mask[1:], streamer=Collected(base.tokenizer, skip_prompt=True), **GREEDY)
    assert "".join(said) == base.tokenizer.decode(tokens[0, 9:])
    text = base.tokenizer.decode(tokens[0, 9:])
    stop = next(c for c in text[:-1] if c.isprintable() and c != "\ufffd")
    short = model.generate(batch[1:], mask[1:], stop_strings=[stop], tokenizer=base.tokenizer, **GREEDY)
    assert short.shape[1] < tokens.shape[1]
    assert base.tokenizer.decode(short[0, 9:]) == text[: text.index(stop) + 1]


def test_a_generation_ends_at_the_end_token():
    model = bitune_on(tiny_model())
    (prompt,) = ids(9)
    free = model.generate(prompt, **GREEDY)[0, 9:]
    stopped = model.generate(prompt, **(GREEDY | {"eos_token_id": int(free[2])}))[0, 9:]
    assert stopped.tolist() == free[: free.tolist().index(free[2]) + 1].tolist()
    assert END not in free.tolist()
