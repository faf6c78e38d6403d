"""OpenMP's threads are given back: a contract test of libgomp, as torch for Linux brings it."""

import os
import threading

import pytest
import torch

from bitune.adapters.manager import AdapterManager
from bitune.modeling.threads import release_team
from tests.tiny import ids, tiny_model

pytestmark = pytest.mark.skipif(not release_team(), reason="torch computes with another runtime than libgomp here")


def in_a_thread(work):
    """What `work` returns, called in a thread that has computed nothing before."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def tasks() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def test_a_team_ends_and_the_next_product_makes_another():
    before, weight = torch.get_num_threads(), torch.rand(400, 400)

    def work():
        torch.set_num_threads(3)
        alone = tasks()
        first = weight @ weight
        with_team = tasks() - alone
        assert release_team()
        for _ in range(500):  # threads end by themselves, soon after
            if not tasks() & with_team:
                break
            threading.Event().wait(0.01)
        return len(with_team), tasks() & with_team, torch.equal(weight @ weight, first)

    try:
        size, left, same = in_a_thread(work)
    finally:
        torch.set_num_threads(before)
    assert size == 2, "torch made no team of three: see bitune/modeling/threads.py"
    assert not left and same


def test_who_had_a_turn_has_no_team():
    model, (prompt,) = tiny_model(), ids(9)
    manager = AdapterManager.of(model)
    weight, before = torch.rand(400, 400), torch.get_num_threads()

    def work():
        torch.set_num_threads(3)
        alone = tasks()
        with torch.no_grad(), manager.turn():
            with manager.turn():
                model(prompt)
            inner = weight @ weight
            team = tasks() - alone
        for _ in range(500):
            if not tasks() & team:
                break
            threading.Event().wait(0.01)
        return len(team), tasks() & team, inner.shape

    try:
        size, left, _ = in_a_thread(work)
    finally:
        torch.set_num_threads(before)
    assert size == 2 and not left
