"""Prompt passes from memory: the same as those that are run, and never those of somebody else."""

from dataclasses import replace

import pytest
import torch

from bitune import METHODS
from bitune.adapters.kinds import new_peft_config
from bitune.adapters.layers import adapter_layers
from bitune.adapters.manager import AdapterManager
from bitune.model.bitune_model import BituneModel
from bitune.model.decoding import Decoder, read_variants
from bitune.model.likelihoods import likelihoods
from bitune.model.passes import Recall
from bitune.model.prefill import run_passes
from bitune.modeling.interface import before_each_layer
from bitune.modeling.pass_store import PassKey, PassStore, StoredPass
from bitune.reading import Reading, followed
from bitune.schema.variants import BASE, MixingRatios, PromptPass
from tests.closeness import assert_close
from tests.tiny import FAMILIES, WINDOW, bitune_on, ids, randomized, tiny_model

families = pytest.mark.parametrize("family", sorted(FAMILIES))


def flat(cache, row) -> torch.Tensor:
    return torch.cat([part[row].flatten() for layer in cache.layers for part in (layer.keys, layer.values)])


@torch.no_grad()
def recalled(manager, prompt, passes):
    """What memory gives for passes over one prompt, each beside the same pass run anew; and which of them were known."""
    wanted, recall = [(one, 0) for one in passes], Recall()
    with manager.eval_turn():
        found, rows = recall(manager, prompt, torch.ones_like(prompt), wanted)
        run, run_rows = run_passes(manager, prompt, torch.ones_like(prompt), wanted)
    return [(flat(found, rows[want]), flat(run, run_rows[want])) for want in wanted], [want in recall.known for want in wanted]


@families
@pytest.mark.parametrize("method", ["bitune", "only_causal"])
def test_a_pass_from_memory_is_the_pass_that_was_run(family, method):
    model = bitune_on(tiny_model(family), method)
    prompt = ids(WINDOW - 2)[0]
    for expected in (False, True):
        pairs, known = recalled(model.manager, prompt, model.variant.passes)
        assert known == [expected] * 2
        for found, run in pairs:
            assert_close(found, run)


@families
def test_a_prompt_longer_than_a_window_is_run_anew(family):
    model = bitune_on(tiny_model(family))
    prompt = ids(WINDOW + 3)[0]
    has_window = any(model.manager.layout.windows.values())
    for expected in (False, not has_window):
        pairs, known = recalled(model.manager, prompt, model.variant.passes)
        assert known == [expected] * 2
        for found, run in pairs:
            assert_close(found, run)


@pytest.mark.parametrize("family", sorted(name for name in FAMILIES if name not in ("mistral", "gemma3")))
@pytest.mark.parametrize("shared", [40, 59, 60])
def test_a_causal_pass_goes_on_from_the_longest_known_beginning(family, shared):
    model = bitune_on(tiny_model(family))
    model.manager.passes.limit = 2**20
    longer = ids(70)[0]
    first = torch.cat([longer[:, :shared], ids(60, seed=5)[0][:, shared:]], dim=1)
    recalled(model.manager, first, model.variant.passes)
    inputs = []
    hook = model.base.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    pairs, known = recalled(model.manager, longer, model.variant.passes)
    hook.remove()
    assert known == [False, False]
    assert sorted(inputs[:-1]) == [70 - shared, 70], "the bidirectional pass is run whole, the causal one from where they part"
    for found, run in pairs:
        assert_close(found, run)


def test_padding_is_not_kept():
    model = bitune_on(tiny_model())
    prompts = [prompt[0].tolist() for prompt in ids(5, 12)]
    answers = [(model.variant, 0), (model.variant, 1), (BASE.with_mixing(None), 0)]
    with torch.no_grad(), model.manager.eval_turn():
        first = read_variants(model.manager, prompts, answers, remember=True)
        alone = read_variants(model.manager, prompts[:1], answers[:1], remember=True)
        plain = read_variants(model.manager, prompts[:1], answers[:1])
        assert (first.known, alone.known) == ([False] * 3, [True])
        found, expected = (likelihoods(read, [0], [[3, 4]])[0].sum for read in (alone, plain))
    assert_close(torch.tensor(found), torch.tensor(expected))


def test_nobody_gets_the_pass_of_another():
    model = bitune_on(tiny_model())
    manager, prompt = model.manager, ids(9)[0]
    recalled(manager, prompt, model.variant.passes)
    others = [PromptPass(one.adapter, "anticausal") for one in model.variant.passes]
    others += [PromptPass(None, "causal"), PromptPass("causal", "bidirectional"), PromptPass("bidirectional", "causal")]
    assert recalled(manager, prompt, others)[1] == [False] * 5
    assert recalled(manager, ids(9, seed=4)[0], model.variant.passes)[1] == [False] * 2
    model.release()
    again = bitune_on(manager.model, seed=3)
    assert recalled(manager, prompt, again.variant.passes)[1] == [False] * 2
    other = bitune_on(tiny_model(seed=1))
    assert recalled(other.manager, prompt, other.variant.passes)[1] == [False] * 2


@pytest.mark.parametrize("change", ["fill", "in place", "data", "assign", "scaling", "base", "dtype"])
def test_weights_that_changed_are_read_again(change):
    model = bitune_on(tiny_model())
    manager, prompt = model.manager, ids(9)[0]
    assert recalled(manager, prompt, model.variant.passes)[1] == [False] * 2
    assert recalled(manager, prompt, model.variant.passes)[1] == [True] * 2
    with torch.no_grad():
        if change == "fill":
            weights = {key: value + 1 for key, value in manager.weights("causal").items()}
            manager.fill("causal", weights)
        elif change == "in place":
            next(p for name, p in model.named_parameters() if "lora_B.causal" in name).add_(1)
        elif change == "data":
            parameter = next(p for name, p in model.named_parameters() if "lora_B.causal" in name)
            parameter.data = parameter.data + 1
        elif change == "assign":
            state = {key: value + 1 for key, value in model.base.state_dict().items() if "lora_B.causal" in key}
            model.base.load_state_dict(state, strict=False, assign=True)
        elif change == "scaling":
            for layer in adapter_layers(model.base):
                layer.set_scale("causal", 3.0)
        elif change == "base":
            manager.model.get_input_embeddings().weight.mul_(1.5)
        else:
            manager.model.to(torch.float64)
    pairs, known = recalled(manager, prompt, model.variant.passes)
    assert known == [False, change not in ("base", "dtype")], "what did not change is still known"
    for found, run in pairs:
        assert_close(found, run)


def test_what_if_ratios_share_the_passes_of_their_checkpoint():
    model = bitune_on(tiny_model())
    prompt = ids(9)[0][0].tolist()
    what_if = model.variant.with_mixing(MixingRatios.constant(model.manager.layout.layers, 0.25))
    with torch.no_grad(), model.manager.eval_turn():
        read_variants(model.manager, [prompt], [(model.variant, 0)], remember=True)
        read = read_variants(model.manager, [prompt], [(what_if, 0), (model.variant, 0)], remember=True)
        plain = read_variants(model.manager, [prompt], [(what_if, 0), (model.variant, 0)])
    assert read.known == [True, True]
    for row in (0, 1):
        assert_close(flat(read.cache, row), flat(plain.cache, row))


def stored(tokens: int) -> StoredPass:
    return StoredPass([(torch.zeros(2, tokens, 4), torch.zeros(2, tokens, 4))] * 3)


def test_the_store_keeps_within_its_limit_and_drops_what_was_used_longest_ago():
    one = stored(5).nbytes
    store = PassStore(3 * one)
    keys = [PassKey(PromptPass(None, "causal"), (1, 0), (token,) * 5) for token in range(4)]
    for key in keys[:3]:
        store.put(key, stored(5))
    store.put(keys[0], stored(5))
    assert store.get(keys[0]) is not None and store.nbytes == 3 * one
    store.put(keys[3], stored(5))
    assert [store.get(key) is not None for key in keys] == [True, False, True, True]
    store.put(PassKey(PromptPass(None, "causal"), (1, 0), (9,) * 20), stored(20))
    assert len(store) == 3, "what is larger than all that may be kept drops nothing"
    store.limit = one
    assert len(store) == 1 and store.nbytes == one
    store.clear()
    assert len(store) == 0 == store.nbytes


def test_a_beginning_that_was_gone_on_from_counts_as_used():
    one = stored(5).nbytes
    store = PassStore(2 * one)
    begun, other, more = (
        PassKey(PromptPass(None, "causal"), (1, 0), ids) for ids in ((1, 2, 3, 4, 5), (6,) * 5, (1, 2, 3, 9, 9))
    )
    store.put(begun, stored(5))
    store.put(other, stored(5))
    assert store.longest_prefix(more, 4) == (None, 0), "too few to be a beginning"
    assert store.longest_prefix(more, 3)[1] == 3
    store.put(more, stored(5))
    assert store.get(begun) is not None and store.get(other) is None


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_all_methods_answer_from_memory_as_from_a_first_reading(kind):
    base = tiny_model()
    for method in sorted(METHODS):
        model = randomized(BituneModel.create(base, method, new_peft_config(base, kind)))
        prompt, answers = ids(9)[0][0].tolist(), [(model.variant, 0)]
        with torch.no_grad(), model.manager.eval_turn():
            sums = [
                likelihoods(read_variants(model.manager, [prompt], answers, remember=remember), [0], [[3, 4, 5]])[0].sum
                for remember in (False, True, True)
            ]
        for found in sums[1:]:
            assert_close(torch.tensor(found), torch.tensor(sums[0]))
        model.release()


# --- the first new token ----------------------------------------------------------------------------------------------


class Asked:
    """A base with a Bitune, asked for the first tokens of an answer as a request asks."""

    def __init__(self, family: str = "llama", method: str = "bitune", kind: str = "lora", dtype: torch.dtype = torch.float64):
        self.model = bitune_on(tiny_model(family).to(dtype), method, kind)
        self.manager = self.model.manager
        self.manager.passes.limit = 2**22
        self.forwards = []
        self.model.base.register_forward_pre_hook(lambda *_: self.forwards.append(1))

    @torch.no_grad()
    def scores(self, *rows, prompts=None, remember: bool = True, tokens: int = 3) -> tuple[torch.Tensor, int]:
        """Scores of the first `tokens` tokens [tokens, rows, vocabulary], and how many forwards the first took; rows: (variant, prompt)."""
        prompts = [prompt[0].tolist() for prompt in ids(9)] if prompts is None else prompts
        rows = list(rows) or [(self.model.variant, 0)]
        with self.manager.eval_turn():
            (decoder,) = [
                Decoder(read_variants(self.manager, prompts, rows, remember=remember), batch)
                for batch in self.manager.batches([variant.answer_adapter for variant, _ in rows])
            ]
        found = []
        with self.manager.eval_turn(), decoder.active():
            self.forwards.clear()
            for step in range(tokens):
                found.append(decoder.next_logits())
                if step == 0:
                    first = len(self.forwards)
                decoder.append(torch.full((len(rows),), 7))
        return torch.stack(found)[:, [decoder.rows.index(row) for row in range(len(rows))]], first


@families
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_prompt_that_is_asked_again_needs_no_forward_before_its_first_token(family, dtype):
    asked = Asked(family, dtype=dtype)
    prompts = [ids(WINDOW - 1)[0][0].tolist()]
    expected, _ = asked.scores(prompts=prompts, remember=False)
    for forwards in (1, 0, 0):
        found, first = asked.scores(prompts=prompts)
        assert first == forwards
        assert_close(found, expected)
        found.fill_(9)  # what was returned is the caller's


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_first_token_of_every_method_and_kind(method, kind):
    asked = Asked(method=method, kind=kind)
    expected, _ = asked.scores(remember=False)
    asked.scores()
    found, first = asked.scores()
    assert first == 0
    assert_close(found, expected)


def test_rows_of_several_prompts_and_variants_are_known_row_by_row():
    asked = Asked()
    prompts = [prompt[0].tolist() for prompt in ids(5, 12, 1)]
    base = BASE.with_mixing(None)
    rows = [(asked.model.variant, 0), (base, 1), (asked.model.variant, 1), (base, 0)]
    expected, _ = asked.scores(*rows, prompts=prompts, remember=False)
    for group in (rows[:2], rows[2:]):
        assert asked.scores(*group, prompts=prompts)[1] == 1
    found, first = asked.scores(*rows, prompts=prompts)
    assert first == 0, "each row is known from another batch"
    assert_close(found, expected)
    single = [(base, 2), (asked.model.variant, 2)]
    for read in (prompts, prompts[2:]):
        single = [(variant, len(read) - 1) for variant, _ in single]
        expected_single, _ = asked.scores(*single, prompts=read, remember=False)
        for _ in range(2):
            found, first = asked.scores(*single, prompts=read)
            assert_close(found, expected_single)
    assert first == 1, "nothing is kept of prompts of one token alone: they have no passes"
    assert_close(asked.scores(*rows, prompts=prompts)[0], expected)


def test_nobody_gets_the_first_token_of_another():
    """Another last token, other ratios, another adapter that answers: each needs a forward, and gets what it gets without memory."""
    asked, prompts = Asked(), [prompt[0].tolist() for prompt in ids(9)]
    variant = asked.model.variant
    asked.scores(prompts=prompts)
    other_token = [[*prompts[0][:-1], prompts[0][-1] + 1]]
    layers = asked.manager.layout.layers
    cases = [
        ((variant, 0), other_token),
        ((variant.with_mixing(MixingRatios.constant(layers, 0.25)), 0), prompts),
        ((variant.with_mixing(MixingRatios((0.1,) * layers, (0.2,) * layers)), 0), prompts),
        ((variant.with_mixing(MixingRatios((0.2,) * layers, (0.1,) * layers)), 0), prompts),
        ((replace(variant, passes=variant.passes[::-1]), 0), prompts),
        ((replace(variant, answer_adapter=None), 0), prompts),
        ((replace(variant, answer_adapter=variant.passes[1].adapter), 0), prompts),
    ]
    for row, read in cases:
        expected, _ = asked.scores(row, prompts=read, remember=False)
        found, first = asked.scores(row, prompts=read)
        assert first == 1
        assert_close(found, expected)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("name", ["lora_B.causal", "lora_A.bidirectional", "embed_tokens"])
def test_a_first_token_of_other_weights_is_not_taken(name, between):
    """They change between two requests, or between the turns of one: what it has read stays, and is not kept for others."""
    asked, prompts = Asked(), [prompt[0].tolist() for prompt in ids(9)]

    def change():
        with torch.no_grad():
            next(p for path, p in asked.model.named_parameters() if name in path).mul_(1.5).add_(0.1)

    asked.scores()
    if between:
        with torch.no_grad(), asked.manager.eval_turn():
            decoder = Decoder(read_variants(asked.manager, prompts, [(asked.model.variant, 0)], remember=True), [0])
        change()
        count = len(asked.manager.passes)
        with torch.no_grad(), asked.manager.eval_turn(), decoder.active():
            asked.forwards.clear()
            decoder.next_logits()
        assert len(asked.forwards) == 1 and len(asked.manager.passes) == count
    else:
        change()
    expected, _ = asked.scores(remember=False)
    found, first = asked.scores()
    assert first == 1
    assert_close(found, expected)


def test_first_tokens_count_into_the_limit():
    asked = Asked()
    asked.scores()
    store, layers = asked.manager.passes, asked.manager.layout.layers
    token = layers * 2 * 2 * 8 * 8 + 260 * 4
    queries = layers * 4 * 8 * 8 * 8 + 8 * 8  # and the mask, which layers share
    assert len(store) == 3
    assert store.nbytes == 2 * (layers * 2 * 2 * 8 * 8 * 8 + queries) + token, "two passes over 8 tokens, and one token"
    store.limit = store.nbytes - 1
    asked.scores()
    assert store.nbytes <= store.limit


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3"])
def test_whoever_follows_a_reading_knows_at_each_layer_how_much_is_left(family):
    manager = AdapterManager.of(tiny_model(family))
    ids = torch.randint(0, 256, (2, 40))
    wanted = [(PromptPass(None, attention), prompt) for attention in ("causal", "bidirectional") for prompt in range(2)]
    reading, shares = Reading(), []
    with (
        torch.no_grad(),
        manager.eval_turn(),
        followed(reading),
        before_each_layer(manager.modules, lambda: shares.append(reading.share)),
    ):
        Recall()(manager, ids, torch.ones_like(ids), wanted)
    assert shares == pytest.approx([layer / len(shares) for layer in range(len(shares))]), "as much more at each of them"
    assert reading.share is None, "nothing is left"
    longer = torch.cat([ids, ids], dim=1)
    with torch.no_grad(), manager.eval_turn(), followed(reading):
        Recall()(manager, longer, torch.ones_like(longer), wanted)
    assert reading.share is None, "nor where the beginning of a causal pass was known"
