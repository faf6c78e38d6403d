"""What of a request runs the model. On a ZeroGPU Space that happens in another process (app/zero.py); here it happens in this one.

Whatever goes in and comes out is plain values that can be pickled, and nothing that was computed is kept for the next request.
Everything else that the handlers ask of an engine (names, facts, token ids) is answered by the engine itself, without the device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitune.schema.layers import LayerReading, MixingEffects
from bitune.schema.parting import Parting
from bitune.schema.results import AttentionMaps, Completion, SweepPoint, Update

if TYPE_CHECKING:
    from bitune import Engine

Choose = Callable[[AttentionMaps], int]
Distances = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Runner:
    """Runs requests on the device of an engine; each method is one request. Errors are raised as the engine raises them."""

    def __init__(self, engine: "Engine"):
        self.engine = engine

    def stream(self, prompt: str, variants: Sequence[str], **options: object) -> Iterator[Update]:
        """The answers so far, as `Engine.stream` gives them; closing it cancels."""
        return self.engine.stream(prompt, variants, **options)

    def batch(self, prompts: Sequence[str], variants: Sequence[str], **options: object) -> list[dict[str, Completion]]:
        """The answers to several prompts, as `answer_batch` gives them."""
        from bitune.inference.batch import answer_batch  # imports torch, and the page opens before that

        return answer_batch(self.engine, prompts, variants, **options)

    def sweep(self, prompt: str, variant: str, **options: object) -> Iterator[list[SweepPoint]]:
        """The points so far, as `stream_sweep` gives them; closing it cancels."""
        from bitune.inference.sweep import stream_sweep

        return stream_sweep(self.engine, prompt, variant, **options)

    def mixing_effects(self, prompt: str, variant: str, answer: Sequence[int], **options: object) -> Iterator[MixingEffects]:
        """What is measured so far, as `stream_mixing_effects` gives it; closing it ends the measuring."""
        from bitune.inference.layers import stream_mixing_effects  # imports torch, and the page opens before that

        return stream_mixing_effects(self.engine, prompt, variant, answer, **options)

    def lens(
        self, prompt: str, variants: Sequence[str], answer: Sequence[int], position: int, **options: object
    ) -> list[LayerReading]:
        """What these variants would say after each layer, as `layer_lens` gives it."""
        from bitune.inference.layers import layer_lens  # imports torch, and the page opens before that

        return layer_lens(self.engine, prompt, variants, answer, position, **options)

    def part(self, prompt: str, variants: Sequence[str], answers: Mapping[str, Sequence[int]], **options: object) -> Parting:
        """What every variant gives to every token of every answer, as `parting.part` has it."""
        from bitune.inference.parting import part

        return part(self.engine, prompt, variants, answers, **options)

    def go_on(self, prompt: str, variant: str, begun: Sequence[int], **options: object) -> Iterator[Update]:
        """The answer so far, as `parting.go_on` gives it; closing it cancels."""
        from bitune.inference.parting import go_on

        return go_on(self.engine, prompt, variant, begun, **options)

    def attention(self, prompt: str, variant: str, layers: Sequence[int], **options: object) -> AttentionMaps:
        """The maps of these layers, and the summaries of all."""
        return self.engine.attention(prompt, variant, layers, **options)

    def opened(self, prompt: str, variant: str, choose: Choose, **options: object) -> AttentionMaps:
        """The summaries of all layers, and the maps of the one that `choose`, a function of a module, takes by them."""
        return self.attention(prompt, variant, [choose(self.attention(prompt, variant, [], **options))], **options)

    def moved(self, prompt: str, variants: Sequence[str], template: str) -> Distances:
        """How far each variant's mixing moves the cache of a prompt: keys and values, float32 [layers, tokens]."""
        return {name: self.engine.moved(prompt, name, template=template) for name in variants}
