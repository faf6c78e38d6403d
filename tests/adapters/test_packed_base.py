"""A base whose engine packs its linear layers: whoever else uses it gets what the plain base gives."""

import copy
import gc
import pickle

import pytest
import torch
from peft import LoraConfig
from torch import nn

from bitune import BituneModel, CheckpointError, Engine
from bitune.adapters import kinds
from bitune.adapters.manager import AdapterManager
from bitune.base.fingerprint import fingerprint
from bitune.base.loading import Base
from bitune.modeling.packed import PackedLinear, SharedLinear, can_pack
from tests.adapters.peft_folders import EQUAL, base_of, write_peft
from tests.closeness import assert_close
from tests.tiny import bitune_on, randomized, tiny_base, tiny_model, tiny_tokenizer
from tests.unharmed import ANSWER, PROMPT, bare, scores

pytestmark = pytest.mark.skipif(
    not can_pack(), reason="this torch or processor packs no weights; test_contract_torch.py says why"
)
REQUEST = {"template": "none", "max_new_tokens": 8}


def count(model: nn.Module) -> int:
    return sum(type(module) is PackedLinear for module in model.modules())


def ask(engine: Engine) -> dict[str, str]:
    *_, last = engine.stream("Which way?", list(engine.variants), **REQUEST)
    return {name: completion.text for name, completion in last.completions.items()}


def engine_on(model) -> Engine:
    return Engine(Base(model, tiny_tokenizer(), "tiny", None, None))


def saved(folder, seed: int = 1, kind: str = "lora", family: str = "llama"):
    """The folder of a random Bitune checkpoint for the tiny base."""
    bitune_on(tiny_model(family), kind=kind, seed=seed).save_pretrained(folder)
    return folder


@pytest.fixture
def packed():
    """An engine that has answered, so that its base is packed."""
    engine = engine_on(tiny_model())
    ask(engine)
    assert count(engine.base.model) == 4 * 7 + 1
    return engine


def test_an_engine_packs_when_it_runs_and_counts_the_base_as_it_is(packed):
    plain = tiny_model()
    assert packed.manager.base_parameters == packed.base_facts.parameters == sum(p.numel() for p in plain.parameters())
    assert packed.manager.fingerprint == fingerprint(plain)
    assert packed.base_facts.dtype == "float32"
    assert_close(bare(packed.base.model), bare(plain))


def test_a_base_without_an_engine_stays_plain():
    model = bitune_on(tiny_model())
    scores(model)
    assert count(model.base) == 0


def test_the_next_engine_on_a_packed_base_knows_it(packed, tmp_path):
    model = packed.base.model
    del packed
    gc.collect()
    assert count(model)
    again = engine_on(model)
    plain = AdapterManager.of(tiny_model())
    assert (again.manager.fingerprint, again.manager.base_parameters) == (plain.fingerprint, plain.base_parameters)
    again.add_checkpoint(saved(tmp_path / "qa"))
    assert ask(again).keys() == {"base", "qa"} and count(model)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_adding_to_a_packed_engine_unpacks_and_the_next_request_packs_again(packed, kind, tmp_path):
    folders = [saved(tmp_path / name, seed, kind) for name, seed in (("one", 1), ("two", 2))]
    model, before = packed.base.model, bare(packed.base.model)
    expected = {}
    for folder in folders:
        packed.add_checkpoint(folder)
        assert count(model) == 0
        expected[folder.name] = packed.log_probabilities("Which way?", [folder.name], [5, 6, 7], template="none")[folder.name]
        assert count(model) == 4 * 7 + 1
        plain = BituneModel.from_pretrained(folder, base=tiny_base())
        engine = engine_on(plain.base)
        engine.manager._packs = False
        engine.add_variant("plain", plain.variant)
        (value,) = engine.log_probabilities("Which way?", ["plain"], [5, 6, 7], template="none").values()
        assert_close(expected[folder.name], value)
    for name in ("one", "two"):
        packed.remove_checkpoint(name)
    assert_close(bare(model), before)


def test_an_adapter_that_changes_the_base_is_refused_in_words_on_a_packed_base(packed, monkeypatch):
    """PiSSA subtracts itself from the base; by its name at once, and by what it has done where nobody knew the name."""
    model, before = packed.base.model, {key: value.clone() for key, value in packed.base.model.state_dict().items()}

    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa", task_type="CAUSAL_LM")
    with pytest.raises(CheckpointError, match="init_lora_weights"):
        BituneModel.create(packed.base, "lora", config)
    monkeypatch.setattr(kinds, "_CHANGES_THE_BASE", ())
    with pytest.raises(CheckpointError, match="changes the weights of the base"):
        BituneModel.create(packed.base, "lora", config)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert ask(packed).keys() == {"base"} and count(model)


@pytest.mark.parametrize("tied", [True, False])
def test_the_base_of_a_packed_engine_is_saved_as_it_was_loaded(tied, tmp_path):
    family = "gemma" if tied else "llama"
    engine = engine_on(tiny_model(family))
    ask(engine)
    assert count(engine.base.model) and any(type(m) is SharedLinear for m in engine.base.model.modules()) == tied
    engine.base.model.save_pretrained(tmp_path / "packed")
    tiny_model(family).save_pretrained(tmp_path / "plain")
    name = "model.safetensors"
    assert (tmp_path / "packed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert count(engine.base.model), "still packed"


def test_training_on_a_packed_base_takes_the_steps_that_it_takes_on_a_plain_one(packed):
    def created(base) -> BituneModel:
        torch.manual_seed(3)  # PEFT's adapters begin at random
        return bitune_on(base)

    def trained(model) -> list[torch.Tensor]:
        model.train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        for _ in range(3):
            model(PROMPT, ANSWER).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p for p in model.parameters() if p.requires_grad]

    expected, model = trained(created(tiny_model())), created(packed.base)
    assert count(packed.base.model) == 0
    ours = trained(model)
    for one, other in zip(ours, expected, strict=True):
        assert_close(one, other)
    ask(packed)
    assert count(packed.base.model) == 0, "an engine beside a training runs plain weights"
    model.release()
    ask(packed)
    assert count(packed.base.model)


@pytest.mark.parametrize("name", ["lora", "embeddings", "tied embeddings"])
def test_filling_an_adapter_on_a_packed_base(name, tmp_path):
    """A file of PEFT may hold layers of the base, which are compared with the base's own."""
    from safetensors.torch import load_file

    family, config = EQUAL[name]
    base = base_of(family)
    folders = [write_peft(tmp_path / str(seed), base, config(), seed) for seed in (1, 2)]
    engine = engine_on(base)
    engine.add_checkpoint(folders[0], name="qa")
    adapter = engine.variants["qa"].answer_adapter
    ask(engine)
    assert count(base)
    engine.manager.check_fit(adapter, load_file(folders[1] / "adapter_model.safetensors"))
    engine.manager.fill(adapter, load_file(folders[1] / "adapter_model.safetensors"))
    plain = engine_on(base_of(family))
    plain.add_checkpoint(folders[1], name="qa")
    assert ask(engine) == ask(plain)


def test_reading_an_adapters_weights_unpacks_nothing(packed, tmp_path, monkeypatch):
    packed.add_checkpoint(saved(tmp_path / "qa"))
    ask(packed)
    expected = bitune_on(tiny_model()).manager.weights("causal")

    def reads(self):
        raise AssertionError("a copy of a weight of the base was made")

    monkeypatch.setattr(PackedLinear, "weight", property(reads))
    adapter = packed.variants["qa"].answer_adapter
    found = packed.manager.weights(adapter)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    assert packed.manager.trainable_parameters([adapter]) == sum(value.numel() for value in expected.values())


WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda base: pickle.loads(pickle.dumps(base))}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_a_copy_of_a_packed_base_runs_and_packs_on_its_own(way, family, tmp_path):
    engine = engine_on(tiny_model(family))
    engine.add_checkpoint(saved(tmp_path / "qa", family=family))
    expected = ask(engine)
    model = WAYS[way](engine.base.model)
    manager = AdapterManager.of(model)
    assert manager is not engine.manager and manager.names == engine.manager.names
    assert not any(isinstance(module, PackedLinear | SharedLinear) for module in model.modules())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (family == "gemma")
    twin = engine_on(model)
    twin.add_variant("qa", engine.variants["qa"])
    assert ask(twin) == expected and count(model) == count(engine.base.model)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    assert ask(engine) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_packed_base_that_is_moved_to_another_dtype_runs_in_it(packed, dtype, tmp_path):
    packed.add_checkpoint(saved(tmp_path / "qa"))
    ask(packed)
    packed.base.model.to(dtype)
    assert count(packed.base.model) == 0
    plain = tiny_base()
    engine = engine_on(plain.model)
    engine.add_checkpoint(tmp_path / "qa")
    plain.model.to(dtype)
    given = {
        name: e.log_probabilities("Which way?", ["base", "qa"], [5, 6], template="none")
        for name, e in (("a", packed), ("b", engine))
    }
    for name in ("base", "qa"):
        assert_close(given["a"][name], given["b"][name])


def test_a_base_that_learns_itself_is_not_packed():
    model = tiny_model()
    engine = engine_on(model)
    model.requires_grad_(True)
    ask(engine)
    assert count(model) == 0


def test_a_request_under_inference_mode_leaves_a_base_that_can_learn(tmp_path):
    folder = saved(tmp_path / "qa")
    engine = engine_on(tiny_model())
    with torch.inference_mode():
        engine.add_checkpoint(folder)
        engine.log_probabilities("Which way?", ["base", "qa"], [5, 6], template="none")
    assert not any(parameter.is_inference() for parameter in engine.base.model.parameters())
    model = randomized(BituneModel.from_pretrained(folder, base=engine.base))
    model.train()(PROMPT, ANSWER).loss.backward()
    assert not any(parameter.is_inference() for parameter in engine.base.model.parameters())


def remembered(engine: Engine) -> dict[str, bool]:
    *_, last = engine.stream("Which way?", list(engine.variants), **REQUEST)
    return {name: completion.from_memory for name, completion in last.completions.items()}


@pytest.mark.parametrize("change", ["set", "load"])
def test_what_a_packed_base_remembers_goes_with_a_weight_that_is_packed(packed, change):
    assert remembered(packed) == {"base": True}
    layer = packed.base.model.model.layers[1].mlp.up_proj
    assert type(layer) is PackedLinear
    other = torch.randn_like(layer.weight)
    if change == "set":
        layer.weight = nn.Parameter(other, requires_grad=False)
    else:
        packed.base.model.load_state_dict({"model.layers.1.mlp.up_proj.weight": other}, strict=False)
    first = ask(packed)
    packed.manager.passes.clear()
    assert ask(packed) == first
    assert remembered(packed) == {"base": True}, "what was read since is known"


def test_a_dora_is_measured_by_the_base_as_it_is(packed, tmp_path):
    packed.add_checkpoint(saved(tmp_path / "dora", kind="dora"), name="dora")
    layer = packed.base.model.model.layers[1].mlp.up_proj.base_layer
    before = ask(packed)
    weight = layer.weight * 30 + 1
    layer.weight = nn.Parameter(weight, requires_grad=False)
    found = ask(packed)
    fresh = engine_on(tiny_model())
    fresh.base.model.model.layers[1].mlp.up_proj.weight.data = weight.clone()
    fresh.add_checkpoint(tmp_path / "dora", name="dora")
    assert ask(fresh) == found != before


def test_a_checkpoint_that_comes_or_goes_lets_the_others_remember(packed, tmp_path):
    for number, kind in enumerate(("lora", "lora", "dora")):
        packed.add_checkpoint(saved(tmp_path / str(number), number, kind), name=str(number))
        others = {name: name != str(number) for name in packed.variants}
        assert remembered(packed) == others
    packed.remove_checkpoint("1")
    assert remembered(packed) == {"base": True, "0": True, "2": True}


def test_nothing_of_a_removed_checkpoint_stays(packed, tmp_path):
    packed.add_checkpoint(saved(tmp_path / "stays", 1), name="stays")
    ask(packed)

    def held() -> int:
        gc.collect()
        storages = {}
        for thing in gc.get_objects():
            if type(thing) in (torch.Tensor, nn.Parameter) and thing.layout == torch.strided:
                storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        return sum(storages.values())

    sizes = []
    for seed in (2, 3, 4):
        packed.add_checkpoint(saved(tmp_path / str(seed), seed), name="comes")
        ask(packed)
        packed.remove_checkpoint("comes")
        ask(packed)
        packed.manager.passes.clear()
        sizes.append(held())
    assert sizes == sizes[:1] * 3


def test_where_memory_runs_out_what_is_remembered_makes_room(packed):
    assert len(packed.manager.passes) > 0
    with pytest.raises(RuntimeError, match="can't allocate memory"), packed.manager.eval_turn():
        torch.empty(2**50, dtype=torch.uint8)
    assert len(packed.manager.passes) == 0
    ask(packed)
    with pytest.raises(RuntimeError, match="another"), packed.manager.eval_turn():
        raise RuntimeError("another")
    assert len(packed.manager.passes) > 0
