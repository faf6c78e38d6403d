"""Errors of loading: known causes are named for what they are, and what nobody knows passes with its own name."""

import errno
import re

import pytest
import torch

from bitune.base.failures import MODEL_FAILURES, TOKENIZER_FAILURES, load_errors, move_errors
from bitune.base.sources import Weights
from bitune.errors import BaseNotFoundError, ConfigError, UnsupportedModelError, is_out_of_memory


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_act": "swish2", "hidden_size": 8}')
    return Weights("tiny", tmp_path)


def exhaust_memory():
    """Ask torch for a petabyte: it refuses with its real error."""
    torch.empty(10**15)


def test_memory_that_runs_out_is_said_as_that(weights):
    with pytest.raises(RuntimeError) as caught:
        exhaust_memory()
    assert is_out_of_memory(caught.value) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    cpu = torch.device("cpu")
    with pytest.raises(ConfigError, match="the memory of cpu in torch.float32"), move_errors(weights, cpu, torch.float32):
        exhaust_memory()
    with pytest.raises(ConfigError, match="tiny does not fit into memory"), load_errors(weights, MODEL_FAILURES):
        exhaust_memory()


@pytest.mark.parametrize(
    "bug", [RuntimeError("CUDA error: unknown"), TypeError("x"), AttributeError("x"), KeyError("hidden_size"), KeyError("x")]
)
def test_a_bug_is_not_called_a_damaged_file(bug, weights):
    with pytest.raises(type(bug), match=re.escape(str(bug))) as caught, load_errors(weights, MODEL_FAILURES):
        raise bug
    assert caught.value is bug
    if isinstance(bug, RuntimeError):
        with pytest.raises(RuntimeError, match="unknown"), move_errors(weights, torch.device("cpu"), torch.float32):
            raise bug


def test_what_the_disk_says_is_passed_on_with_its_remedy(weights):
    for number, words in {errno.EACCES: "permission denied; change", errno.EIO: "broken.*; check the path and the disk"}.items():
        with pytest.raises(BaseNotFoundError, match=words), load_errors(weights, MODEL_FAILURES):
            raise OSError(number, "broken")


def test_a_kind_that_this_transformers_does_not_have_is_named(weights):
    with (
        pytest.raises(UnsupportedModelError, match="'swish2' in its config.json.*update transformers"),
        load_errors(weights, MODEL_FAILURES),
    ):
        raise KeyError("swish2")


def test_only_the_bare_exception_of_tokenizers_is_taken_for_a_damaged_tokenizer(weights):
    with pytest.raises(BaseNotFoundError, match="tokenizer files are damaged"), load_errors(weights, TOKENIZER_FAILURES):
        raise Exception("data did not match any variant")
    with pytest.raises(ZeroDivisionError), load_errors(weights, TOKENIZER_FAILURES):
        raise ZeroDivisionError
