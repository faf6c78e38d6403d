"""What is free: of this computer, of a container's share of it; and the sentence for what does not fit."""

import psutil
import pytest
import torch

from bitune import ConfigError, memory

CPU = torch.device("cpu")


def test_what_is_free_is_what_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    assert 0 < memory.free_bytes(CPU) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "3000\n", "memory.current": "1500\n", "memory.stat": "anon 1000\ninactive_file 500\nactive_file 7\n"},
        {
            "memory/memory.limit_in_bytes": "3000\n",
            "memory/memory.usage_in_bytes": "1500\n",
            "memory/memory.stat": "cache 900\ninactive_file 3\ntotal_inactive_file 500\n",
        },
    ],
)
def test_a_container_has_what_its_limit_leaves(monkeypatch, tmp_path, files):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    assert memory.free_bytes(CPU) == 2000
    with pytest.raises(
        ConfigError, match=r"The base takes about 0\.00201 MB of memory and 0\.002 MB are free here; free memory, or"
    ):
        memory.check_room("The base", 2010, CPU)
    memory.check_room("The base", 2000, CPU)


def test_a_container_without_a_limit_has_all(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    assert memory.free_bytes(CPU) > 1e6


def test_on_a_gpu_both_have_to_hold_it(monkeypatch):
    free = {"cpu": 1e9, "cuda": 5e6}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[device.type])
    memory.check_room("It", 4_000_000, torch.device("cuda:0"))
    with pytest.raises(ConfigError, match=r"It takes about 6 MB of memory and 5 MB are free on cuda:0"):
        memory.check_room("It", 6_000_000, torch.device("cuda:0"))
    free.update(cpu=3e6)
    with pytest.raises(ConfigError, match="3 MB are free here"):
        memory.check_room("It", 4_000_000, torch.device("cuda:0"))
