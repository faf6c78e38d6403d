"""How variants are called and coloured on the page. Plain data; knows no model and no page.

A variant keeps its colour in every tab: grey for the base, then the others in their order. Blue and orange are not among
them, they belong to the two passes. A what-if has the colour of its checkpoint, and a pattern of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Protocol

from bitune.schema.results import CheckpointFacts
from bitune.schema.variants import Variant

COLOURS = 6  # classes .bt-v0 (grey, the base) to .bt-v5 in style.css; more variants start again after the grey

MOST_SOURCES = 4  # that a line under a name has room for

ABOUT = {
    "base": "reads once, as it came",
    "lora": "reads once, with a trained adapter",
    "bitune": "reads twice and mixes both readings",
    "naive_bidirectional": "reads once, every word seeing every other",
    "no_mixing": "keeps only the second reading",
    "only_causal": "reads twice, both times left to right",
    "shared_weights": "reads twice with one adapter",
    "anticausal": "reads left to right, then right to left",
}


@dataclass(frozen=True)
class VariantView:
    """`passes` are the attentions of its prompt passes, for the little picture beside the name. `hidden`: in a blind run, where neither
    name nor figures may say which variant it is. `trained`: on what, in words; empty where nobody says it. `pattern`: of a what-if, from 1
    on, with which those of one checkpoint are told apart."""

    name: str
    about: str
    passes: tuple[str, ...]
    colour: int
    what_if: bool = False
    hidden: bool = False
    trained: str = ""
    pattern: int = 1


class HasVariants(Protocol):
    """A bitune.Engine, as far as it is asked here."""

    @property
    def variants(self) -> Mapping[str, Variant]: ...

    @property
    def checkpoints(self) -> Mapping[str, CheckpointFacts]: ...

    @property
    def places(self) -> Mapping[str, int]: ...


def views_of(engine: HasVariants) -> dict[str, VariantView]:
    """One view a variant, in the engine's order. A colour stays while other checkpoints come and go."""
    views, checkpoints, places = {}, engine.checkpoints, engine.places
    for name, variant in engine.variants.items():
        if name not in places:  # it came in between
            continue
        passes = tuple(p.attention for p in variant.passes)
        trained = trained_on(checkpoints[name].training) if name in checkpoints else ""
        views[name] = VariantView(name, about(name, variant, checkpoints), passes, colour_of(places[name]), trained=trained)
    return views


def with_what_ifs(views: Mapping[str, VariantView], what_ifs: Mapping[str, Mapping]) -> dict[str, VariantView]:
    """`views` and behind them a visitor's what-ifs, those left out that are of a variant nobody knows."""
    of_visitor = {
        name: replace(
            views[value["of"]],
            name=name,
            about=f"as {value['of']}, mixed differently",
            trained="",
            what_if=True,
            pattern=1 + value["colour"],
        )
        for name, value in what_ifs.items()
        if value["of"] in views
    }
    return {**views, **of_visitor}


def about(name: str, variant: Variant, checkpoints: Mapping[str, CheckpointFacts]) -> str:
    """What a variant does with a prompt, in a few words."""
    method = checkpoints[name].method if name in checkpoints else "base" if not variant.adapters else "custom"
    if method in ABOUT:
        return ABOUT[method]
    return "reads twice and mixes" if variant.mixing else "reads once"


def trained_on(training: Mapping[str, object]) -> str:
    """The data that a checkpoint was trained on, as it says itself; nothing where it does not say it as our own trainings do."""
    data = training.get("data")
    sources = data.get("sources") if isinstance(data, Mapping) else None
    if not isinstance(sources, Sequence) or isinstance(sources, str) or not all(isinstance(source, str) for source in sources):
        return ""
    names = [PurePath(source).name.removesuffix(".jsonl").removesuffix(".train") for source in sources]
    shown = names[:MOST_SOURCES] + (["more"] if len(names) > MOST_SOURCES else [])
    return f"trained on {' and '.join(filter(None, (', '.join(shown[:-1]), *shown[-1:])))}" if shown else ""


def colour_of(index: int) -> int:
    """Colour class of the variant that has this place in the engine; 0 is the base's alone."""
    return 0 if index == 0 else 1 + (index - 1) % (COLOURS - 1)


def in_order(chosen: Iterable[str], views: Mapping[str, VariantView]) -> list[str]:
    """`chosen` as the page orders them; names nobody knows stay, at the end, for the engine to refuse."""
    chosen = list(chosen)
    return [name for name in views if name in chosen] + [name for name in chosen if name not in views]
