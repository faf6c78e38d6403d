"""ZeroGPU: a Space that is lent a GPU for one call at a time, in a process of its own. The handlers do not know of it.

Of the package `spaces`, which such a Space has installed (read in 0.51):

- It is imported before torch, in the main thread, which from then on believes in a GPU. What is moved there until the page is served is
  what the workers have on the real one; so the engine is loaded first, in that thread, and then the page is opened.
- A call of a decorated function forks this process, or takes a worker that was forked for an earlier call. Arguments and what is
  yielded are pickled; of an exception only the name of its class comes back.
- Closing the generator is noticed at the next value that the worker yields.
- The seconds that a call may take are asked for beforehand, and a visitor who has less left today is refused: so they are counted
  from what is asked.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.settings import TRUE
from app.ui.runner import Choose, Distances, Runner
from bitune.cancellation import check, current
from bitune.errors import BituneError, ConfigError
from bitune.schema.layers import LayerReading, MixingEffects
from bitune.schema.parting import Parting
from bitune.schema.results import AttentionMaps, Completion, SweepPoint, Update

if TYPE_CHECKING:
    from bitune import Engine

# Upper bounds for a GPU of this kind, since a call that takes longer is ended: a worker that starts, the base on its way to the GPU, the
# passes over a prompt of one variant, and a step of all variants.
START_SECONDS = 6.0
SECONDS_A_BILLION = 1.0
SECONDS_A_PROMPT = 0.5
SECONDS_A_TOKEN = 0.08

GPU = Callable[..., Callable]
Method = Callable[..., Iterator[Any]]


class NoGpuError(BituneError):
    """ZeroGPU lent no GPU, or ended the call."""


@dataclass(frozen=True)
class Raised:
    """What a worker yields in place of an error that has a sentence."""

    error: BituneError


def decorator(environment: Mapping[str, str] = os.environ) -> GPU | None:
    """`spaces.GPU` on a ZeroGPU Space, else None. To be called in the main thread, before torch is imported.

    Raises:
        ConfigError: This is a ZeroGPU Space without the package `spaces`.
    """
    if environment.get("SPACES_ZERO_GPU", "").lower() not in TRUE:
        return None
    try:
        import spaces
    except ModuleNotFoundError as error:
        if error.name != "spaces":
            raise
        raise ConfigError(
            "SPACES_ZERO_GPU is set, and the package spaces, which ZeroGPU needs, is not installed; get it with: pip install spaces"
        ) from error
    return spaces.GPU


class WorkerRunner(Runner):
    """Runs each request in one call of a decorated function. What cannot be run is refused here, before it costs anything."""

    def __init__(self, engine: "Engine", gpu: GPU):
        """Decorate what runs the model; a Space must have done so when its page is served.

        Args:
            engine: With all its checkpoints.
            gpu: `spaces.GPU`.
        """
        super().__init__(engine)
        engine.manager.captured.limit = 0  # a graph that is captured in a worker goes with it, most often after one request
        here, start = Runner(engine), START_SECONDS + SECONDS_A_BILLION * engine.base_facts.parameters / 1e9

        def work(method: Method, prompts: int, tokens: int, arguments: tuple, options: dict) -> Iterator[Any]:
            try:
                with closing(method(here, *arguments, **options)) as values:
                    yield from values
            except BituneError as error:
                yield Raised(error)

        def seconds(method: Method, prompts: int, tokens: int, arguments: tuple, options: dict) -> int:
            return math.ceil(start + SECONDS_A_PROMPT * prompts + SECONDS_A_TOKEN * tokens)

        self._work = gpu(work, duration=seconds)

    def stream(self, prompt: str, variants: Sequence[str], **options: object) -> Iterator[Update]:
        self.engine.stream(prompt, variants, **options)  # checks, and runs nothing until it is asked for the first answer
        return self._across(Runner.stream, len(variants), options["max_new_tokens"], prompt, variants, **options)

    def batch(self, prompts: Sequence[str], variants: Sequence[str], **options: object) -> list[dict[str, Completion]]:
        rows, tokens = len(prompts) * len(variants), options["max_new_tokens"]
        (answers,) = self._across(partial(_once, Runner.batch), rows, tokens, prompts, variants, **options)
        return answers

    def sweep(self, prompt: str, variant: str, **options: object) -> Iterator[list[SweepPoint]]:
        return self._across(Runner.sweep, 2, options["max_new_tokens"], prompt, variant, **options)

    def mixing_effects(self, prompt: str, variant: str, answer: Sequence[int], **options: object) -> Iterator[MixingEffects]:
        ids = self.engine.request(prompt, [variant], **options).ids[variant]
        rows = 2 + 4 * self.engine.base_facts.layers + len(ids)  # each may need a step of its own where memory is short
        return self._across(Runner.mixing_effects, 2, rows, prompt, variant, answer, **options)

    def lens(
        self, prompt: str, variants: Sequence[str], answer: Sequence[int], position: int, **options: object
    ) -> list[LayerReading]:
        arguments = (prompt, variants, answer, position)
        (readings,) = self._across(partial(_once, Runner.lens), len(variants) + 1, 0, *arguments, **options)
        return readings

    def part(self, prompt: str, variants: Sequence[str], answers: Mapping[str, Sequence[int]], **options: object) -> Parting:
        (found,) = self._across(partial(_once, Runner.part), 2 * len(variants), 0, prompt, variants, answers, **options)
        return found

    def go_on(self, prompt: str, variant: str, begun: Sequence[int], **options: object) -> Iterator[Update]:
        return self._across(Runner.go_on, 1, options["max_new_tokens"], prompt, variant, begun, **options)

    def attention(self, prompt: str, variant: str, layers: Sequence[int], **options: object) -> AttentionMaps:
        (maps,) = self._across(partial(_once, Runner.attention), 2, 0, prompt, variant, layers, **options)
        return maps

    def opened(self, prompt: str, variant: str, choose: Choose, **options: object) -> AttentionMaps:
        (maps,) = self._across(partial(_once, Runner.opened), 4, 0, prompt, variant, choose, **options)
        return maps

    def moved(self, prompt: str, variants: Sequence[str], template: str) -> Distances:
        (distances,) = self._across(partial(_once, Runner.moved), len(variants), 0, prompt, variants, template)
        return distances

    def _across(self, method: Method, prompts: int, tokens: int, *arguments: object, **options: object) -> Iterator[Any]:
        """What `method` yields in the worker; `prompts` and `tokens` are what it has to read and to write."""
        raised = None
        try:
            with closing(self._work(method, prompts, tokens, arguments, options)) as values:
                for value in values:
                    check(current())  # an event that is set here is not seen in another process
                    if isinstance(value, Raised):
                        raised = value.error
                    else:
                        yield value
        except gr.Error as error:
            raise NoGpuError(f"{error.title}: {error.message}") from error
        if raised is not None:  # after the end of the call: leaving before it would look like a visitor who has gone
            raise raised


def _once(method: Callable, *arguments: object, **options: object) -> Iterator[Any]:
    """A method that returns one value, as one that yields it."""
    yield method(*arguments, **options)
