"""Which dtype a CPU computes in where nobody says."""

import pytest
import torch

from bitune.base import devices

CPU = torch.device("cpu")
CHOOSE = devices.fastest_on_cpu  # before conftest pins it


@pytest.mark.parametrize(
    ("native", "seconds", "chosen"),
    [
        (False, {}, torch.float32),  # nothing is measured
        (True, {(torch.bfloat16, 1): 1.0, (torch.bfloat16, 64): 2.0}, torch.bfloat16),
        (True, {(torch.bfloat16, 1): 2.9, (torch.bfloat16, 64): 1.0}, torch.float32),  # slower at decoding
        (True, {(torch.bfloat16, 1): 1.0, (torch.bfloat16, 64): 2.9}, torch.float32),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster_at_both_sizes(native, seconds, chosen, monkeypatch):
    monkeypatch.setattr(devices, "can_multiply", lambda dtype: native)
    monkeypatch.setattr(devices, "_seconds", lambda dtype, rows: seconds.get((dtype, rows), 3.0))
    assert CHOOSE.__wrapped__() == chosen


def test_the_measurement_runs_in_both_dtypes():
    for dtype in (torch.float32, torch.bfloat16):
        assert 0 < devices._seconds(dtype, 1) < 5


def test_a_dtype_by_name_is_obeyed(monkeypatch):
    monkeypatch.setattr(devices, "fastest_on_cpu", lambda: torch.bfloat16)
    assert devices.choose_dtype("auto", CPU) == torch.bfloat16
    assert devices.choose_dtype("float32", CPU) == torch.float32
