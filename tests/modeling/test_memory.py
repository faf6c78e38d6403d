"""Freed memory is given back: a contract test of glibc."""

import subprocess
import sys

import pytest

from bitune.modeling.memory import release_freed

_FREED_BETWEEN = """
from pathlib import Path
import torch
from bitune.modeling.memory import release_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kept = [torch.ones(8_000) for _ in range(4_000)]  # 128 MB in blocks too small for a map of their own
last = kept[-1]
del kept
before = resident()
assert release_freed()
print(before - resident())
"""


@pytest.mark.skipif(not release_freed(), reason="another C library than glibc")
def test_what_lies_between_used_blocks_goes_back_to_the_system():
    ran = subprocess.run([sys.executable, "-c", _FREED_BETWEEN], capture_output=True, text=True, check=True, timeout=300)
    assert int(ran.stdout) > 64 * 2**20
