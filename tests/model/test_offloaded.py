"""A base of which some layers stay on disk until they run: the same answers and scores, with and without adapters."""

import pytest
import torch

from bitune import BituneModel, CheckpointError, ConfigError, Engine, load_base
from bitune.data.batches import TokenPair
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import train
from tests.closeness import assert_close
from tests.tiny import bitune_on, ids, saved_base

PLACES = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"} | {
    f"model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(4)
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """The same base whole, and with every second layer on disk."""
    folder = tmp_path_factory.mktemp("base")
    saved_base(folder)
    return load_base(folder, device="cpu", dtype="float32"), load_base(folder, dtype="float32", device_map=PLACES)


def is_absent(base, layer: int) -> bool:
    weights = list(base.model.model.layers[layer].parameters())
    return all(weight.is_meta for weight in weights if not weight.requires_grad)


def saved(base, folder, method: str, kind: str = "lora"):
    model = bitune_on(base, method, kind)
    model.save_pretrained(folder)
    model.release()
    return folder


@pytest.mark.parametrize(("method", "kind"), [("lora", "lora"), ("bitune", "lora"), ("bitune", "ia3")])
def test_a_checkpoint_answers_and_scores_the_same(bases, method, kind, tmp_path):
    checkpoint = saved(bases[0], tmp_path / "checkpoint", method, kind)
    prompt, answer = ids(9)[0], ids(5, seed=9)[0]
    found = []
    for base in bases:
        model = BituneModel.from_pretrained(checkpoint, base=base)
        with torch.no_grad():
            found.append((model.generate(prompt, max_new_tokens=6), model(prompt, answer).logits))
        model.release()
    assert torch.equal(found[0][0], found[1][0])
    assert_close(found[1][1], found[0][1])
    assert is_absent(bases[1], 1) and not is_absent(bases[1], 0)


def test_a_batch_of_variants_streams_the_same(bases, tmp_path):
    checkpoints = {method: saved(bases[0], tmp_path / method, method) for method in ("lora", "bitune")}
    said = []
    for base in bases:
        engine = Engine(base)
        for name, checkpoint in checkpoints.items():
            engine.add_checkpoint(checkpoint, name=name)
        *_, last = engine.stream("hello there what", ["base", "lora", "bitune"], max_new_tokens=6)
        said.append({name: completion.text for name, completion in last.completions.items()})
        for name in checkpoints:
            engine.remove_checkpoint(name)
    assert said[0] == said[1] and len(set(said[0].values())) == 3
    assert is_absent(bases[1], 1)


def test_what_needs_the_weights_themselves_is_refused(bases, tmp_path):
    checkpoint = saved(bases[0], tmp_path / "dora", "bitune", "dora")
    with pytest.raises(CheckpointError, match="14 of them are offloaded"):
        BituneModel.from_pretrained(checkpoint, base=bases[1])
    model = BituneModel.create(bases[1])
    with pytest.raises(ConfigError, match="weights of the base are offloaded"):
        train(model, [TokenPair([5, 6], [7])], TrainingSettings(), tmp_path / "state")
    model.release()
    assert not any(weight.requires_grad for weight in bases[1].model.parameters())
