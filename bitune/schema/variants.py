"""A variant is data: which passes read the prompt, how their caches are mixed, which adapter answers.

Pure data; knows no model and no tensor. The rows of the table follow Bitune (arXiv 2405.14862), section 3 and the ablations
of section 4. Adapter slots are called `causal` (A) and `bidirectional` (B); an engine binds them to the adapters it loaded.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bitune.errors import ConfigError, UnknownNameError

Attention = Literal["causal", "bidirectional", "anticausal"]
ATTENTIONS: tuple[str, ...] = get_args(Attention)

CAUSAL = "causal"
BIDIRECTIONAL = "bidirectional"


@dataclass(frozen=True)
class PromptPass:
    """One forward pass over the prompt.

    Args:
        adapter: its name, or None for the base alone.
        attention: `causal`, `bidirectional` or `anticausal` (a token sees itself and what comes after it).

    Raises:
        UnknownNameError: the attention is none of these.
    """

    adapter: str | None
    attention: Attention

    def __post_init__(self):
        if self.attention not in ATTENTIONS:
            raise UnknownNameError("attention", str(self.attention), ATTENTIONS)


@dataclass(frozen=True)
class MixingRatios:
    """How much of the second pass enters the cache, layer by layer.

    Args:
        keys: alpha of each layer's keys, from 0 (first pass only) to 1 (second pass only), [layers].
        values: likewise for values.

    Raises:
        ConfigError: a ratio is outside [0, 1], or there are not as many for keys as for values.
    """

    keys: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "keys", tuple(float(x) for x in self.keys))
        object.__setattr__(self, "values", tuple(float(x) for x in self.values))
        if len(self.keys) != len(self.values):
            raise ConfigError(
                f"Mixing ratios need one value a layer for keys and values: got {len(self.keys)} and {len(self.values)}."
            )
        for alpha in self.keys + self.values:
            if not (math.isfinite(alpha) and 0.0 <= alpha <= 1.0):
                raise ConfigError(f"A mixing ratio is {alpha}; it must lie between 0 (first pass only) and 1 (second pass only).")

    @property
    def layers(self) -> int:
        return len(self.keys)

    @classmethod
    def constant(cls, layers: int, alpha: float) -> "MixingRatios":
        """The same ratio in every layer, for keys and values."""
        return cls((alpha,) * layers, (alpha,) * layers)

    def scaled(self, factor: float) -> "MixingRatios":
        """From the first pass alone (0) over these ratios (1) to the second pass alone (2), straight in between."""
        if not 0 <= factor <= 2:
            raise ConfigError(
                f"The scale factor is {factor}; it goes from 0 (first pass only) over 1 (as it is) to 2 (second pass only)."
            )

        def move(alpha: float) -> float:
            return alpha * factor if factor <= 1 else 1 - (1 - alpha) * (2 - factor)

        return MixingRatios(tuple(map(move, self.keys)), tuple(map(move, self.values)))

    def with_layers(self, first: int, last: int, alpha: float) -> "MixingRatios":
        """These ratios, with `alpha` in layers `first` to `last`, both included, for keys and values."""
        if first > last:
            raise ConfigError(f"Layers {first} to {last} run backwards; give the lower one first.")
        if not 0 <= first <= last < self.layers:
            raise ConfigError(f"Layers {first} to {last} are not among the layers 0 to {self.layers - 1}.")

        def put(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(alpha if first <= layer <= last else value for layer, value in enumerate(values))

        return MixingRatios(put(self.keys), put(self.values))


@dataclass(frozen=True)
class Variant:
    """A way to run one base on a prompt.

    `passes`: one or two. `mixing`: ratios of the second pass, present exactly when there are two.
    `answer_adapter`: runs on the last prompt token and on every new token; None is the base alone.
    """

    passes: tuple[PromptPass, ...]
    mixing: MixingRatios | None
    answer_adapter: str | None

    def __post_init__(self):
        check_passes(self.passes, mixed=self.mixing is not None)

    @property
    def adapters(self) -> frozenset[str]:
        """Names of every adapter that this variant runs."""
        names = {p.adapter for p in self.passes} | {self.answer_adapter}
        return frozenset(name for name in names if name is not None)

    def with_mixing(self, mixing: MixingRatios) -> "Variant":
        """The same passes mixed by other ratios: a what-if."""
        return replace(self, mixing=mixing)


@dataclass(frozen=True)
class WhatIf:
    """A question to a mixing variant: what would it say with these ratios in place of the learned ones?"""

    of: str
    mixing: MixingRatios


PRESETS: dict[str, Callable[[MixingRatios], MixingRatios]] = {
    "learned": lambda learned: learned,
    "causal only": lambda learned: MixingRatios.constant(learned.layers, 0.0),
    "bidirectional only": lambda learned: MixingRatios.constant(learned.layers, 1.0),
    "half and half": lambda learned: MixingRatios.constant(learned.layers, 0.5),
}


@dataclass(frozen=True)
class Method:
    """A row of the table before training: passes over adapter slots, and whether their caches are mixed by learned ratios."""

    passes: tuple[PromptPass, ...]
    mixed: bool
    answer_adapter: str | None

    def __post_init__(self):
        check_passes(self.passes, mixed=self.mixed)

    @property
    def slots(self) -> tuple[str, ...]:
        """Adapter slots in use, the answering one first."""
        slots = [self.answer_adapter, *(p.adapter for p in self.passes)]
        return tuple(dict.fromkeys(slot for slot in slots if slot is not None))

    def renamed(self, names: Mapping[str, str]) -> "Method":
        """The same method over the adapters `names[slot]` in place of slots."""
        named = {None: None, **names}
        passes = tuple(PromptPass(named[p.adapter], p.attention) for p in self.passes)
        return Method(passes, self.mixed, named[self.answer_adapter])

    def with_mixing(self, mixing: MixingRatios | None) -> Variant:
        """The variant that runs this method with these ratios (None where nothing is mixed)."""
        return Variant(self.passes, mixing, self.answer_adapter)


def check_passes(passes: Sequence[PromptPass], *, mixed: bool) -> None:
    """Raise ConfigError unless there is one pass and nothing to mix, or two passes that are mixed."""
    if len(passes) != (2 if mixed else 1):
        raise ConfigError(
            f"A variant has one prompt pass, or two that are mixed; got {len(passes)} with mixing {'on' if mixed else 'off'}."
        )


def _method(*passes: tuple[str | None, Attention], answers: str | None = CAUSAL) -> Method:
    return Method(tuple(PromptPass(*p) for p in passes), len(passes) == 2, answers)


BASE = _method((None, "causal"), answers=None)

METHODS: dict[str, Method] = {
    "bitune": _method((CAUSAL, "causal"), (BIDIRECTIONAL, "bidirectional")),
    "lora": _method((CAUSAL, "causal")),
    "naive_bidirectional": _method((CAUSAL, "bidirectional")),
    "no_mixing": _method((BIDIRECTIONAL, "bidirectional")),
    "only_causal": _method((CAUSAL, "causal"), (BIDIRECTIONAL, "causal")),
    "shared_weights": _method((CAUSAL, "causal"), (CAUSAL, "bidirectional")),
    "anticausal": _method((CAUSAL, "causal"), (BIDIRECTIONAL, "anticausal")),
}


def method_named(name: str) -> Method:
    """The row of METHODS called `name`; UnknownNameError lists the choices."""
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def name_of(method: Method) -> str | None:
    """The name under which METHODS knows these passes, or None for a combination of somebody's own."""
    return next((name for name, known in METHODS.items() if known == method), None)
