"""Small drawings as inline SVG: what a reading of the prompt sees, and the way from prompt to answer. Colours come from style.css."""

from collections.abc import Iterable

CAUSAL, BIDIRECTIONAL, ANTICAUSAL = "causal", "bidirectional", "anticausal"
SEES = {
    CAUSAL: lambda row, column: column <= row,
    BIDIRECTIONAL: lambda row, column: True,
    ANTICAUSAL: lambda row, column: column >= row,
}
# How much of the second reading the drawing mixes in, layer by layer; only a drawing, the learned ratios are in the tab Mixing.
DRAWN_RATIOS = (0.52, 0.46, 0.5, 0.38, 0.3, 0.34, 0.2)


def squares(attention: str, words: int, size: float, gap: float) -> str:
    """The attention of one reading as a grid: a row for each word that reads, a square for each word it sees."""
    step = size + gap
    cells = []
    for row in range(words):
        for column in range(words):
            seen = attention if SEES[attention](row, column) else "unseen"
            cells.append(
                f'<rect class="bt-{seen}" x="{column * step:g}" y="{row * step:g}" width="{size:g}" height="{size:g}" rx="{size / 8:g}"/>'
            )
    return "".join(cells)


def picture(content: str, width: float, height: float, label: str, css: str) -> str:
    """An inline SVG that a screen reader calls `label`."""
    return f'<svg class="{css}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{content}</svg>'


def passes_icon(passes: Iterable[str]) -> str:
    """The prompt passes of a variant, small enough to stand beside its name."""
    icons = []
    for attention in passes:
        label = {CAUSAL: "left to right", BIDIRECTIONAL: "every word sees every other", ANTICAUSAL: "right to left"}[attention]
        icons.append(picture(squares(attention, 4, 4, 1), 19, 19, label, "bt-icon"))
    return f'<span class="bt-passes">{"".join(icons)}</span>'


def mixed_layers() -> str:
    """Layers as bars, each part first reading and part second reading."""
    bars = []
    for layer, ratio in enumerate(DRAWN_RATIOS):
        width, y = round(96 * (1 - ratio)), layer * 14
        bars.append(f'<rect class="bt-causal" x="0" y="{y}" width="{width}" height="11" rx="1.4"/>')
        bars.append(f'<rect class="bt-bidirectional" x="{width + 1.5}" y="{y}" width="{94.5 - width}" height="11" rx="1.4"/>')
    return "".join(bars)


def answer_lines() -> str:
    """Lines of writing, the last one unfinished."""
    lines = [
        f'<rect class="bt-ink" x="0" y="{7 + 17 * i}" width="{width}" height="4" rx="2"/>'
        for i, width in enumerate((92, 80, 96, 86, 40))
    ]
    return "".join(lines) + '<rect class="bt-ink bt-caret" x="46" y="68" width="2.5" height="15"/>'


def way_of_a_prompt() -> str:
    """The four steps of Bitune in one row: two readings, what is kept of them, the answer."""
    grid = {attention: squares(attention, 7, 11, 3) for attention in (CAUSAL, BIDIRECTIONAL)}
    steps = (
        (grid[CAUSAL], "First reading", "each word sees the words before it", ""),
        (grid[BIDIRECTIONAL], "Second reading", "each word sees the whole prompt", "+"),
        (mixed_layers(), "Mixed memory", "layer by layer, in learned shares", "→"),
        (answer_lines(), "Answer", "written from the mixed memory", "→"),
    )
    figures = []
    for drawing, title, words, before in steps:
        sign = f'<span class="bt-sign" aria-hidden="true">{before}</span>' if before else ""
        svg = picture(drawing, 96, 96, f"{title}: {words}", "bt-step")
        figures.append(f"<figure>{sign}{svg}<figcaption><b>{title}</b>{words}</figcaption></figure>")
    return f'<div class="bt-way">{"".join(figures)}</div>'
