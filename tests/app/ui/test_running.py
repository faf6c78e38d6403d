"""A request that waits, runs in its thread, is closed or loses its client: nothing of it stays."""

import asyncio
import threading
import time
from contextlib import aclosing

import pytest

from app.limits import Limits
from app.ui.admission import Admission, Refused
from app.ui.caller import Gone
from app.ui.loading import WAITING, Loading, NotLoadedError, OnEngine
from app.ui.pace import Work
from app.ui.running import Waiting, admitted
from bitune.cancellation import check, current
from tests.app.ui.visiting import Visitor, collected

WORK = Work(1)


def place(running: int = 1, loading: Loading | None = None, **limits: int) -> OnEngine:
    """Where requests run; its engine is only waited for."""
    admission = Admission(Limits(running=running, **{"per_address": 100} | limits))
    return OnEngine(loading or Loading.done(object()), admission)


class Model:
    """Runs until it is cancelled or told to end, as a forward does that looks before every layer."""

    def __init__(self):
        self.end, self.running, self.cancelled = threading.Event(), threading.Event(), threading.Event()

    def run(self):
        self.running.set()
        try:
            yield "first"
            while not self.end.wait(0.005):
                check(current())
        except BaseException:
            self.cancelled.set()
            raise
        yield "last"


def request(on: OnEngine, model: Model, visitor: Visitor | None = None):
    return admitted(on, visitor or Visitor(), lambda: WORK, model.run)


async def until(condition, seconds: float = 30.0) -> None:
    """Wait for it; the event loop goes on."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        await asyncio.sleep(0.01)


def test_the_values_come_and_the_place_is_free_afterwards():
    on, model = place(), Model()
    model.end.set()
    assert asyncio.run(collected(request(on, model)))[-1] == "last"
    assert on.admission.counts == (0, 0)


def test_who_waits_is_told_where_and_is_let_in():
    on, first, second = place(), Model(), Model()

    async def visit() -> None:
        running = asyncio.create_task(collected(request(on, first)))
        await until(first.running.is_set)
        async with aclosing(request(on, second)) as values:
            words = await anext(values)
            assert isinstance(words, Waiting) and "number 1 of 1 in the line" in words.words
            first.end.set()
            second.end.set()
            assert [value async for value in values][-1] == "last"
        await running

    asyncio.run(visit())


def test_fifty_wait_without_a_thread_each():
    on, first, rest = place(waiting=60), Model(), Model()
    rest.end.set()

    async def visit() -> None:
        running = asyncio.create_task(collected(request(on, first)))
        await until(first.running.is_set)
        waiting = [asyncio.create_task(collected(request(on, rest))) for _ in range(50)]
        await until(lambda: on.admission.counts == (1, 50))
        await asyncio.sleep(0.3)
        assert sum(thread.name == "bitune page request" for thread in threading.enumerate()) == 1
        first.end.set()
        assert {values[-1] for values in await asyncio.gather(*waiting)} == {"last"}
        await running

    asyncio.run(visit())
    assert on.admission.counts == (0, 0)


@pytest.mark.parametrize("way", ["close", "cancel", "leave"])
def test_who_leaves_while_it_runs_frees_the_place_when_the_thread_has_ended(way):
    on, model, visitor = place(), Model(), Visitor()

    async def visit() -> None:
        values = request(on, model, visitor)
        assert await anext(values) == "first"
        if way == "close":
            await values.aclose()
        elif way == "cancel":
            task = asyncio.create_task(anext(values))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            visitor.leave()
            with pytest.raises(Gone):
                await anext(values)
        await until(lambda: on.admission.counts == (0, 0))
        assert model.cancelled.is_set()

    asyncio.run(visit())
    assert on.admission.pace.seconds(WORK) is None, "a request that was stopped says nothing about the pace"


@pytest.mark.parametrize("way", ["close", "leave"])
def test_who_leaves_while_waiting_runs_nothing(way):
    on, first, second, visitor = place(), Model(), Model(), Visitor()

    async def visit() -> None:
        running = asyncio.create_task(collected(request(on, first)))
        await until(first.running.is_set)
        values = request(on, second, visitor)
        await anext(values)
        if way == "close":
            await values.aclose()
        else:
            visitor.leave()
            with pytest.raises(Gone):
                await collected(values)
        assert on.admission.counts == (1, 0)
        first.end.set()
        await running

    asyncio.run(visit())
    assert not second.running.is_set()


def test_errors_of_the_run_and_of_its_work_come_out_and_free_the_place():
    on = place()

    def fails():
        yield "first"
        raise ValueError("run")

    def wrong():
        raise ValueError("work")

    for work, run, words in ((lambda: WORK, fails, "run"), (wrong, fails, "work")):
        with pytest.raises(ValueError, match=words):
            asyncio.run(collected(admitted(on, Visitor(), work, run)))
        assert on.admission.counts == (0, 0)


async def at_once(work):
    """As `asyncio.to_thread`, without one."""
    return work()


def test_a_thread_that_cannot_begin_frees_the_place(monkeypatch):
    on, model = place(), Model()

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        patched.setattr(asyncio, "to_thread", at_once)  # the work is counted in a thread too
        with pytest.raises(RuntimeError, match="can't start new thread"):
            asyncio.run(collected(request(on, model)))
    assert on.admission.counts == (0, 0)


def test_what_runs_no_model_waits_for_nobody():
    on, model = place(), Model()

    async def visit() -> None:
        running = asyncio.create_task(collected(request(on, model)))
        await until(model.running.is_set)
        assert await collected(admitted(on, Visitor(), lambda: None, lambda: (number for number in [1]))) == [1]
        model.end.set()
        await running

    asyncio.run(visit())


def test_a_full_line_refuses_also_while_the_engine_is_loading():
    loading = Loading()
    on, model = place(loading=loading, waiting=1), Model()
    model.end.set()

    async def visit() -> None:
        first = request(on, model)
        assert (await anext(first)).words.startswith(WAITING)
        with pytest.raises(Refused):
            await anext(request(on, model))
        loading.finish(object())
        assert (await collected(first))[-1] == "last"

    asyncio.run(visit())


def test_who_waits_for_an_engine_that_does_not_come_is_told_so():
    loading = Loading()
    on, visitor = place(loading=loading), Visitor()

    async def visit() -> None:
        failing, leaving = request(on, Model()), request(on, Model(), visitor)
        await anext(failing), await anext(leaving)
        visitor.leave()
        with pytest.raises(Gone):
            await collected(leaving)
        loading.fail("The base 'x' is damaged.")
        with pytest.raises(NotLoadedError, match="damaged"):
            await collected(failing)

    asyncio.run(visit())
    assert on.admission.counts == (0, 0)
