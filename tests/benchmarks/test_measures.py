"""How figures are made of what was measured."""

import threading

import pytest

from benchmarks import measures
from benchmarks.measures import amount, in_turn, peak_above, ratio


def test_works_take_turns_after_a_warm_up():
    done = []

    def work(name):
        done.append(name)
        return float(len(done))

    works = {"a": lambda: work("a"), "b": lambda: work("b")}
    assert in_turn(works, 2) == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert done == ["a", "b"] * 3
    assert in_turn(works, 1, warm_up=False) == {"a": [7.0], "b": [8.0]}


def test_a_ratio_is_taken_round_by_round():
    figure = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])
    assert (figure.median, figure.least, figure.most, figure.rounds) == (3.0, 2.0, 4.0, 3)
    assert (figure.over, figure.under, figure.unit) == (4.0, 1.0, "")
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 2.0])


def test_an_amount_has_a_unit():
    figure = amount([3.0, 1.0, 2.0], "s")
    assert (figure.median, figure.least, figure.most, figure.unit, figure.over) == (2.0, 1.0, 3.0, "s", None)


def test_memory_is_seen_while_it_is_held(monkeypatch):
    size, looked, resident = 256 * 2**20, threading.Event(), measures.resident

    def looking():
        bytes_now = resident()
        looked.set()
        return bytes_now

    def hold():
        held = bytearray(size)
        held[:: 2**12] = b"x" * (size // 2**12)  # a page of memory is taken when it is written to
        for _ in range(2):  # the first look may have begun before
            looked.clear()
            assert looked.wait(60)

    monkeypatch.setattr(measures, "resident", looking)
    assert peak_above(hold) > size / 2
