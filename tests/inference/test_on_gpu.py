"""On a GPU everything comes out as on the CPU, in float32: answers of all kinds of adapters, sweeps, maps, lens, effects, training."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

import bitune
from bitune import BituneModel, ConfigError, Engine
from bitune.adapters.kinds import new_peft_config
from bitune.inference.batch import answer_batch
from bitune.inference.layers import layer_lens, stream_mixing_effects
from bitune.inference.parting import go_on, part
from bitune.inference.sweep import sweep
from bitune.schema.conversation import Turn
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import train
from tests.closeness import assert_close
from tests.tiny import bitune_on, randomized, saved_base
from tests.training.test_trainer import pairs

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NAMES = ["base", "qa", "plain", "dora"]
PROMPT = "Which way does it read, and which way does it answer?"
LONG = {"template": "none", "max_new_tokens": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    base = saved_base(folder / "base")
    for seed, (name, method, kind) in enumerate(
        [("qa", "bitune", "lora"), ("plain", "lora", "lora"), ("dora", "bitune", "dora")], 1
    ):
        model = bitune_on(base, method, kind, seed)
        model.save_pretrained(folder / name)
        model.release()
    return folder


@pytest.fixture
def engines(folder):
    """The same engine on the CPU and on the GPU."""
    both = [Engine(bitune.load_base(folder / "base", device=device, dtype="float32")) for device in ("cpu", DEVICE)]
    for engine in both:
        for name in NAMES[1:]:
            engine.add_checkpoint(folder / name)
    return both


def tokens(engine, prompt: str = PROMPT, **settings) -> dict[str, tuple[int, ...]]:
    *_, last = engine.stream(prompt, NAMES, **LONG | settings)
    return {name: completion.token_ids for name, completion in last.completions.items()}


@pytest.mark.usefixtures("clear_choices")
def test_answers(engines):
    here, there = engines
    for prompt in (PROMPT, "b", "a longer prompt, which has more tokens than the first one, and so on, and so on " * 3):
        expected = tokens(here, prompt)
        assert [tokens(there, prompt) for _ in range(3)] == [expected] * 3


def test_draws_and_turns(engines):
    here, there = engines
    for settings in (
        {"temperature": 1.0, "seed": 3},
        {"temperature": 0.7, "top_p": 0.8},
        {"history": [Turn("one", dict.fromkeys(NAMES, "two"))]},
        {"history": [Turn("one", dict.fromkeys(NAMES, "two"))], "earlier": "alternating"},
    ):
        expected = tokens(here, **settings)
        assert tokens(there, **settings) == expected
        assert tokens(there, **settings) == expected


def test_what_looks_inside(engines):
    answers = {name: list(ids) for name, ids in tokens(engines[0]).items()}
    for look in (
        lambda engine: np.stack(list(engine.attention(PROMPT, "qa", layers=[1], template="none").moved_keys)),
        lambda engine: list(engine.log_probabilities(PROMPT, NAMES, answers["qa"], template="none").values()),
        lambda engine: [point.log_probability for point in sweep(engine, PROMPT, "qa", [0.0, 1.0, 2.0], max_new_tokens=8)],
        lambda engine: np.stack(engine.moved(PROMPT, "dora", template="none")),
    ):
        here, *_, there = map(look, (*engines, engines[1], engines[1]))  # the third time in captured forwards
        assert_close(np.asarray(there, dtype=np.float32), np.asarray(here, dtype=np.float32), allowed=2e-3)


def test_why_answers_part(engines):
    answers = {name: list(ids) for name, ids in tokens(engines[0]).items()}
    here, there = (part(engine, PROMPT, NAMES, answers, template="none") for engine in engines)
    assert repr(here)[:200] and type(here) is type(there)
    for engine in engines:
        *_, last = go_on(engine, PROMPT, "qa", answers["qa"][:3], template="none", max_new_tokens=4)
        assert list(last.completions["qa"].token_ids) == answers["qa"][:7]
        *_, effects = stream_mixing_effects(engine, PROMPT, "qa", answers["qa"][:4], template="none")
        assert effects
        assert layer_lens(engine, PROMPT, ["qa"], answers["qa"][:4], 1, template="none")


def test_sets_of_prompts(engines):
    prompts = [PROMPT, "short", "something else"]
    here, there = (answer_batch(engine, prompts, NAMES, template="none", max_new_tokens=12) for engine in engines)
    assert [[one.token_ids for one in row.values()] for row in there] == [[one.token_ids for one in row.values()] for row in here]


def test_training_learns_and_the_checkpoint_answers(folder, tmp_path):
    for dtype in ("float32", "bfloat16"):
        base = bitune.load_base(folder / "base", device=DEVICE, dtype=dtype)
        torch.manual_seed(0)
        model = BituneModel.create(base, "bitune", new_peft_config(base.model, "lora", rank=4))
        settings = TrainingSettings(max_steps=1, per_device_train_batch_size=8, learning_rate=5e-3)
        first = train(model, pairs(64), settings, tmp_path / f"{dtype}-first")["train_loss"]
        settings = replace(settings, max_steps=40)
        assert train(model, pairs(64), settings, tmp_path / f"{dtype}-more")["train_loss"] < 0.9 * first
        model.save_pretrained(tmp_path / dtype)
        model.release()
        engine = Engine(base)
        engine.add_checkpoint(tmp_path / dtype, "new")
        *_, last = engine.stream(PROMPT, ["base", "new"], template="none", max_new_tokens=24)
        assert all(completion.tokens for completion in last.completions.values())


def test_training_beside_answers_of_a_captured_step(engines):
    """Adapters that learn on the same base change nothing of what others answer."""
    _, there = engines
    expected = tokens(there)
    assert tokens(there) == expected
    model = randomized(BituneModel.create(there.base, "bitune", new_peft_config(there.base.model, "lora", rank=4)))
    assert tokens(there) == expected
    model.release()
    assert tokens(there) == expected


def test_a_base_goes_to_the_gpu_by_itself_in_bfloat16(folder):
    engine = Engine(bitune.load_base(folder / "base"))
    assert (engine.base_facts.device, engine.base_facts.dtype) == ("cuda:0", "bfloat16")
    for name in NAMES[1:]:
        engine.add_checkpoint(folder / name)
    first = tokens(engine)
    assert tokens(engine) == first
    with pytest.raises(ConfigError, match="int8"):
        bitune.load_base(folder / "base", dtype="int8")


def test_memory_is_given_back(folder):
    before = None
    for _ in range(3):
        engine = Engine(bitune.load_base(folder / "base", device=DEVICE, dtype="float32"))
        for name in NAMES[1:]:
            engine.add_checkpoint(folder / name)
        for _ in range(3):
            tokens(engine)
        del engine
        gc.collect()
        torch.cuda.empty_cache()
        now = torch.cuda.memory_allocated()
        assert before is None or now <= before + 2**20, f"{now} bytes, {before} after the one before"
        before = now
