"""The likelihood of given continuations of prompts that were read.

Continuations of one prompt stand in one row after it, and what they begin with alike is read once: each distinct beginning is a token that
sees the prompt and its own beginnings alone, at the position that it has in its continuation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitune.adapters.manager import AdapterManager
from bitune.data.batches import pad_right
from bitune.model.decoding import PromptCache, score
from bitune.model.limits import check_ids
from bitune.modeling.interface import attention_implementation, cache_input, logits_at, takes_positions, vocabulary_size
from bitune.modeling.masks import answer_masks, positions

LOGIT_BYTES = 2**28
"""Of float32 scores over the vocabulary; an answer that is longer is read whole all the same."""
Result = TypeVar("Result")
Reduce = Callable[[Tensor, Sequence[Sequence[int]], Sequence[Sequence[int]]], list[Result]]
"""Makes a value of each of some continuations c: of logits [n, vocabulary], of nodes and of tokens, where logits[nodes[c][i]] predict
tokens[c][i]."""


class Likelihood(NamedTuple):
    """Of one continuation: the sum of its tokens' log-probabilities (natural logarithm), and whether greedy decoding would give
    just these tokens."""

    sum: float
    greedy: bool


def likelihoods(prompts: PromptCache, rows: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[Likelihood]:
    """The likelihood of each continuation (token ids) after the prompt of its row, in float32 from the model's logits."""
    return read_each(prompts, rows, continuations, _likelihoods)


def read_each(
    prompts: PromptCache, rows: Sequence[int], continuations: Sequence[Sequence[int]], reduce: Reduce[Result]
) -> list[Result]:
    """Read each continuation (token ids, at least one) after the prompt of its row, in as few forwards as its adapters allow.

    Args:
        reduce: Makes of what the model predicts a value for each continuation, a batch of them at a time.

    Returns:
        These values.
    """
    for continuation in continuations:
        check_ids(prompts.manager.model, "A continuation", continuation)
    by_row: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_row.setdefault(row, []).append(index)
    trees = [_Tree.of([continuations[index] for index in indices]) for indices in by_row.values()]
    if len(by_row) == len(rows) or not _share_a_row(prompts, max(len(tree.tokens) for tree in trees)):
        found = _apart(prompts, rows, continuations, reduce)
    else:
        found = _together(prompts, by_row, trees, continuations, reduce)
    return [found[index] for index in range(len(continuations))]


def tokens_at_once(manager: AdapterManager) -> int:
    """How many tokens may be read in one forward so that their scores over the vocabulary stay within LOGIT_BYTES; at least one."""
    return max(1, LOGIT_BYTES // (4 * vocabulary_size(manager.model)))


def tokens_to_read(continuations: Sequence[Sequence[int]]) -> int:
    """How many tokens are read for the likelihoods of these continuations of one prompt, its last token among them."""
    return len(_Tree.of(continuations).tokens)


@dataclass(frozen=True)
class _Tree:
    """The distinct beginnings of some continuations, none of them whole: what has to be read so that each of their tokens is predicted.

    Attributes:
        tokens: The last token of each; of the first one, which is empty, the prompt's last token comes in its place.
        parents: The beginning that is shorter by one token; the first one's is itself.
        depths: How many tokens each has.
        places: Of each continuation, the beginning that predicts each of its tokens.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    places: list[list[int]]

    @classmethod
    def of(cls, continuations: Sequence[Sequence[int]]) -> "_Tree":
        tree, known = cls([0], [0], [0], []), {}
        for continuation in continuations:
            path = [0]
            for token in continuation[:-1]:
                parent = path[-1]
                path.append(known.setdefault((parent, token), len(tree.tokens)))
                if path[-1] == len(tree.tokens):
                    tree.tokens.append(token)
                    tree.parents.append(parent)
                    tree.depths.append(tree.depths[parent] + 1)
            tree.places.append(path)
        return tree


def _share_a_row(prompts: PromptCache, beginnings: int) -> bool:
    """Whether tokens can stand elsewhere in a row than their positions say: not for a model that counts places by itself, nor in a layer
    whose window forgets keys by their places."""
    windows = [window for window in prompts.manager.layout.windows.values() if window is not None]
    return takes_positions(prompts.manager.model) and all(prompts.ids.shape[1] + beginnings <= window for window in windows)


def _together(
    prompts: PromptCache,
    by_row: dict[int, list[int]],
    trees: Sequence[_Tree],
    continuations: Sequence[Sequence[int]],
    reduce: Reduce[Result],
) -> dict[int, Result]:
    manager, rows, own = prompts.manager, list(by_row), list(by_row.values())

    def run(batch: list[int]) -> dict[int, Result]:
        logits = _read(prompts, [rows[item] for item in batch], [trees[item] for item in batch])
        nodes, tokens, start = [], [], 0
        for item in batch:
            nodes += [[start + node for node in path] for path in trees[item].places]
            tokens += [continuations[index] for index in own[item]]
            start += len(trees[item].tokens)
        values = reduce(logits, nodes, tokens)
        return dict(zip((index for item in batch for index in own[item]), values, strict=True))

    done = manager.run(prompts.adapters(rows), run)
    return {index: value for _, values in done for index, value in values.items()}


def _read(prompts: PromptCache, rows: Sequence[int], trees: Sequence[_Tree]) -> Tensor:
    """Logits [beginnings, vocabulary] of every beginning of every row, row after row."""
    model: PreTrainedModel = prompts.manager.model
    prompt_ids, prompt_mask, cache = prompts.take(rows)
    device = prompt_ids.device
    tokens, real = (tensor.to(device) for tensor in pad_right([tree.tokens for tree in trees], 0))
    depths, _ = pad_right([tree.depths for tree in trees], 0)
    seen = torch.eye(tokens.shape[1], dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, tree in zip(seen, trees, strict=True):
        for node, parent in enumerate(tree.parents):
            row[node] |= row[parent]
    masks = answer_masks(
        prompts.manager.layout, prompt_mask[:, :-1], seen.to(device), attention_implementation(model), model.dtype
    )
    return logits_at(
        model,
        real.bool(),
        input_ids=torch.cat([prompt_ids[:, -1:], tokens[:, 1:]], dim=1),
        attention_mask=masks,
        position_ids=positions(prompt_mask)[:, -1:] + depths.to(device),
        use_cache=True,
        **cache_input(cache),
    )


def _apart(
    prompts: PromptCache, rows: Sequence[int], continuations: Sequence[Sequence[int]], reduce: Reduce[Result]
) -> dict[int, Result]:
    """Each continuation on a copy of its prompt's cache row."""
    ids, mask = (tensor.to(prompts.ids.device) for tensor in pad_right(continuations, 0))

    def of_batch(indices: list[int], logits: Tensor) -> list[Result]:
        lengths = mask[indices].sum(1).tolist()
        nodes = [[row * logits.shape[1] + place for place in range(length)] for row, length in enumerate(lengths)]
        return reduce(logits.flatten(0, 1), nodes, [continuations[index] for index in indices])

    done = score(prompts, rows, ids, mask, of_batch)
    return {index: value for indices, values in done for index, value in zip(indices, values, strict=True)}


def _likelihoods(logits: Tensor, nodes: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> list[Likelihood]:
    """`Reduce` to the likelihood of each continuation."""
    lengths = [len(path) for path in nodes]
    which, said = (torch.tensor([value for part in parts for value in part], device=logits.device) for parts in (nodes, tokens))
    chosen = (logits[which, said].float() - logits.float().logsumexp(-1)[which]).cpu().split(lengths)
    greedy = (logits.argmax(-1)[which] == said).cpu().split(lengths)
    return [Likelihood(float(logs.sum()), bool(same.all())) for logs, same in zip(chosen, greedy, strict=True)]
