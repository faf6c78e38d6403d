"""Requests on one base at the same time: each is answered as if it were alone, and what is cancelled says so."""

import random
import threading
import time
from collections import Counter

import pytest
import torch

from bitune import BituneModel, ConfigError, Engine, UnknownNameError
from bitune.adapters import manager as manager_module
from bitune.adapters.layers import adapter_layers
from bitune.adapters.manager import AdapterManager
from bitune.inference.generate import TOKENS_A_TURN
from bitune.model.decoding import Decoder
from tests.authors import write_reference
from tests.tiny import bitune_on, ids, tiny_base, tiny_model
from tests.unharmed import hooks

PROMPTS = ("Which way does it read?", "Another visitor's prompt", "x", "A third one, somewhat longer than the others: 1 2 3")


def checkpoints(folder, base) -> None:
    """`qa` (Bitune), `plain` (LoRA) and `dora` (a Bitune that cannot share a batch) in this folder."""
    for seed, (name, method, kind) in enumerate(
        (("qa", "bitune", "lora"), ("plain", "lora", "lora"), ("dora", "bitune", "dora"))
    ):
        model = bitune_on(base, method, kind, seed + 1)
        model.save_pretrained(folder / name)
        model.release()


@pytest.fixture
def engine(tmp_path):
    base = tiny_base()
    checkpoints(tmp_path, base)
    engine = Engine(base)
    for name in ("qa", "plain", "dora"):
        engine.add_checkpoint(tmp_path / name)
    engine.folder = tmp_path
    return engine


def answered(updates) -> dict[str, tuple]:
    *_, last = updates
    return {name: (c.token_ids, c.finish_reason) for name, c in last.completions.items()}


def in_threads(*works) -> None:
    """Run them all at once; what one raises is raised here."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a request never ended"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_fifty_threads_stream_cancel_add_and_remove(engine, seed):
    """Every finished answer equals its answer alone, every cancelled one says so, and the base ends bare."""
    model = engine.base.model
    bare = model(ids(9)[0]).logits.detach()
    choices = [["base", "qa"], ["qa", "plain"], ["dora", "base"], ["base"], ["qa", "dora", "plain"]]
    settings = [{}, {"temperature": 1.0, "seed": 3}]
    requests = [(PROMPTS[i % 4], choices[i % 5], settings[i % 2]) for i in range(40)]
    common = {"template": "none", "max_new_tokens": 20}
    # Every twentieth request is the same.
    clock = time.monotonic()
    alone = [answered(engine.stream(prompt, names, **common, **more)) for prompt, names, more in requests[:20]] * 2
    as_long_as_all = 2 * (time.monotonic() - clock)
    outcomes = Counter()

    def ask(number: int) -> None:
        prompt, names, more = requests[number]
        draw = random.Random(1000 * seed + number)
        session = engine.stream(prompt, names, **common, **more)
        if number % 2:
            threading.Timer(draw.uniform(0, as_long_as_all), session.cancel).start()
        for name, (tokens, reason) in answered(session).items():
            expected, expected_reason = alone[number][name]
            if reason == "cancelled":
                assert number % 2 and tokens == expected[: len(tokens)] and len(tokens) < len(expected), (number, name)
            else:
                assert (tokens, reason) == (expected, expected_reason), (number, name)
            outcomes[reason] += 1

    def change(number: int) -> None:
        name = f"more {number}"
        for _ in range(2):
            engine.add_checkpoint(engine.folder / ("qa" if number % 2 else "plain"), name=name)
            session = engine.stream(PROMPTS[0], [name], **common)
            next(session)
            engine.remove_checkpoint(name)  # waits for the request
            assert {reason for _, reason in answered(session).values()} == {"length"}
            with pytest.raises(UnknownNameError):
                engine.stream(PROMPTS[0], [name], **common)

    in_threads(*[lambda n=n: ask(n) for n in range(40)], *[lambda n=n: change(n) for n in range(10)])
    assert outcomes["cancelled"] and outcomes["length"], outcomes
    assert torch.equal(model(ids(9)[0]).logits, bare) and not hooks(model)
    assert sorted(engine.variants) == ["base", "dora", "plain", "qa"]
    for name in ("qa", "plain", "dora"):
        engine.remove_checkpoint(name)
    assert not adapter_layers(model) and not engine.manager.names


def test_who_waits_can_leave_and_disturbs_nobody(engine):
    """A request that is cancelled while another one runs: nothing of it has run, and the other goes on to its end."""
    common = {"template": "none", "max_new_tokens": 40}
    alone = answered(engine.stream(PROMPTS[0], ["base", "qa"], **common))
    with engine.manager.turn():
        waiting, other = engine.stream(PROMPTS[1], ["qa"], **common), engine.stream(PROMPTS[0], ["base", "qa"], **common)
        assert next(waiting).phase == next(other).phase == "waiting"
        waiting.cancel()
        *_, last = waiting
        assert last.done and last["qa"].finish_reason == "cancelled" and last["qa"].tokens == 0
    assert answered(other) == alone


def test_a_short_request_does_not_wait_for_a_long_one(engine):
    """The long request gives its turn away every few tokens, first come first served."""
    steps: list[int] = []
    forward = Decoder.next_logits

    def counted(self):
        steps.append(len(self.rows))
        time.sleep(0.005)
        return forward(self)

    request = (PROMPTS[0], ["base", "qa", "plain"])
    alone = answered(engine.stream(*request, template="none", max_new_tokens=200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "next_logits", counted)
        long = engine.stream(*request, template="none", max_new_tokens=200)
        assert next(long).phase != "done"
        while not steps:
            next(long)
        before = steps.count(3)
        short = answered(engine.stream(PROMPTS[1], ["base"], template="none", max_new_tokens=TOKENS_A_TURN))
        between = steps.count(3) - before
        assert len(short["base"][0]) == TOKENS_A_TURN
        assert between <= 4 * TOKENS_A_TURN, "two turns of the short one, so two or three of the long one between"
        assert answered(long) == alone


def test_batches_that_cannot_be_one_are_written_in_step(engine):
    """Adapters that cannot be mixed, on an embedding say, run in a batch of their own, but not after the others have ended."""
    alone = set(engine.variants["dora"].adapters)
    session = engine.stream(PROMPTS[0], ["base", "dora"], template="none", max_new_tokens=64)
    order: list[int] = []
    forward = Decoder.next_logits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterManager, "can_mix", lambda self, adapters: not alone.intersection(adapters))
        patch.setattr(Decoder, "next_logits", lambda self: order.append(self.rows[0]) or forward(self))
        answered(session)
    turns = [order[start] for start in range(0, len(order), TOKENS_A_TURN)]
    assert turns == [0, 1] * 8


def test_a_checkpoint_is_not_removed_under_a_request(engine):
    session = engine.stream(PROMPTS[0], ["qa"], template="none", max_new_tokens=60)
    next(session)
    engine.remove_checkpoint("qa")
    *_, last = session
    assert (last["qa"].tokens, last["qa"].finish_reason) == (60, "length")
    assert "causal" not in engine.manager.names


def test_a_request_that_never_begins_leaves_nothing(engine):
    session = engine.stream(PROMPTS[0], ["qa"], template="none")
    session.close()
    del session
    engine.remove_checkpoint("qa")
    assert not [thread for thread in threading.enumerate() if thread.name == "bitune request"]


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Gets an entry for every forward of decoding."""
    taken, forward = [], Decoder.next_logits
    monkeypatch.setattr(Decoder, "next_logits", lambda self: taken.append(1) or time.sleep(0.002) or forward(self))
    return taken


@pytest.mark.parametrize("way", ["dropped", "closed", "closed by another thread", "cancelled"])
def test_a_request_that_is_stopped_ends_long_before_its_limit(engine, steps, way):
    session = engine.stream(PROMPTS[0], ["base", "qa"], template="none", max_new_tokens=450)
    while not steps:
        next(session)
    if way == "dropped":
        del session
    elif way == "closed by another thread":
        in_threads(session.close)
    else:
        session.close() if way == "closed" else session.cancel()
    if way != "dropped":
        *_, last = session
        assert {completion.finish_reason for completion in last.completions.values()} == {"cancelled"}
    engine.remove_checkpoint("qa")  # waits until the request has let go
    assert len(steps) < 200


def test_a_request_runs_what_it_was_made_with_or_says_that_it_is_gone(engine):
    """Not another checkpoint that came under the same name meanwhile, and not one whose adapters took the names of the old ones."""
    session = engine.stream(PROMPTS[0], ["qa"], template="none", max_new_tokens=8)
    engine.add_variant("mine", engine.variants["qa"])
    engine.remove_checkpoint("qa")
    engine.add_checkpoint(engine.folder / "plain", name="qa")
    with pytest.raises(UnknownNameError, match="variant called 'qa'"):
        list(session)
    with pytest.raises(UnknownNameError, match="variant called 'mine'"):
        list(engine.stream(PROMPTS[0], ["mine"], template="none"))


def test_a_removal_that_cannot_wait_leaves_the_checkpoint_there(engine):
    alone = answered(engine.stream(PROMPTS[0], ["qa"], template="none", max_new_tokens=200))
    session = engine.stream(PROMPTS[0], ["qa"], template="none", max_new_tokens=200)
    next(session)
    with engine.manager.turn(), pytest.raises(ConfigError, match="outside of a turn"):
        engine.remove_checkpoint("qa")
    assert answered(session) == alone == answered(engine.stream(PROMPTS[0], ["qa"], template="none", max_new_tokens=200))


def test_a_forward_whose_adapter_went_while_it_waited_is_refused(engine):
    """Not run as the bare base."""
    errors, manager = [], engine.manager

    def run():
        try:
            manager.run(["causal"], lambda rows: errors.append("it ran"))
        except UnknownNameError as error:
            errors.append(str(error))

    with manager.turn():
        thread = threading.Thread(target=run)
        thread.start()
        while not manager._turns.waiting:
            time.sleep(0.001)
        manager.remove("causal")
    thread.join(60)
    assert len(errors) == 1 and "'causal'" in errors[0]


def test_a_model_on_a_fresh_base_has_the_one_manager(monkeypatch, tmp_path):
    """Nobody else gets another one, with a lock of its own, while it is being made."""
    made, check = [], manager_module.check_supported
    monkeypatch.setattr(manager_module, "check_supported", lambda model: made.append(1) or check(model))
    bitune_on(tiny_base()).save_pretrained(tmp_path / "one")
    assert len(made) == 1
    BituneModel.from_pretrained(tmp_path / "one", base=tiny_base())
    assert len(made) == 2
    folder = write_reference(tmp_path / "reference", tiny_model())
    made.clear()
    BituneModel.from_reference(folder, base=tiny_base())
    assert len(made) == 1


def test_saving_and_loading_while_others_add_and_remove(engine, tmp_path):
    """Saving walks over no module, and new weights come between two forwards, not into one."""
    model = BituneModel.from_pretrained(engine.folder / "qa", base=engine.base)
    saved = model.to_checkpoint()

    def keep():
        for _ in range(10):
            model.load(saved)
            assert torch.equal(model.to_checkpoint().theta[0], saved.theta[0])

    def change(name):
        for _ in range(5):
            engine.add_checkpoint(engine.folder / "plain", name=name)
            engine.remove_checkpoint(name)

    in_threads(keep, keep, lambda: change("one"), lambda: change("two"))


def test_one_base_has_one_manager_whoever_asks_first():
    base = tiny_base()
    start, managers = threading.Barrier(8), []

    def ask():
        start.wait()
        managers.append(AdapterManager.of(base.model))

    in_threads(*[ask] * 8)
    assert len({id(manager) for manager in managers}) == 1


@pytest.mark.parametrize("failing", ["initial alpha", "theta", "facts", "name"])
def test_what_fails_half_way_leaves_the_base_bare(failing, tmp_path, monkeypatch):
    base = tiny_base()
    checkpoints(tmp_path, base)
    engine = Engine(base)
    if failing == "initial alpha":
        with pytest.raises(ConfigError, match="alpha would start"):
            BituneModel.create(base, initial_mixing_alpha=0.0)
    elif failing == "theta":
        monkeypatch.setattr("bitune.model.bitune_model.BituneModel._set_theta", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.add_checkpoint(tmp_path / "qa")
    elif failing == "facts":
        monkeypatch.setattr("bitune.inference.entries.kind_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.add_checkpoint(tmp_path / "qa")
    else:
        errors, start = [], threading.Barrier(2)

        def add():
            start.wait()
            try:
                engine.add_checkpoint(tmp_path / "qa", name="same")
            except ConfigError as error:
                errors.append(str(error))

        in_threads(add, add)
        assert len(errors) == 1 and "already there" in errors[0]
        engine.remove_checkpoint("same")
    assert not adapter_layers(base.model) and not engine.manager.names and list(engine.variants) == ["base"]


def test_a_request_cannot_remove_what_it_holds(engine):
    with engine.manager.hold(["causal"]), pytest.raises(ConfigError, match="in use"):
        engine.manager.remove("causal")
    with engine.manager.turn():
        engine.manager.remove("causal")
    with pytest.raises(UnknownNameError):
        engine.manager.remove("causal")


def test_an_update_says_how_far_the_request_is(engine):
    phases = [update.phase for update in engine.stream(PROMPTS[0], ["qa"], template="none", max_new_tokens=300)]
    assert phases[-1] == "done" and "writing" in phases[:-1]
    ranks = [("waiting", "reading", "writing", "done").index(phase) for phase in phases]
    assert ranks == sorted(ranks)
