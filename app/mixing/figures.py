"""The mixing desk as HTML: per layer a bar for the keys and one for the values, to look at and to move. Pure; colours come from mixing.css.

A bar runs from 0, the first reading alone (blue), to 1, the second alone (orange); its cap stands at the ratio.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.ui.render import chip
from app.ui.variants import VariantView
from bitune.schema.variants import MixingRatios

KINDS = {"keys": "Keys", "values": "Values"}
KEY = (
    '<p class="bt-key"><span>0 <b>first reading only</b>, causal</span><i aria-hidden="true"></i>'
    "<span>1 <b>second reading only</b>, every word sees every other</span></p>"
)


@dataclass(frozen=True)
class Channel:
    """One variant on the desk. `moved`: how far mixing moved keys and values for a prompt, a number a layer each, or None."""

    view: VariantView
    mixing: MixingRatios
    moved: tuple[Sequence[float | None], Sequence[float | None]] | None = None


def desk(channels: Sequence[Channel]) -> str:
    """The channels side by side, a row a layer. All have the layers of one base."""
    if not channels:
        return ""
    most = max((value or 0 for channel in channels for side in channel.moved or () for value in side), default=0)
    rows = [
        f'<tr><th scope="row">{layer}</th>{"".join(cells(channel, layer, most) for channel in channels)}</tr>'
        for layer in range(channels[0].mixing.layers)
    ]
    return f'{KEY}<div class="bt-scroll"><table class="bt-desk">{desk_head(channels)}<tbody>{"".join(rows)}</tbody></table></div>'


def desk_head(channels: Iterable[Channel]) -> str:
    """Who, and below it what each column holds."""
    who, what = [], []
    for channel in channels:
        titles = [*KINDS.values(), *(["Keys moved", "Values moved"] if channel.moved else [])]
        who.append(f'<th scope="colgroup" colspan="{len(titles)}" class="bt-first">{chip(channel.view)}</th>')
        what += [f'<th scope="col"{FIRST if place == 0 else ""}>{title}</th>' for place, title in enumerate(titles)]
    return f'<thead><tr><td></td>{"".join(who)}</tr><tr><th scope="col">Layer</th>{"".join(what)}</tr></thead>'


FIRST = ' class="bt-first"'


def cells(channel: Channel, layer: int, most: float) -> str:
    """A channel's cells in the row of a layer; `most`: the longest movement of all, which fills its bar."""
    ratios = [channel.mixing.keys[layer], channel.mixing.values[layer]]
    found = [f"<td{FIRST if place == 0 else ''}>{bar(alpha)}</td>" for place, alpha in enumerate(ratios)]
    found += [f"<td>{movement(side[layer], most)}</td>" for side in channel.moved or ()]
    return "".join(found)


def bar(alpha: float) -> str:
    """A ratio as a bar, with its number."""
    return f'<div class="bt-level"><span class="bt-bar" style="--a:{100 * alpha:.2f}"><i></i></span><output>{alpha:.2f}</output></div>'


def movement(value: float | None, most: float) -> str:
    """How far a layer was moved, as a length and a number; a dash where the layer keeps nothing of the prompt."""
    if value is None:
        return '<div class="bt-level"><span class="bt-length"></span><output>–</output></div>'
    width = 100 * value / most if most else 0
    return f'<div class="bt-level"><span class="bt-length"><i style="width:{width:.2f}%"></i></span><output>{value:.2f}</output></div>'


def editor(view: VariantView, mixing: MixingRatios, learned: MixingRatios, version: int) -> str:
    """The desk with faders that can be moved; a line marks what was learned. `version` makes the browser draw it anew, so that a
    preset also undoes what was moved by hand."""
    head = "".join(f'<th scope="col">{title}</th>' for title in KINDS.values())
    rows = []
    for layer in range(mixing.layers):
        keys = fader("keys", layer, mixing.keys[layer], learned.keys[layer])
        values = fader("values", layer, mixing.values[layer], learned.values[layer])
        rows.append(f'<tr><th scope="row">{layer}</th><td>{keys}</td><td>{values}</td></tr>')
    return (
        f'<div id="bt-faders" data-version="{version}"><p>{chip(view)}</p>'
        f'<table class="bt-desk"><thead><tr><th scope="col">Layer</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def fader(kind: str, layer: int, alpha: float, learned: float) -> str:
    """One movable bar. `data-exact` keeps the digits that a slider would round away, until it is moved."""
    return (
        f'<div class="bt-level"><span class="bt-bar bt-fader" style="--a:{100 * alpha:.2f};--learned:{100 * learned:.2f}"><u></u><i></i>'
        f'<input type="range" min="0" max="1" step="0.01" value="{alpha:.2f}" data-exact="{alpha!r}" data-kind="{kind}" '
        f'data-layer="{layer}" aria-label="{KINDS[kind]}, layer {layer}"></span><output>{alpha:.2f}</output></div>'
    )
