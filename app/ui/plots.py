"""What plotly figures look like on this page: the colours of style.css, offline, in both colour schemes.

A figure is drawn in the colours of the light scheme, so that a picture saved from it reads well on paper. On the page `styles` lets
each of these colours follow the variable of style.css that it was taken from, so a figure changes with the scheme like all else.
"""

import json
import re
from collections.abc import Iterable
from html import escape

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from app.ui.paths import APP

# Of the light scheme, by the names they have in style.css: "ink", "soft", "causal", "0" to "5" for the chips, ...
COLOURS: dict[str, str] = dict(
    re.findall(r"--bt-([\w-]+): (#[0-9a-f]{6});", (APP / "ui" / "style.css").read_text(encoding="utf-8").partition(".dark")[0])
)
# Between the passes lies a grey that can be told from the paper of both schemes: a heat map is a picture, which no style reaches.
RATIO_SCALE = ((0.0, COLOURS["causal"]), (0.5, "#c9c4b9"), (1.0, COLOURS["bidirectional"]))
FONT = "ui-sans-serif, system-ui, -apple-system, Segoe UI, Helvetica Neue, Arial, sans-serif"
AXIS = {
    "automargin": True,
    "gridcolor": COLOURS["line"],
    "linecolor": COLOURS["line"],
    "zeroline": False,
    "title": {"font": {"color": COLOURS["soft"]}, "standoff": 8},
    "tickfont": {"color": COLOURS["soft"]},
    "fixedrange": True,  # a finger that moves over a chart scrolls the page
}
TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": COLOURS["paper"],
        "plot_bgcolor": COLOURS["paper"],
        "font": {"family": FONT, "size": 12, "color": COLOURS["ink"]},
        "margin": {"l": 8, "r": 20, "t": 36, "b": 8},
        "xaxis": AXIS,
        "yaxis": AXIS,
        "hoverlabel": {
            "bgcolor": COLOURS["sheet"],
            "bordercolor": COLOURS["soft"],
            "font": {"color": COLOURS["ink"], "size": 12},
        },
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"},
        "dragmode": False,
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": COLOURS["soft"], "activecolor": COLOURS["ink"]},
        "annotationdefaults": {"font": {"size": 13, "color": COLOURS["ink"]}, "showarrow": False},
    }
)


def chart(figure: go.Figure | None, file_name: str, elem_id: str | None = None) -> gr.Plot:
    """A place for a figure, not to be seen while there is none."""
    look = {"elem_classes": "bt-figure", "show_label": False, "container": False}
    return gr.Plot(**drawn(figure, file_name), elem_id=elem_id, **look)


def drawn(figure: go.Figure | None, file_name: str) -> dict[str, object]:
    """A figure as the arguments of gr.Plot or gr.update. On it is one button, which saves it as a picture called `file_name`.png."""
    if figure is None:
        return {"value": None, "visible": False}
    figure.update_layout(template=TEMPLATE)
    picture = {"format": "png", "filename": file_name, "width": 1000, "scale": 2}
    config = {"displaylogo": False, "displayModeBar": True, "modeBarButtons": [["toImage"]], "toImageButtonOptions": picture}
    plot = json.dumps({**json.loads(figure.to_json()), "config": config})
    return {"value": PlotData(type="plotly", plot=plot), "visible": True}


def label(text: str) -> str:
    """A text as plotly shows it unchanged; it reads HTML in its labels, but quotes as they are."""
    return escape(text, quote=False)


def left_titles(figure: go.Figure) -> None:
    """Puts the titles of subplots at their left."""
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": COLOURS["ink"], "weight": 600})


def styles() -> str:
    """CSS that gives what is drawn in a colour of the light scheme the colour of the scheme that is on."""
    return "\n".join(rule(name, property) for name in COLOURS for property in ("fill", "stroke"))


def rule(name: str, property: str) -> str:
    """The rule for one colour; plotly writes it into the style of each element as rgb(...)."""
    numbers: Iterable[int] = bytes.fromhex(COLOURS[name][1:])
    return f'.bt-figure [style*="{property}: rgb({", ".join(map(str, numbers))})"] {{ {property}: var(--bt-{name}) !important; }}'
