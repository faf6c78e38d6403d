"""A block that can be cancelled: everything that runs the model in it ends before the next layer or token, and leaves the base whole."""

import threading
from contextlib import closing

import pytest

from bitune import Engine
from bitune.cancellation import Cancelled, cancellable
from bitune.inference.sweep import stream_sweep
from bitune.modeling.interface import attention_modules
from tests.inference.test_session import answered
from tests.tiny import bitune_on, tiny_base
from tests.unharmed import hooks

PROMPT = "y" * 60


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    base, folder = tiny_base(), tmp_path_factory.mktemp("checkpoints")
    model = bitune_on(base)
    model.save_pretrained(folder / "qa")
    model.release()
    engine = Engine(base)
    engine.add_checkpoint(folder / "qa")
    return engine


@pytest.fixture
def cancelling(engine, monkeypatch):
    """Layers that ran; in the one of number `at` everything is cancelled."""
    stop, ran, at = threading.Event(), [], {"layer": 0}
    forward = type(attention_modules(engine.base.model.modules())[0]).forward

    def watched(self, *args, **kwargs):
        ran.append(self.layer_idx)
        if len(ran) - 1 == at["layer"]:
            stop.set()
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(attention_modules(engine.base.model.modules())[0]), "forward", watched)
    return stop, ran, at


@pytest.mark.parametrize("layer", [0, 2, 5, 9])
def test_attention_maps_end_before_the_next_layer(engine, cancelling, layer):
    """In the passes, whose layers come first, and in the answer on their cache, whose layers come after them."""
    stop, ran, at = cancelling
    at["layer"] = layer
    with cancellable(stop), pytest.raises(Cancelled):
        engine.attention(PROMPT, "qa", [0], answer="an answer")
    assert len(ran) == layer + 1
    unharmed(engine)


@pytest.mark.parametrize("layer", [0, 3, 6])
def test_log_probabilities_end_before_the_next_layer(engine, cancelling, layer):
    stop, ran, at = cancelling
    at["layer"] = layer
    engine.manager.passes.clear()
    with cancellable(stop), pytest.raises(Cancelled):
        engine.log_probabilities(PROMPT, ["base", "qa"], [65, 66, 67])
    assert len(ran) == layer + 1
    unharmed(engine)


def test_a_sweep_ends_wherever_it_is(engine):
    stop = threading.Event()
    with cancellable(stop), closing(stream_sweep(engine, PROMPT, "qa", max_new_tokens=200)) as points:
        while not next(points)[0].completion.tokens:
            pass
        stop.set()
        with pytest.raises(Cancelled):
            list(points)
    unharmed(engine)


def test_a_part_that_ends_alone_lets_the_whole_go_on(engine):
    with cancellable(threading.Event()):
        engine.stream(PROMPT, ["qa"], max_new_tokens=200).close()
        assert answered(engine.stream(PROMPT, ["qa"], max_new_tokens=4))["qa"][1] == "length"


def test_who_waits_for_a_turn_leaves(engine):
    stop, left = threading.Event(), threading.Event()

    def ask():
        with cancellable(stop), pytest.raises(Cancelled):
            engine.attention(PROMPT, "qa", [0])
        left.set()

    with engine.manager.turn():
        thread = threading.Thread(target=ask)
        thread.start()
        stop.set()
        assert left.wait(30)
        thread.join()


def unharmed(engine) -> None:
    """The base is bare and free, and what was read half is not taken for read."""
    assert not hooks(engine.base.model)
    before = answered(engine.stream(PROMPT, ["base", "qa"], max_new_tokens=6))
    engine.manager.passes.clear()
    assert answered(engine.stream(PROMPT, ["base", "qa"], max_new_tokens=6)) == before
