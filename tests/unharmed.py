"""What tests compare before and after: logits, folders, and all of a base that a failed load must leave alone; and ways to
change a folder."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from bitune import BituneError, CheckpointError
from bitune.adapters.manager import AdapterManager
from tests.tiny import ids

PROMPT, ANSWER = ids(9, 4)


def scores(model) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT, ANSWER).logits


def bare(model) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT).logits


def hooks(model) -> int:
    """How many forward hooks hang on the modules."""
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def state_of(model) -> dict[str, object]:
    """All that a failed load must leave alone, apart from the logits."""
    return {
        "adapters": AdapterManager.of(model).names,
        "parameters": {name: (p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()},
        "wrapped": [path for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)],
        "attributes": sorted(vars(model)),
    }


@contextlib.contextmanager
def refused(model, *words: str, error: type[BituneError] = CheckpointError):
    """The block fails with our error in one line that holds `words`, and the base is to the bit what it was."""
    before, logits = state_of(model), bare(model)
    with pytest.raises(BituneError) as caught:
        yield caught
    assert isinstance(caught.value, error), repr(caught.value)
    message = str(caught.value)
    assert "\n" not in message and message[-1] in ".?", message
    for word in words:
        assert word in message, (word, message)
    assert state_of(model) == before
    assert torch.equal(bare(model), logits)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(file: Path, change) -> None:
    """Rewrite a JSON file; `change` gets its object, and may return another to write instead."""
    data = json.loads(file.read_text())
    changed = change(data)
    file.write_text(json.dumps(changed if isinstance(changed, dict | list) else data))


def change_tensors(file: Path, change) -> None:
    tensors = load_file(file)
    save_file(change(tensors) or tensors, file, metadata={"format": "pt"})
