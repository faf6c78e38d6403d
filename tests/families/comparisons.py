"""What bitune computes against what transformers and PEFT compute without it, for one family's tiny model.

Each comparison raises AssertionError where they differ. A position that is off by one moves logits by hundreds of times what is allowed.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from bitune.model.decoding import Decoder, PromptCache, generate, read_variants, score
from bitune.model.likelihoods import likelihoods
from bitune.model.maps import attention_maps
from bitune.modeling.interface import cache_input
from tests.closeness import assert_apart, assert_close, rounding
from tests.families.subjects import Subject
from tests.tiny import ids

NEW_TOKENS = 4
GREEDY = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}
PROMPTS = ids(1, 5, 14)  # the last is longer than a sliding window
ANSWERS = ids(4, 4, 4, seed=5)
OTHERS = [torch.cat([answer[:, :2], other], 1) for answer, other in zip(ANSWERS, ids(3, 3, 3, seed=6), strict=True)]
ALL, LAST = range(len(PROMPTS)), len(PROMPTS) - 1
WITHOUT_BITUNE = ("base", "lora")
HALF = 2e-3  # of the largest weight: maps come in float16, which rounds by up to 5e-4


def read(subject: Subject, variants: Sequence[str], which: Sequence[int]) -> PromptCache:
    """The prompts `which`, once for each of `variants`."""
    rows = [(subject.variants[name], index) for name in variants for index in range(len(which))]
    return read_variants(subject.manager, [PROMPTS[index][0].tolist() for index in which], rows)


def logits_of(subject: Subject, variant: str, which: Sequence[int]) -> Tensor:
    """Logits [prompts, A, vocabulary] of the answers to the prompts `which`, in one batch."""
    answers = torch.cat([ANSWERS[index] for index in which])
    prompts = read(subject, [variant], which)
    ((_, logits),) = score(prompts, range(len(which)), answers, torch.ones_like(answers), lambda _, logits: logits)
    return logits


def generated(subject: Subject, variant: str, which: Sequence[int]) -> Tensor:
    """Greedy tokens int64 [prompts, NEW_TOKENS] of transformers' `generate` on bitune's cache, in one batch."""
    ((_, tokens),) = generate(read(subject, [variant], which), **GREEDY)
    return tokens[:, -NEW_TOKENS:]


def decoded(subject: Subject, which: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Greedy tokens [prompts, NEW_TOKENS] and logits [prompts, NEW_TOKENS, vocabulary] of each variant, step by step as the engine decodes."""
    names = list(subject.variants)
    prompts = read(subject, names, which)
    rows = range(len(prompts.rows))
    tokens = torch.zeros((len(rows), NEW_TOKENS), dtype=torch.long)
    logits: list[list[Tensor]] = [[] for _ in rows]
    for batch in subject.manager.batches(prompts.adapters(rows)):
        decoder = Decoder(prompts, batch)
        with decoder.active():
            for step in range(NEW_TOKENS):
                for row, values in zip(batch, decoder.next_logits(), strict=True):
                    logits[row].append(values)
                    tokens[row, step] = values.argmax()
                decoder.append(tokens[batch, step])
    by_variant = zip(tokens.split(len(which)), torch.stack([torch.stack(row) for row in logits]).split(len(which)), strict=True)
    return dict(zip(names, by_variant, strict=True))


def check_tokens(found: Tensor, expected: Tensor, logits: Tensor, what: str) -> None:
    """AssertionError unless tokens [steps] are equal, up to a step where `logits` [steps, vocabulary] leave the choice to rounding."""
    for step, (ours, theirs) in enumerate(zip(found.tolist(), expected.tolist(), strict=True)):
        if ours != theirs:
            lead = float(logits[step, theirs] - logits[step, ours])
            assert lead <= rounding(logits[step]), f"{what}: tokens {found.tolist()}, expected {expected.tolist()}"
            return


@torch.no_grad()
def generation(subject: Subject) -> None:
    """Greedy answers of the base and of LoRA are those of `generate` without bitune, also after a prompt of one token."""
    for index, prompt in enumerate(PROMPTS):
        stepwise = decoded(subject, [index])
        for name in WITHOUT_BITUNE:
            with_logits = {"return_dict_in_generate": True, "output_logits": True}
            theirs = subject.reference(name).generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), **GREEDY, **with_logits
            )
            expected, logits = theirs.sequences[0, -NEW_TOKENS:], torch.cat(theirs.logits)
            where = f"{name} after {prompt.shape[1]} tokens"
            check_tokens(generated(subject, name, [index])[0], expected, logits, where)
            check_tokens(stepwise[name][0][0], expected, logits, f"{where}, step by step")


@torch.no_grad()
def scores(subject: Subject) -> None:
    """Logits and log-likelihoods of given answers are those of one forward over prompt and answer without bitune."""
    for name in WITHOUT_BITUNE:
        given = [(index, choice) for index in ALL for choice in (ANSWERS[index], OTHERS[index], ANSWERS[index][:, :1])]
        rows, choices = [index for index, _ in given], [choice[0].tolist() for _, choice in given]
        sums = likelihoods(read(subject, [name], ALL), rows, choices)
        alone = likelihoods(read(subject, [name], ALL), ALL, [answer[0].tolist() for answer in ANSWERS])
        for place, (index, choice) in enumerate(given):
            start = PROMPTS[index].shape[1] - 1
            logits = subject.reference(name)(input_ids=torch.cat([PROMPTS[index], choice], 1)).logits[:, start:-1]
            expected = float(logits.log_softmax(-1).gather(-1, choice[..., None]).sum())
            assert_close(sums[place].sum, expected, f"{name}, log-likelihood of one of several")
            if choice is ANSWERS[index]:
                assert_close(logits_of(subject, name, [index]), logits, name)
                assert_close(alone[index].sum, expected, f"{name}, log-likelihood")


@torch.no_grad()
def padding(subject: Subject) -> None:
    """A batch of prompts of different lengths gives what each gives alone: the base, LoRA and Bitune."""
    stepwise, alone = decoded(subject, ALL), [decoded(subject, [index]) for index in ALL]
    for name in subject.variants:
        together, tokens = logits_of(subject, name, ALL), generated(subject, name, ALL)
        for index in ALL:
            where = f"{name}, row {index} of a batch"
            assert_close(together[index : index + 1], logits_of(subject, name, [index]), where)
            expected, logits = (values[0] for values in alone[index][name])
            check_tokens(tokens[index], expected, logits, where)
            check_tokens(stepwise[name][0][index], expected, logits, f"{where}, step by step")


@torch.no_grad()
def maps(subject: Subject) -> None:
    """Maps of the causal pass and of the answer are eager's `output_attentions`; every head of the bidirectional pass looks ahead."""
    prompt, answer = PROMPTS[LAST], ANSWERS[LAST]
    size, layers = prompt.shape[1] - 1, range(subject.manager.layout.layers)
    for name in WITHOUT_BITUNE:
        found = attention_maps(subject.manager, subject.variants[name], prompt[0].tolist(), answer[0].tolist(), layers)
        model = subject.reference(name)
        subject.plain.set_attn_implementation("eager")
        subject.peft.get_base_model().set_attn_implementation("eager")
        weights = model(input_ids=torch.cat([prompt, answer], 1), output_attentions=True).attentions
        keys = size + answer.shape[1]
        expected = torch.cat(weights)[..., :keys, :keys].numpy()  # [layers, heads, query, key] without the column of a sink
        assert_close(found.passes["causal"], expected[..., :size, :size], f"{name}, prompt", allowed=HALF)
        for part in (found.answer.mixed, found.answer.first_pass):
            assert_close(part, expected[..., size:, :], f"{name}, answer", allowed=HALF * float(expected[..., size:, :].max()))
    for prompt in (PROMPTS[1], PROMPTS[LAST]):  # of the shorter one everything is kept, also where windows slide
        prompt_ids, variant = prompt[0].tolist(), subject.variants["bitune"]
        subject.manager.passes.clear()
        recorded = attention_maps(subject.manager, variant, prompt_ids, [], layers)
        assert (recorded.summaries["bidirectional"].look_ahead > 0).all(), "a head of the bidirectional pass does not look ahead"
        subject.manager.passes.clear()
        read_variants(subject.manager, [prompt_ids], [(variant, 0)], remember=True)
        known = attention_maps(subject.manager, variant, prompt_ids, [], layers)
        for name, weights in recorded.passes.items():
            assert_close(known.passes[name], weights, f"Bitune, {name}, after an answer", allowed=HALF)


@torch.no_grad()
def bitune(subject: Subject) -> None:
    """Bitune is two passes of PEFT's model under masks made here, their caches mixed here, and an answer pass."""
    prompt, answer = PROMPTS[LAST], ANSWERS[LAST]
    mixing, prefix = subject.variants["bitune"].mixing, prompt[:, :-1]
    caches = []
    for reading in ("causal", "bidirectional"):
        subject.peft.set_adapter(reading)
        caches.append(DynamicCache(config=subject.plain.config))
        masks = hand_made_masks(subject, prefix.shape[1], reading)
        subject.peft(input_ids=prefix, attention_mask=masks, **onto(subject, caches[-1], 0, prefix.shape[1]))
    mixed, other = caches
    for layer, second, alpha_k, alpha_v in zip(mixed.layers, other.layers, mixing.keys, mixing.values, strict=True):
        layer.keys = (1 - alpha_k) * layer.keys + alpha_k * second.keys
        layer.values = (1 - alpha_v) * layer.values + alpha_v * second.values
    subject.peft.set_adapter("causal")
    inputs = torch.cat([prompt[:, -1:], answer[:, :-1]], 1)
    expected = subject.peft(input_ids=inputs, **onto(subject, mixed, prefix.shape[1], inputs.shape[1])).logits
    found = logits_of(subject, "bitune", [LAST])
    assert_close(found, expected, "Bitune")
    assert_apart(found, logits_of(subject, "lora", [LAST]), "Bitune and LoRA")


def hand_made_masks(subject: Subject, tokens: int, reading: str) -> Tensor | dict[str, Tensor]:
    """What is added to the scores of the plain model, [1, 1, query, key]; a dict by layer type where layers differ."""
    config = subject.plain.config.get_text_config(decoder=True).to_dict()
    window = config.get("sliding_window") or tokens
    distance = torch.arange(tokens)[None] - torch.arange(tokens)[:, None]
    hidden = {"full_attention": torch.zeros_like(distance, dtype=torch.bool), "sliding_attention": distance.abs() >= window}
    types = set(config.get("layer_types") or ["sliding_attention"])  # older families have one window, or none, for all layers
    lowest = torch.finfo(torch.float32).min
    masks = {}
    for kind in types:
        unseen = hidden[kind] | (distance > 0) if reading == "causal" else hidden[kind]
        masks[kind] = torch.zeros(tokens, tokens).masked_fill(unseen, lowest)[None, None]
    return masks if len(masks) > 1 else next(iter(masks.values()))


def onto(subject: Subject, cache: DynamicCache, start: int, tokens: int) -> dict[str, object]:
    """The arguments that run `tokens` tokens on `cache` from position `start` on; some families would count positions from the mask."""
    arguments: dict[str, object] = {"use_cache": True, **cache_input(cache)}
    if "position_ids" in inspect.signature(subject.plain.forward).parameters:
        arguments["position_ids"] = torch.arange(start, start + tokens)[None]
    return arguments


COMPARISONS = {
    "generation": generation,
    "scores": scores,
    "padding": padding,
    "Bitune": bitune,
    "maps": maps,  # last: it makes the models without bitune eager
}
