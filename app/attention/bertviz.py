"""BertViz's head view and model view as documents for a sandboxed frame. Pure: numpy in, text out.

The drawing is BertViz's own JavaScript, read from the installed package; the package itself is not imported, since that loads
a notebook and takes a second. What it would fetch from the net (RequireJS, jQuery, D3) stands in the document instead. Tokens
go in as JSON in which nothing can end the script, and the document forbids itself every address, so that it works
offline and reaches nobody. Whoever shows it must use a frame with sandbox="allow-scripts" and without allow-same-origin.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files

import numpy as np
from markupsafe import Markup

from app.attention.maps import described_passes, prompt_rows
from app.ui.templates import render
from bitune.errors import ConfigError, UnknownNameError
from bitune.schema.results import AttentionMaps

# Measured in Chromium on two cores; beyond, the browser stands still for longer than a person waits.
MAX_NUMBERS = 1_200_000  # in the document: 30 layers x 9 heads x 64 x 64 tokens are 1.1 million
MAX_LINES = {"head": 150_000, "model": 300_000}  # drawn at once
VIEWS = {"head": "head_view.js", "model": "model_view.js"}
MARKER = "PYTHON_PARAMS"  # stands twice in BertViz's file, the second time in a comment
CDN = "https://cdnjs.cloudflare.com"
ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


@dataclass(frozen=True)
class Look:
    """What a frame shows first: `layer`, and in the head view `head` alone, or all heads. `dark`: on a dark page."""

    layer: int
    head: int | None = None
    dark: bool = False


def frame(maps: AttentionMaps, labels: Sequence[str], view: str, pass_name: str, look: Look) -> dict[str, str]:
    """One pass of `maps` in one of VIEWS, with `labels` of its tokens: {html, words}; words alone where it is too large to draw."""
    layer = look.layer
    if view not in VIEWS:
        raise UnknownNameError("view", str(view), VIEWS)
    if pass_name not in maps.passes:
        raise UnknownNameError("reading", str(pass_name), maps.passes)
    if layer not in maps.layers:
        raise ConfigError(f"Layer {layer} is not among the layers of these maps.")
    if prompt_rows(maps) == 0:
        return {"words": "The prompt has one token only, so no reading has anything to show."}
    layers = layers_that_fit(maps, view, layer)
    if not layers:
        return {"words": too_large(maps, view)}
    title = next(p["title"] for p in described_passes(maps) if p["name"] == pass_name)
    return {
        "html": document(view, view_parameters(maps, labels, view, pass_name, layers, look), look.dark),
        "words": in_words(maps, layers, title),
    }


def layers_that_fit(maps: AttentionMaps, view: str, layer: int) -> list[int]:
    """The layers that can be drawn: all of them, else as many as fit, `layer` among them, or none.

    The head view draws one layer at a time and holds the others ready: it takes all or the one.
    """
    lines = next(iter(maps.passes.values()))[0].size
    if view == "head":
        if lines > MAX_LINES[view]:
            return []
        return list(maps.layers) if lines * len(maps.layers) <= MAX_NUMBERS else [layer]
    number = MAX_LINES[view] // lines
    start = max(0, min(maps.layers.index(layer) - number // 2, len(maps.layers) - number))
    return list(maps.layers[start : start + number])


def too_large(maps: AttentionMaps, view: str) -> str:
    """Why nothing is drawn, and what to do instead."""
    heads, tokens, _ = next(iter(maps.passes.values()))[0].shape
    return (
        f"BertViz draws a line for every pair of tokens: one layer with {heads} heads and {tokens} tokens has "
        f"{heads * tokens**2:,}, and above {MAX_LINES[view]:,} the browser stands still. Use the maps above, or a shorter prompt."
    )


def in_words(maps: AttentionMaps, layers: list[int], title: str) -> str:
    """What the frame shows, in one sentence or two."""
    if len(layers) == 1:
        return f"{title}, layer {layers[0]} only: with more the browser would stand still."
    if len(layers) < len(maps.layers):
        return f"{title}, layers {layers[0]} to {layers[-1]}: with more the browser would stand still."
    return f"{title}, all {len(layers)} layers."


def document(view: str, parameters: dict[str, object], dark: bool) -> str:
    """The whole document of a frame."""
    drawing = str(packaged("bertviz", f"bertviz/{VIEWS[view]}"))
    plain = json.dumps(parameters, separators=(",", ":"))
    if drawing.count(MARKER) < 1 or "requirejs(['jquery', 'd3']" not in drawing:
        raise ConfigError("The installed BertViz is not one this page knows; install the version in requirements.txt.")
    drawing = drawing.replace(CDN, "").replace(MARKER, plain.translate(ESCAPES), 1)
    return render(
        "attention/bertviz.html",
        view=view,
        dark=dark,
        jquery=packaged("XStatic-jQuery", "xstatic/pkg/jquery/data/jquery.min.js"),
        d3=packaged("XStatic-D3", "xstatic/pkg/d3/data/d3.js"),
        drawing=Markup(drawing),
    )


def view_parameters(
    maps: AttentionMaps, labels: Sequence[str], view: str, pass_name: str, layers: list[int], look: Look
) -> dict[str, object]:
    """What BertViz's own Python would hand to its JavaScript."""
    tokens = list(labels[: prompt_rows(maps)])
    places = [maps.layers.index(kept) for kept in layers]
    weights = np.round(maps.passes[pass_name][places].astype(np.float64), 4)
    attention = [{"name": None, "attn": weights.tolist(), "left_text": tokens, "right_text": tokens}]
    shared = {"attention": attention, "default_filter": "0", "root_div_id": "bertviz", "include_layers": layers}
    if view == "head":
        return shared | {"layer": look.layer, "heads": None if look.head is None else [look.head]}
    heads = weights.shape[1]
    mode = "dark" if look.dark else "light"
    return shared | {"display_mode": mode, "include_heads": list(range(heads)), "total_heads": heads}


@cache
def packaged(distribution: str, path: str) -> Markup:
    """A text file of an installed package, found without importing it, and fit to stand inside a script."""
    file = next(file for file in files(distribution) if file.as_posix() == path)
    return Markup(file.locate().read_text(encoding="utf-8").replace("</script", "<\\/script"))
