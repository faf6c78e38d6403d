"""BertViz's head view and model view as documents for a sandboxed frame. Pure: numpy in, text out.

The drawing is BertViz's own JavaScript, read from the installed package; the package itself is not imported, since that loads
a notebook and takes a second. What it would fetch from the net (RequireJS, jQuery, D3) stands in the document instead. Tokens
go in as JSON in which nothing can end the script, and the document forbids itself every address, so that it works
offline and reaches nobody. Whoever shows it must use a frame with sandbox="allow-scripts" and without allow-same-origin.
"""

import json
from functools import cache
from importlib.metadata import files

import numpy as np

from app.attention.maps import label, prompt_rows, readings
from bitune.errors import ConfigError, UnknownNameError
from bitune.schema.results import AttentionMaps

# Measured in Chromium on two cores; beyond, the browser stands still for longer than a person waits.
MAX_NUMBERS = 1_200_000  # in the document: 30 layers x 9 heads x 64 x 64 tokens are 1.1 million
MAX_LINES = {"head": 150_000, "model": 300_000}  # drawn at once
VIEWS = {"head": "head_view.js", "model": "model_view.js"}
MARKER = "PYTHON_PARAMS"  # stands twice in BertViz's file, the second time in a comment
CDN = "https://cdnjs.cloudflare.com"
ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

DOCUMENT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>BertViz</title><style>body {{ margin: 12px; background: #fff; color: #000; }}</style></head>
<body><div id="bertviz" style="font-family: sans-serif"><span>{controls}</span><div id="vis"></div></div>
<script>{jquery}</script>
<script>{d3}</script>
<script>
// BertViz asks RequireJS for jQuery and D3; both are here already. It wants the colours of D3 version 5.
if (!d3.schemeCategory10) d3.schemeCategory10 = d3.scale.category10().range();
const require = {{ config() {{}} }}, requirejs = (names, run) => run(window.jQuery, window.d3);
</script>
<script>{drawing}</script>
</body></html>
"""


def frame(maps: AttentionMaps, view: str, reading: str, layer: int, head: int | None = None) -> dict[str, str]:
    """One reading of `maps` in one of VIEWS, `layer` in it: {html, words}; words alone where it would be too large to draw.

    The head view begins with `head` alone, or with all heads.
    """
    if view not in VIEWS:
        raise UnknownNameError("view", str(view), VIEWS)
    if reading not in maps.passes:
        raise UnknownNameError("reading", str(reading), maps.passes)
    if layer not in maps.layers:
        raise ConfigError(f"Layer {layer} is not among the layers of these maps.")
    if prompt_rows(maps) == 0:
        return {"words": "The prompt has one token only, so no reading has anything to show."}
    layers = layers_that_fit(maps, view, layer)
    if not layers:
        return {"words": too_large(maps, view)}
    title = next(r["title"] for r in readings(maps) if r["name"] == reading)
    return {"html": document(maps, view, reading, layers, layer, head), "words": said(maps, layers, title)}


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


def said(maps: AttentionMaps, layers: list[int], title: str) -> str:
    """What the frame shows, in one sentence or two."""
    if len(layers) == 1:
        return f"{title}, layer {layers[0]} only: with more the browser would stand still."
    if len(layers) < len(maps.layers):
        return f"{title}, layers {layers[0]} to {layers[-1]}: with more the browser would stand still."
    return f"{title}, all {len(layers)} layers."


def document(maps: AttentionMaps, view: str, reading: str, layers: list[int], layer: int, head: int | None) -> str:
    """The whole document of a frame."""
    drawing = packaged("bertviz", f"bertviz/{VIEWS[view]}")
    parameters = json.dumps(view_parameters(maps, view, reading, layers, layer, head), separators=(",", ":"))
    if drawing.count(MARKER) < 1 or "requirejs(['jquery', 'd3']" not in drawing:
        raise ConfigError("The installed BertViz is not one this page knows; install the version in requirements.txt.")
    drawing = drawing.replace(CDN, "").replace(MARKER, parameters.translate(ESCAPES), 1)
    return DOCUMENT.format(
        controls='Layer: <select id="layer"></select>' if view == "head" else "",
        jquery=packaged("XStatic-jQuery", "xstatic/pkg/jquery/data/jquery.min.js"),
        d3=packaged("XStatic-D3", "xstatic/pkg/d3/data/d3.js"),
        drawing=drawing,
    )


def view_parameters(
    maps: AttentionMaps, view: str, reading: str, layers: list[int], layer: int, head: int | None
) -> dict[str, object]:
    """What BertViz's own Python would hand to its JavaScript."""
    tokens = [label(token) for token in maps.tokens[: prompt_rows(maps)]]
    places = [maps.layers.index(kept) for kept in layers]
    weights = np.round(maps.passes[reading][places].astype(np.float64), 4)
    attention = [{"name": None, "attn": weights.tolist(), "left_text": tokens, "right_text": tokens}]
    shared = {"attention": attention, "default_filter": "0", "root_div_id": "bertviz", "include_layers": layers}
    if view == "head":
        return shared | {"layer": layer, "heads": None if head is None else [head]}
    heads = weights.shape[1]
    return shared | {"display_mode": "light", "include_heads": list(range(heads)), "total_heads": heads}


@cache
def packaged(distribution: str, path: str) -> str:
    """A text file of an installed package, found without importing it, and fit to stand inside a script."""
    found = next(file for file in files(distribution) if file.as_posix() == path)
    return found.locate().read_text(encoding="utf-8").replace("</script", "<\\/script")
