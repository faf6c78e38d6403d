"""Adapters on a shared base: which one runs is undone whatever happens, and nobody disturbs anybody else."""

import copy
import pickle
import threading
from itertools import combinations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from bitune import BituneModel, ConfigError, UnknownNameError, UnsupportedModelError
from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.base.fingerprint import fingerprint, same_weights
from tests.closeness import assert_apart, assert_close
from tests.tiny import bitune_on, randomized, tiny_model
from tests.unharmed import ANSWER, PROMPT, bare, hooks, scores

KINDS = ["lora", "dora", "ia3"]
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 258}


def under(manager: AdapterManager, adapter: str | None) -> torch.Tensor:
    with manager.active_adapter(adapter):
        return bare(manager.model)


def wrapped(model) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# --- at rest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_at_rest_the_base_is_bare(kind):
    logits, tokens = bare(tiny_model()), tiny_model().generate(PROMPT, **GREEDY)
    model = bitune_on(tiny_model(), kind=kind)
    for use in (
        lambda: None,
        lambda: scores(model),
        lambda: model.generate(PROMPT, **GREEDY),
        lambda: model.train()(PROMPT, ANSWER).loss.backward(),
    ):
        use()
        model.eval()
        assert torch.equal(bare(model.base), logits)
        assert torch.equal(model.base.generate(PROMPT, **GREEDY), tokens)
    assert_apart(scores(model)[:, 0], logits[:, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_removing_the_last_adapter_leaves_the_base_as_it_came(kind):
    base = tiny_model()
    modules, parameters = [type(m) for m in base.modules()], {n: p.data_ptr() for n, p in base.named_parameters()}
    attributes, logits = set(vars(base)), bare(base)
    models = [bitune_on(base, kind=kind, seed=seed) for seed in (1, 2)]
    expected = scores(models[1])
    models[0].release()
    assert wrapped(base)
    assert_close(scores(models[1]), expected)
    models[1].release()
    assert [type(m) for m in base.modules()] == modules
    assert {n: p.data_ptr() for n, p in base.named_parameters()} == parameters
    assert set(vars(base)) == attributes and not hooks(base)
    assert torch.equal(bare(base), logits)
    again = bitune_on(base, kind="ia3" if kind == "lora" else "lora")  # another kind, now that the base is empty
    assert again.names.keys() == {"causal", "bidirectional"}


def test_names_get_numbers_and_none_is_given_twice():
    """Whoever still knows a removed adapter by its name must not get another one."""
    manager = AdapterManager.of(tiny_model())
    config = new_peft_config(manager.model)
    names = [manager.add("a", config, trainable=False) for _ in range(3)]
    assert names == ["a", "a_2", "a_3"] and manager.names == ("a", "a_2", "a_3")
    manager.remove("a_2")
    assert manager.add("a", config, trainable=False) == "a_4"
    assert manager.names == ("a", "a_3", "a_4")


def test_the_weights_of_an_adapter_are_its_own():
    base = tiny_model()
    manager = AdapterManager.of(base)
    models = [bitune_on(manager.model, "lora", seed=seed) for seed in (1, 2)]
    assert manager.names == ("causal", "causal_2")
    first, second = (manager.weights(name) for name in manager.names)
    assert first.keys() == second.keys() and not any(torch.equal(first[key], second[key]) for key in first)
    manager.fill("causal_2", first)
    assert all(torch.equal(value, first[key]) for key, value in manager.weights("causal_2").items())
    key = next(iter(first))
    first[key].zero_()
    assert not manager.weights("causal")[key].eq(0).any(), "a copy, not the parameter itself"
    assert [model.trainable_parameters() for model in models] == [sum(value.numel() for value in first.values())] * 2


def test_unknown_adapters_are_named():
    model = bitune_on(tiny_model())
    manager = model.manager
    for call in (
        manager.config,
        manager.weights,
        lambda name: under(manager, name),
        lambda name: manager.run([None, name], lambda rows: 1),
    ):
        with pytest.raises(UnknownNameError, match="'causl'.*'bidirectional', 'causal'.*'causal'"):
            call("causl")


# --- switching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_using_is_undone_also_when_nested_and_after_exceptions(kind):
    model = bitune_on(tiny_model(), kind=kind)
    manager = model.manager
    alone = {name: under(manager, name) for name in (None, *manager.names)}
    assert_apart(alone["causal"], alone["bidirectional"])
    with manager.active_adapter("causal"):
        with manager.active_adapter("bidirectional"):
            with manager.active_adapter(None):
                assert torch.equal(bare(manager.model), alone[None])
            assert torch.equal(bare(manager.model), alone["bidirectional"])
        assert torch.equal(bare(manager.model), alone["causal"])
        with pytest.raises(ZeroDivisionError), manager.active_adapter("bidirectional"):
            raise ZeroDivisionError
        assert torch.equal(bare(manager.model), alone["causal"])
        with pytest.raises(UnknownNameError), manager.active_adapter("nobody"):
            pass
        assert torch.equal(bare(manager.model), alone["causal"])
    assert torch.equal(bare(manager.model), alone[None])


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["before the forward", "inside the forward"])
def test_a_mixed_batch_is_undone_after_an_exception(moment, error):
    model = bitune_on(tiny_model())
    manager, logits = model.manager, bare(model.base)
    expected, before = scores(model), hooks(model.base)

    def call(rows):
        assert len(rows) == 3 and hooks(model.base) > before, "all in one batch"
        if moment == "inside the forward":
            handle = model.base.model.layers[2].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(error()))
            try:
                model.base(PROMPT.repeat(3, 1))
            finally:
                handle.remove()
        raise error

    with pytest.raises(error):
        manager.run([None, "causal", "bidirectional"], call)
    assert hooks(model.base) == before
    assert torch.equal(bare(model.base), logits) and torch.equal(scores(model), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_rows_run_under_their_own_adapters(kind, training):
    model = bitune_on(tiny_model(), kind=kind).train(training)
    other = bitune_on(model.base, "lora", kind="dora" if kind == "lora" else kind, seed=3).train(training)
    manager = model.manager
    order = ["bidirectional", None, other.names["causal"], "causal", "bidirectional", None]
    alone = {name: under(manager, name)[0] for name in set(order)}
    prompts, results = PROMPT.repeat(len(order), 1), torch.zeros(len(order), *alone[None].shape)
    seen = []
    with torch.no_grad():
        for rows, logits in manager.run(order, lambda rows: manager.model(prompts[rows]).logits):
            results[rows] = logits
            seen += rows
    assert sorted(seen) == list(range(len(order)))
    for row, name in enumerate(order):
        assert_close(results[row], alone[name])


def test_who_can_share_a_batch():
    lora = bitune_on(tiny_model())
    manager = lora.manager
    assert manager.can_mix([None, "causal", "bidirectional"])
    dora = bitune_on(lora.base, "lora", kind="dora")
    assert manager.can_mix([None, "causal", "bidirectional"]), "a DoRA beside them is no obstacle"
    assert not manager.can_mix(["causal", dora.names["causal"]])
    assert not manager.can_mix([dora.names["causal"]])
    order = ["causal", dora.names["causal"], None, "bidirectional", "causal"]
    assert [rows for rows, _ in manager.run(order, lambda rows: None)] == [[0, 4, 2, 3], [1]], "with gradients PEFT runs"
    manager.model.train()
    assert not manager.can_mix(["causal", "bidirectional"])
    manager.model.eval()
    dora.release()
    assert manager.can_mix(["causal", "bidirectional"])
    assert not bitune_on(tiny_model(), kind="ia3").manager.can_mix(["causal", None])


def test_without_gradients_all_kinds_share_a_batch():
    lora = bitune_on(tiny_model())
    dora = bitune_on(lora.base, "lora", kind="dora")
    with torch.no_grad():
        assert lora.manager.can_mix([None, "causal", dora.names["causal"]])
        assert bitune_on(tiny_model(), kind="ia3").manager.can_mix(["causal", None])
        with torch.autocast("cpu", torch.bfloat16):
            assert not lora.manager.can_mix([dora.names["causal"]]), "autocast casts as PEFT's products come"


def test_adapters_of_different_places_and_ranks_share_a_batch():
    base = tiny_model()
    manager = AdapterManager.of(base)
    configs = [
        LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"]),
        LoraConfig(r=5, lora_alpha=3, use_rslora=True, target_modules=["v_proj", "down_proj"]),
        LoraConfig(r=3, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 7}, layers_to_transform=[1, 3]),
    ]
    models = [randomized(BituneModel.create(base, "lora", config), seed) for seed, config in enumerate(configs)]
    names = [model.names["causal"] for model in models]
    assert manager.can_mix([None, *names])
    alone = [under(manager, name) for name in (None, *names)]
    with torch.no_grad():
        ((rows, mixed),) = manager.run([None, *names], lambda rows: base(PROMPT.repeat(4, 1)).logits)
    for row, expected in enumerate(alone):
        assert_close(mixed[row : row + 1], expected)
    for one, other in combinations(alone, 2):
        assert_apart(one, other)


def test_threads_wait_for_each_other():
    model = bitune_on(tiny_model())
    manager = model.manager
    expected = {name: under(manager, name) for name in (None, "causal", "bidirectional")}
    expected["bitune"] = scores(model)
    wrong: list[str | None] = []

    def work(name):
        for _ in range(8):
            found = scores(model) if name == "bitune" else under(manager, name)
            if not torch.equal(found, expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in expected if name is not None]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- learning ---------------------------------------------------------------------------------------------------------


def own_parameters(model: BituneModel) -> set[str]:
    slots = tuple(f".{name}" for name in model.names.values())
    return {name for name, _ in model.base.named_parameters() if name.endswith((*slots, *(f"{s}.weight" for s in slots)))}


@pytest.mark.parametrize("kind", KINDS)
def test_only_trainable_adapters_require_gradients_before_and_after_use(kind, tmp_path):
    base = tiny_model()
    learning = bitune_on(base, kind=kind)
    learning.save_pretrained(tmp_path / "checkpoint")
    fixed = BituneModel.from_pretrained(tmp_path / "checkpoint", base=base, trainable=False)
    expected = own_parameters(learning)
    assert expected
    for use in (
        lambda: None,
        lambda: scores(learning),
        lambda: scores(fixed),
        lambda: under(learning.manager, fixed.names["causal"]),
        lambda: learning.generate(PROMPT, **GREEDY),
        lambda: learning.train()(PROMPT, ANSWER).loss.backward(),
    ):
        use()
        assert trainable(base) == expected
        assert {p.requires_grad for p in fixed.mixing.parameters()} == {False}
    fixed.release()
    assert trainable(base) == expected
    learning.release()
    assert not trainable(base)


@pytest.mark.parametrize("kind", KINDS)
def test_training_one_model_leaves_the_bits_of_another(kind):
    base = tiny_model()
    still, moving = bitune_on(base, kind=kind, seed=1), bitune_on(base, kind=kind, seed=2)
    before = still.to_checkpoint(), scores(still), bare(base), scores(moving)
    optimizer = torch.optim.AdamW([p for p in moving.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    moving.train()
    for _ in range(3):
        moving(PROMPT, ANSWER).loss.backward()
        for name, parameter in base.named_parameters():
            if name in own_parameters(still):
                assert parameter.grad is None, name
        optimizer.step()
        optimizer.zero_grad()
    moving.eval()
    after = still.to_checkpoint()
    for slot, adapter in before[0].adapters.items():
        assert all(torch.equal(value, after.adapters[slot].weights[key]) for key, value in adapter.weights.items())
    assert torch.equal(scores(still), before[1]) and torch.equal(bare(base), before[2])
    assert_apart(scores(moving), before[3])


def test_gradient_checkpointing_is_refused_in_training():
    model = bitune_on(tiny_model())
    model.base.activation_checkpointing_enable()
    scores(model)
    with pytest.raises(ConfigError, match="Gradient checkpointing is on.*turn it off"):
        model.train()(PROMPT, ANSWER)


# --- copies and foreign adapters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_a_model_of_its_own(way, kind):
    model = bitune_on(tiny_model(), kind=kind)
    expected, logits = scores(model), bare(model.base)
    twin = way(model)
    assert torch.equal(scores(twin), expected) and torch.equal(bare(twin.base), logits)
    assert twin.manager is not model.manager and twin.manager.model is twin.base
    assert AdapterManager.of(twin.base) is twin.manager
    randomized(twin, seed=9)
    assert not torch.equal(scores(twin), expected)
    twin.release()
    assert not wrapped(twin.base) and torch.equal(scores(model), expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_base_with_foreign_adapters_is_refused():
    base = tiny_model()
    foreign = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    logits = bare(base)
    for model in (base, foreign):
        with pytest.raises(UnsupportedModelError, match="already carries adapters.*bare base"):
            BituneModel.create(model)
    assert torch.equal(bare(base), logits) and wrapped(base)
    bitune_on(foreign.unload())


# --- fingerprints -----------------------------------------------------------------------------------------------------


def test_a_fingerprint_tells_bases_apart_but_not_precisions():
    prints = [fingerprint(tiny_model(seed=seed)) for seed in (0, 0, 1)]
    assert prints[0] == prints[1] and len(prints[0]) > 40
    assert not same_weights(prints[0], prints[2])
    for dtype in (torch.bfloat16, torch.float16):
        assert same_weights(prints[0], fingerprint(tiny_model().to(dtype)))
    assert not same_weights(prints[0], prints[0][:-1]) and not same_weights(prints[0], ())
    tuned = tiny_model()
    for parameter in tuned.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    assert not same_weights(prints[0], fingerprint(tuned))


def test_a_fingerprint_is_of_the_bare_base():
    base = tiny_model()
    model = bitune_on(base)
    assert model.manager.fingerprint == model.bitune_config.base.fingerprint == fingerprint(tiny_model())
    assert bitune_on(base).bitune_config.base.fingerprint == fingerprint(tiny_model())
