"""What an answer position would say after each layer, on caches of prompts: the rows of a logit lens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_left
from bitune.errors import UnsupportedModelError
from bitune.model.decoding import recall_prompts, score
from bitune.model.prefill import Row
from bitune.modeling.interface import input_device
from bitune.modeling.lens import Lens

_ROUNDING = {True: 1e-3, False: 0.05}
"""Of float32 and of 16 bits: how far two forwards may differ in their logits, relative to the size of these."""


@torch.no_grad()
def layer_logits(
    manager: AdapterManager, prompts: Sequence[Sequence[int]], rows: Sequence[Row], prefix: Sequence[int]
) -> list[Tensor]:
    """Logits of the token that comes after prompt and prefix, after each layer.

    Args:
        prompts: Token ids; their passes are taken from memory where they are known.
        rows: The cache and the answer adapter of each result.
        prefix: The beginning of an answer, which is read after each prompt.

    Returns:
        Of each row, float32 [layers, vocabulary]; the last layer's are the model's own.

    Raises:
        UnsupportedModelError: They are not, so this base makes something else of its last layer's state; or its layers are not modules.
    """
    with manager.eval_turn():
        lens = Lens(manager.model, manager.layout.layers)
        read = recall_prompts(manager, *pad_left(prompts, 0, input_device(manager.model)), rows)
        # The last token of an answer is never read.
        answers = torch.tensor([[*prefix, 0]], device=read.ids.device).expand(len(rows), -1)
        with lens.watching():
            done = score(
                read,
                range(len(rows)),
                answers,
                torch.ones_like(answers),
                lambda _, own: zip(lens.logits().float(), own[:, -1].float(), strict=True),
            )
    by_row = {row: logits for indices, batch in done for row, logits in zip(indices, batch, strict=True)}
    for after_layers, own in by_row.values():
        _check_last(manager, after_layers, own)
    return [by_row[row][0] for row in range(len(rows))]


def _check_last(manager: AdapterManager, after_layers: Tensor, own: Tensor) -> None:
    is_wide = manager.model.dtype.itemsize >= 4
    if not (after_layers[-1] - own).norm() <= _ROUNDING[is_wide] * own.norm():
        raise UnsupportedModelError(
            f"The last layer of this {manager.model.config.model_type!r} base, read alone, does not say what the base says, so what its other "
            "layers would say is not known either; compare what variants say at their end."
        )
