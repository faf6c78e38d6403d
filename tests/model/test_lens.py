"""What an answer position would say after each layer, against models that end after that layer, in float64."""

import copy

import pytest
import torch

from bitune import UnsupportedModelError
from bitune.model.lens import layer_logits
from bitune.model.prefill import Row
from bitune.schema.variants import MixingRatios
from tests.closeness import assert_apart, assert_close
from tests.families.by_hand import ByHand
from tests.families.subjects import Subject, tiny_model
from tests.tiny import ids
from tests.unharmed import hooks

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns about the name lora, some families about settings of their own

PROMPT, OTHER = ids(14, 9)[0][0].tolist(), ids(14, 9)[1][0].tolist()
PREFIX = ids(3, seed=5)[0][0].tolist()
# Norms of several names or none of ours, logits that are scaled (granite), capped (gemma2), projected (opt), tied (gpt2), biased (phi).
LAYERS = {
    "llama": "model.layers",
    "gemma2": "model.layers",
    "gemma3_text": "model.layers",
    "gpt2": "transformer.h",
    "granite": "model.layers",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "phi": "model.layers",
}


@pytest.fixture(scope="module", params=LAYERS)
def subject(request):
    found = Subject.of(tiny_model(request.param))
    found.layers = LAYERS[request.param]
    return found


def ending_after(model, path: str, layers: int):
    """A copy of a model without its last layers."""
    shorter = copy.deepcopy(model)
    parent, name = path.rsplit(".", 1)
    setattr(shorter.get_submodule(parent), name, shorter.get_submodule(path)[:layers])
    return shorter


@torch.no_grad()
def test_each_layer_says_what_a_model_that_ends_there_says(subject):
    variant, by_hand = subject.variants["bitune"], ByHand(subject, PROMPT)
    rows = [
        Row.of(variant, 0),
        Row(0, variant.passes[:1], answer_adapter=variant.answer_adapter),
        Row.of(subject.variants["base"], 1),
    ]
    own, first_pass, base = layer_logits(subject.manager, [PROMPT, OTHER], rows, PREFIX)
    caches = [by_hand.cache(variant.mixing), by_hand.cache(MixingRatios.constant(variant.mixing.layers, 0.0))]
    plain = copy.deepcopy(subject.plain).double()
    for layer in range(variant.mixing.layers):
        shorter = ending_after(by_hand.model.get_base_model(), subject.layers, layer + 1)
        for found, cache in zip((own, first_pass), caches, strict=True):
            assert_close(found[layer], by_hand.logits(cache, PREFIX, shorter)[-1].float(), f"layer {layer}")
        text = torch.tensor([[*OTHER, *PREFIX]])
        expected = ending_after(plain, subject.layers, layer + 1)(input_ids=text).logits[0, -1]
        assert_close(base[layer], expected.float(), f"layer {layer}, base")
    assert_apart(own[-1], first_pass[-1], "the mixed cache and the first pass's")
    assert_apart(own[0], own[-1], "the first layer and the last")


def test_the_base_is_left_as_it_was(subject):
    model = subject.manager.model
    before = hooks(model)
    layer_logits(subject.manager, [PROMPT], [Row.of(subject.variants["base"], 0)], [])
    assert hooks(model) == before
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_base_that_makes_more_of_its_last_layer_is_refused(subject, monkeypatch):
    """As one would that adds the embedding once more behind its layers: what the layers leave is then not all."""
    model = subject.manager.model
    head = model.get_output_embeddings()
    seen = []

    def add(_module, given):
        seen.append(given[0])
        return (given[0] + len(seen),)

    hook = head.register_forward_pre_hook(add)
    try:
        with pytest.raises(UnsupportedModelError, match="read alone, does not say what the base says"):
            layer_logits(subject.manager, [PROMPT], [Row.of(subject.variants["base"], 0)], PREFIX)
    finally:
        hook.remove()
    assert len(seen) == 2


@pytest.mark.parametrize(("family", "words"), [("hrm_text", "its 32 layers"), ("longcat_flash", "its 8 layers")])
def test_a_module_that_makes_several_layers_of_keys_and_values_is_refused(family, words):
    """The modules of hrm_text run several times in a forward; those of longcat_flash have two attentions each."""
    subject = Subject.of(tiny_model(family))
    modules = {"hrm_text": 8, "longcat_flash": 4}[family]
    with pytest.raises(UnsupportedModelError, match=f"{words} of keys and values in {modules} modules, several in each"):
        layer_logits(subject.manager, [PROMPT], [Row.of(subject.variants["base"], 0)], [])
