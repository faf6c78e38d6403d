"""A decode step whose tensors stay where they are, so that a GPU repeats it as a CUDA graph: its few hundred kernels by one call.

A step of a few rows computes for a fraction of the time that Python takes to ask for it. The cache is static therefore: of a fixed
capacity, with the place of the next token in a tensor. On a device without graphs the same forward runs, which tests hold to the usual one.
"""

import copy
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from bitune.errors import is_out_of_memory
from bitune.modeling.cache import with_layers
from bitune.modeling.interface import attention_implementation, cache_input
from bitune.modeling.masks import DecoderLayout, step_masks

log = logging.getLogger(__name__)

DEVICES = ("cuda",)
"""Types of devices on which a step is worth its memory."""
_CAPACITY = 256  # tokens: capacities are multiples of it, so that prompts of many lengths share a step
_SEEN = 64  # kinds of steps that are known to have been wanted


class _StaticLayer(DynamicLayer):
    """Keys and values [rows, heads, capacity, head dim]; a token is written at `place`, int64 [1]."""

    def __init__(self, like: DynamicLayer, capacity: int, place: Tensor):
        super().__init__()
        self.place, self.is_initialized = place, True
        self.keys, self.values = (part.new_zeros(_size(part, capacity)) for part in (like.keys, like.values))

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.place, key_states)
        self.values.index_copy_(2, self.place, value_states)
        return self.keys, self.values


class DecodeStep:
    """One token each for some rows, again and again. It takes no memory before `prepare`.

    Args:
        model: In eval mode, without gradients, with the rows' adapters active whenever the step runs.
        layout: The model's.
        cache: Keys and values of as many rows; the step gets tensors of its own, of these sizes.
        capacity: The most tokens of a row, prompt and answer together.
        kept: Whatever the forward uses and nobody else may hold for as long; a graph knows addresses alone.

    Attributes:
        nbytes: What its cache takes; a graph has some megabytes of its own beside it.
        tokens: How many were read.
    """

    def __init__(self, model: PreTrainedModel, layout: DecoderLayout, cache: Cache, capacity: int, kept: object = None):
        self._model, self._layout, self._kept = model, layout, kept
        self._implementation = attention_implementation(model)
        self._given: Cache | None = cache  # until there are tensors
        self.capacity, self.tokens = capacity, 0
        parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        self.nbytes = sum(_size(part, capacity).numel() * part.element_size() for part in parts)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._scores: Tensor | None = None

    def prepare(self) -> None:
        """Take memory, and note the forward as a graph where the device has such."""
        given, self._given = self._given, None
        like = given.layers[0].keys
        self._input = like.new_zeros(like.shape[0], 1, dtype=torch.int64)
        self._positions, self._place = torch.zeros_like(self._input), like.new_zeros(1, dtype=torch.int64)
        self._real = like.new_ones(like.shape[0], self.capacity, dtype=torch.bool)
        self._cache = copy.copy(given)
        self._cache.layers = [_StaticLayer(layer, self.capacity, self._place) for layer in given.layers]
        if like.device.type == "cuda":
            with torch.cuda.device(like.device):
                self._capture()

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what libraries set up at a first call cannot be captured
            self._forward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may load a checkpoint meanwhile
            self._scores = self._forward()
        self._graph = graph

    def load(self, cache: Cache, mask: Tensor) -> None:
        """Go on from a prompt: its cache, and which of its tokens are real [rows, tokens], with the one that is run next."""
        self.tokens = mask.shape[1] - 1
        for layer, given in zip(self._cache.layers, cache.layers, strict=True):
            start = self.tokens - given.keys.shape[-2]  # a layer with a window has forgotten what came before
            for whole, part in ((layer.keys, given.keys), (layer.values, given.values)):
                whole[:, :, :start].zero_()  # read by nobody, but a NaN of another request would come through a weight of 0
                whole[:, :, start : self.tokens] = part
                whole[:, :, self.tokens :].zero_()
        self._place.fill_(self.tokens)
        self._positions.copy_(mask.sum(-1, keepdim=True) - 1)
        self._real.fill_(True)
        self._real[:, : self.tokens] = mask[:, :-1].bool()

    def run(self, tokens: Tensor) -> Tensor:
        """Read a token of each row, int64 [rows, 1]; returns scores of the next one, float32 [rows, vocabulary]."""
        self._input.copy_(tokens)
        if self._graph is None:
            self._scores = self._forward()
        else:
            self._graph.replay()
        self.tokens += 1
        return self._scores.clone()

    def content(self) -> Cache:
        """What was read, without a copy: only as long as the step is not run again."""
        end = self.tokens
        return with_layers(self._cache, lambda _, layer: (layer.keys[:, :, :end], layer.values[:, :, :end]))

    def dynamic_cache(self) -> Cache:
        """A cache as transformers makes it, of what was read."""
        cache = DynamicCache(config=self._model.config)
        for index, layer in enumerate(self.content().layers):
            cache.update(layer.keys.clone(), layer.values.clone(), index)
        return cache

    def _forward(self) -> Tensor:
        masks = step_masks(self._layout, self._real, self._place, self._implementation, self._model.dtype)
        output = self._model(
            input_ids=self._input, attention_mask=masks, position_ids=self._positions, use_cache=True, **cache_input(self._cache)
        )
        self._place += 1
        self._positions += 1
        return output.logits[:, -1].to(torch.float32)


class DecodeSteps:
    """The steps of one base that were used last, each lent to one owner at a time. Its user owns the base meanwhile.

    Args:
        limit: The most bytes that their caches take together; 0 for none at all.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._known: OrderedDict[DecodeStep, tuple[Hashable, weakref.ref]] = OrderedDict()  # with its kind and its owner
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def __reduce__(self) -> tuple:
        return DecodeSteps, (self.limit,)  # a graph belongs to its process and to its model

    def __contains__(self, step: object) -> bool:
        return step in self._known

    def take(
        self, kind: Hashable, tokens: int, owner: object, make: Callable[[int], DecodeStep], *, is_first: bool
    ) -> DecodeStep | None:
        """A step for somebody, until nobody refers to the owner any more or `give_back`; None where there is none for now.

        Args:
            kind: What the forward does, its rows above all.
            tokens: How many the cache will hold at least.
            owner: Any object that lives as long as the step is wanted.
            make: A step of a capacity.
            is_first: Whether this is the first token of an answer, which must not wait for a graph that nobody may need again: one
                is made for it only where the same kind was wanted before.
        """
        capacity = (tokens // _CAPACITY + 1) * _CAPACITY
        kind = (kind, capacity)
        free = [step for step, (_, held) in self._known.items() if held() is None]
        step = next((step for step in free if self._known[step][0] == kind), None)
        if step is None:
            was_seen = kind in self._seen
            self._note(kind)
            step = None if is_first and not was_seen else self._made(make, capacity, free)
        if step is not None:
            self._known[step] = kind, weakref.ref(owner)
            self._known.move_to_end(step)
        return step

    def give_back(self, step: DecodeStep) -> None:
        """Its owner does not want it any more."""
        if step in self._known:
            self._known[step] = self._known[step][0], _nobody

    def clear(self) -> None:
        """Let go of all; who owns one finds that it is not among these any more."""
        self._known.clear()
        self._seen.clear()

    def _note(self, kind: Hashable) -> None:
        self._seen[kind] = None
        self._seen.move_to_end(kind)
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)

    def _made(self, make: Callable[[int], DecodeStep], capacity: int, free: list[DecodeStep]) -> DecodeStep | None:
        """A new step, if it has room among those that are lent; the others make room for it, those used longest ago first."""
        try:
            step = make(capacity)
            lent = sum(other.nbytes for other in self._known if other not in free)
            if lent + step.nbytes > self.limit:
                return None
            while sum(other.nbytes for other in self._known) + step.nbytes > self.limit:
                del self._known[free.pop(0)]
            step.prepare()
        except Exception as error:
            if is_out_of_memory(error):
                self.clear()
                self.limit //= 2  # others need the memory; asked again at the next token
            elif isinstance(error, RuntimeError):  # the model asks the device something in between, as experts may
                log.warning("This base's decode steps cannot be captured as CUDA graphs, and run without: %s", error)
                self.limit = 0
            else:
                raise
            return None
        return step


def _nobody() -> None:
    return None


def _size(part: Tensor, tokens: int) -> torch.Size:
    return torch.Size([*part.shape[:2], tokens, part.shape[-1]])
