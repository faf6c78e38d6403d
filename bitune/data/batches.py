"""Token ids -> tensors: cutting, padding, and the batches that training takes. Knows no text and no model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenPair:
    """`prompt_ids` with the special tokens the tokenizer puts in front; `answer_ids` end with the end token.

    `prompt_cut`: the prompt was too long and lost its beginning.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    prompt_cut: bool = False


@dataclass(frozen=True)
class Collator:
    """Makes a batch of token pairs: the arguments of a Bitune model's forward, as a dict of int64 tensors.

    `prompt_ids`, `prompt_mask` [batch, longest prompt], padded on the left; `answer_ids`, `answer_mask` [batch, longest answer],
    padded on the right. A mask is 1 on tokens and 0 on padding.
    """

    pad_id: int

    def __call__(self, pairs: Sequence[TokenPair]) -> dict[str, Tensor]:
        prompt_ids, prompt_mask = pad_left([pair.prompt_ids for pair in pairs], self.pad_id)
        answer_ids, answer_mask = pad_right([pair.answer_ids for pair in pairs], self.pad_id)
        return {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "answer_ids": answer_ids, "answer_mask": answer_mask}


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Token ids of several prompts as one batch, padding on the left.

    Returns:
        Ids and mask, int64 [prompts, longest]; the mask is 1 on tokens and 0 on padding.
    """
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def pad_right(answers: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids of several answers as one batch, padding on the right.

    Returns:
        Ids and mask, int64 [answers, longest]; the mask is 1 on tokens and 0 on padding.
    """
    ids, mask = pad_left([list(reversed(answer)) for answer in answers], pad_id)
    return torch.flip(ids, [1]), torch.flip(mask, [1])


def cut_left(ids: list[int], limit: int, head: Sequence[int]) -> list[int]:
    """The last `limit` ids; `head`, the special tokens at the beginning of `ids`, stays in front of them."""
    if len(ids) <= limit:
        return ids
    kept = ids[: len(head)][:limit]
    return kept + ids[len(ids) - limit + len(kept) :]
