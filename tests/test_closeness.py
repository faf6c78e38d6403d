"""The comparison that other tests make: what passes, what does not, what it notes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import closeness
from tests.closeness import ROUNDINGS, assert_apart, assert_clear, assert_close

ROOT = Path(__file__).parent.parent
UNIT = 2.0**-23  # the distance of float32 values at 1


@pytest.fixture(autouse=True)
def noted(monkeypatch) -> list[float]:
    """What is compared here to fail is no margin of these tests."""
    own: list[float] = []
    monkeypatch.setattr(closeness, "note", own.append)
    return own


def test_what_is_allowed_grows_with_the_size_and_with_the_dtype():
    values = torch.tensor([0.0, -8.0])
    assert_close(values + torch.tensor([ROUNDINGS * 8 * UNIT * 0.99, 0.0]), values)
    with pytest.raises(AssertionError, match=r"at \(0,\), expected 0: off by .* 1 of 2 values are off"):
        assert_close(values + torch.tensor([ROUNDINGS * 8 * UNIT * 1.01, 0.0]), values)
    assert_close(values.double(), values.double())
    with pytest.raises(AssertionError):
        assert_close(values.double() + 1e-6, values.double())
    assert_close(1.00001, 1.0)  # Python's numbers stand for results of float32
    with pytest.raises(AssertionError):
        assert_close(1.00001, 1.0, size=0.1)
    assert_close([0.0, 0.0], [0.0, 0.0])
    with pytest.raises(AssertionError):
        assert_close([1e-30, 0.0], [0.0, 0.0], allowed=0.0)
    assert_close([0.5, 0.6], np.array([0.6, 0.6]), allowed=[0.2, 0.0001])
    with pytest.raises(AssertionError, match=r"at \(1,\)"):
        assert_close([0.6, 0.5], np.array([0.6, 0.6]), allowed=[0.2, 0.0001])


def test_shapes_dtypes_and_finite_values_are_asked_for():
    one = torch.ones(3)
    for other in (
        torch.ones(1, 3),
        torch.ones(3, dtype=torch.float64),
        torch.tensor([1, 1, torch.nan]),
        torch.ones(3) * torch.inf,
    ):
        with pytest.raises(AssertionError):
            assert_close(one, other)
        with pytest.raises(AssertionError):
            assert_close(other, one)


def test_what_must_differ_differs_by_far_more_than_rounding():
    one = torch.tensor([1.0, 2.0])
    assert_apart(one, one + torch.tensor([0.1, 0.0]))
    for other in (one, one + 2 * ROUNDINGS * UNIT):
        with pytest.raises(AssertionError, match="would show a mix-up"):
            assert_apart(one, other)
    with pytest.raises(AssertionError):
        assert_apart(one, one + 0.1, least=0.2)


def test_a_clear_choice_is_ahead_of_the_second_by_more_than_rounding():
    assert_clear(torch.tensor([[1.0, 4.0, -torch.inf], [4.0, 3.0, 0.0]]))
    with pytest.raises(AssertionError, match="choose another seed"):
        assert_clear(torch.tensor([[1.0, 4.0, 3.0], [4.0, 4 - ROUNDINGS * 2 * UNIT, 0.0]]))


def test_margins_are_noted(noted):
    assert_close(1.25, 1.0, allowed=1.0)
    assert_apart(1.0, 5.0, least=1.0)
    assert noted == [0.25, 0.25]


TESTS = """
from tests.closeness import assert_close

def test_well_inside():
    assert_close(1.0, 1.25, allowed=1.0)

def test_near_the_edge():
    assert_close(1.0, 1.75, allowed=1.0)
"""


def test_the_option_prints_margins_and_fails_what_is_near_the_edge(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.margins", "--margins", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stdout
    assert "1 failed, 1 passed" in printed and "uses 75% of what it allows" in printed
    assert re.search(r"margins: .*75\.0%  \S+near_the_edge\n.*25\.0%  \S+well_inside\n", printed, re.DOTALL)
