"""What-ifs as they pass between tabs and arrive over HTTP: {name: {"of": ..., "keys": [...], "values": [...]}}. Pure.

A what-if belongs to one visitor's session, never to the engine. On the page it also carries its `colour`, so that it keeps it
when another one is taken away.
"""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from app.ui.checks import MAX_NAME, shown
from app.ui.validation import checked
from bitune.errors import ConfigError
from bitune.schema.variants import PRESETS, MixingRatios, WhatIf

MAX_WHAT_IFS = 4  # each is one more row of the batch


class Curve(BaseModel):
    """Mixing ratios, one a layer for keys and for values."""

    model_config = ConfigDict(strict=True)

    keys: list[float]
    values: list[float]


class WhatIfFields(Curve):
    """A what-if: the ratios and the variant `of` which they are."""

    model_config = ConfigDict(extra="forbid")

    of: str
    colour: int | None = None


def read(value: object) -> dict[str, WhatIf]:
    """Plain values as the engine takes them.

    Args:
        value: {name: {"of": ..., "keys": [...], "values": [...]}}, or None for no what-ifs.

    Raises:
        ConfigError: It is anything else, or there are more than MAX_WHAT_IFS.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise ConfigError(
            f'what_ifs must be an object {{name: {{"of": ..., "keys": [...], "values": [...]}}}}; got {shown(value)}.'
        )
    if len(value) > MAX_WHAT_IFS:
        raise ConfigError(f"There are {len(value)} what-ifs; this page answers at most {MAX_WHAT_IFS} at once.")
    if long := [name for name in value if len(name) > MAX_NAME]:
        raise ConfigError(
            f"The name of a what-if has {len(long[0]):,} characters; this page takes at most {MAX_NAME}, so give it a shorter one."
        )
    fields = {name: checked(WhatIfFields, question, f"The what-if {shown(name)}") for name, question in value.items()}
    return {name: WhatIf(question.of, as_ratios(question)) for name, question in fields.items()}


def ratios(curve: object) -> MixingRatios:
    """{"keys": [...], "values": [...]} as ratios; ConfigError where they are not lists of numbers from 0 to 1."""
    return as_ratios(checked(Curve, curve, "A curve of mixing ratios"))


def as_ratios(curve: Curve) -> MixingRatios:
    """What pydantic has read as the engine's own; ConfigError where a number is not from 0 to 1."""
    return MixingRatios(tuple(curve.keys), tuple(curve.values))


def plain(question: WhatIf) -> dict[str, object]:
    """The other way: a what-if as plain values."""
    return {"of": question.of, "keys": list(question.mixing.keys), "values": list(question.mixing.values)}


def label(mixing: MixingRatios, learned: MixingRatios) -> str:
    """What a person would call these ratios."""
    for name, preset in PRESETS.items():
        if mixing == preset(learned):
            return name
    pairs = zip(mixing.keys, mixing.values, learned.keys, learned.values, strict=True)
    changed = [layer for layer, (key, value, *learned_pair) in enumerate(pairs) if [key, value] != learned_pair]
    first, last, alpha = changed[0], changed[-1], mixing.keys[changed[0]]
    if mixing == learned.with_layers(first, last, alpha):
        where = "every layer" if (first, last) == (0, learned.layers - 1) else layers(first, last)
        return f"{where} at {alpha:.2f}"
    return "own curve"


def layers(first: int, last: int) -> str:
    """`layer 3`, `layers 3 to 7`."""
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or with the first number behind it that makes it new."""
    taken = set(taken)
    names = [wanted, *(f"{wanted} {number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


def add(
    what_ifs: Mapping[str, dict], question: WhatIf, learned: MixingRatios, taken: Iterable[str], wanted: str | None = None
) -> tuple[dict[str, dict], str]:
    """`what_ifs` with one more, and its name; one with the same ratios is not added again. ConfigError where there are too many.

    Args:
        what_ifs: Those that there are.
        question: The one to add.
        learned: The ratios of the checkpoint that it is of.
        taken: Names that it must not have.
        wanted: How it should be called; by default after its ratios.
    """
    value = plain(question)
    for name, other in what_ifs.items():
        if {**other, **value} == other:
            return dict(what_ifs), name
    if question.mixing.layers != learned.layers:
        raise ConfigError(
            f"A what-if of {question.of!r} needs {learned.layers} ratios, one a layer; got {question.mixing.layers}."
        )
    if len(what_ifs) >= MAX_WHAT_IFS:
        raise ConfigError(f"There are {MAX_WHAT_IFS} what-ifs already; remove one first.")
    name = free_name(wanted or f"{question.of}: {label(question.mixing, learned)}", {*what_ifs, *taken})
    used = {other["colour"] for other in what_ifs.values()}
    value["colour"] = next(colour for colour in range(MAX_WHAT_IFS) if colour not in used)
    return {**what_ifs, name: value}, name
