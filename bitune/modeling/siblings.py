"""Linear layers that read the same input, as q, k and v of an attention: which they are, and their results computed together.

Which they are is learned by looking at a forward. Whether two calls have the same input is asked again at every call, so what was
learned decides how fast a result comes, and never what it is.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

Part = TypeVar("Part")


@contextmanager
def noting_siblings(model: nn.Module) -> Iterator[list[tuple[str, ...]]]:
    """Look at the forwards of a block; when it ends, the list has the paths of linear layers of one module that got the same tensor.

    Each layer is in one group at most, by its first call; groups and layers stand in the order of these calls.
    """
    first: dict[str, Tensor] = {}  # path -> input of its first call, held so that no other tensor gets its identity
    found: list[tuple[str, ...]] = []

    def note(path: str):
        def hook(_, arguments):
            if arguments:  # a layer whose input comes by name stays alone
                first.setdefault(path, arguments[0])

        return hook

    linear = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(note(path)) for path, layer in linear]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    groups = defaultdict(list)
    for path, tensor in first.items():
        groups[path.rpartition(".")[0], id(tensor)].append(path)
    found += [tuple(paths) for paths in groups.values() if len(paths) > 1]


class OncePerInput:
    """What siblings make of an input, computed for all of them when the first one gets it.

    Each of them takes its part, which is its own from then on. Nothing is kept longer than the input is there, and a tensor into which
    somebody has written meanwhile is another input.
    """

    def __init__(self):
        self._kept: _Kept | None = None

    def take(self, x: Tensor, index: int, compute: Callable[[Tensor], Sequence[Part]]) -> Part:
        """Part `index` of `compute(x)`, which has a part for each sibling."""
        if x.is_inference():  # which does not count who writes into it
            return compute(x)[index]
        kept = self._kept
        if kept is None or kept.input() is not x or kept.version != x._version or kept.parts[index] is None:
            kept = self._kept = _Kept(weakref.ref(x, self._forget), x._version, list(compute(x)))
        part, kept.parts[index] = kept.parts[index], None
        return part

    def _forget(self, reference: weakref.ref) -> None:
        if self._kept is not None and self._kept.input is reference:
            self._kept = None


class _Kept:
    __slots__ = ("input", "parts", "version")

    def __init__(self, input: weakref.ref, version: int, parts: list):
        self.input, self.version, self.parts = input, version, parts
