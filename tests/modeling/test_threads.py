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


def ended(team: set[str]) -> tuple[int, set[str]]:
    """How many threads a team had, and those that do not end soon."""
    for _ in range(500):
        if not tasks() & team:
            break
        threading.Event().wait(0.01)
    return len(team), tasks() & team


def test_a_team_ends_and_the_next_product_makes_another():
    before, weight = torch.get_num_threads(), torch.rand(400, 400)

    def work():
        torch.set_num_threads(3)
        alone = tasks()
        first = weight @ weight
        with_team = tasks() - alone
        assert release_team()
        return ended(with_team), torch.equal(weight @ weight, first)

    try:
        (size, left), same = in_a_thread(work)
    finally:
        torch.set_num_threads(before)
    assert size == 2, "torch made no team of three: see bitune/modeling/threads.py"
    assert not left and same


@pytest.mark.parametrize("way", ["a turn", "taking a base"])
def test_who_had_a_turn_has_no_team(way):
    model, (prompt,) = tiny_model(), ids(9)
    weight, before = torch.rand(400, 400), torch.get_num_threads()
    manager = AdapterManager.of(model) if way == "a turn" else None

    def work():
        torch.set_num_threads(3)
        alone = tasks()
        if way == "taking a base":  # its checks run forwards
            inner = weight @ weight
            team = tasks() - alone
            AdapterManager.of(model)
            return ended(team), inner.shape
        with torch.no_grad(), manager.turn():
            with manager.turn():
                model(prompt)
            inner = weight @ weight
            team = tasks() - alone
        return ended(team), inner.shape

    try:
        (size, left), _ = in_a_thread(work)
    finally:
        torch.set_num_threads(before)
    assert size == 2 and not left
