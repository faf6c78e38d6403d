"""What Gradio itself looks like here. Our own pieces are in style.css, scripts in page.js, keys.js and head.js; no font comes from the net.

A tab that draws in the browser has its own styles and scripts beside its code.
"""

from pathlib import Path

import gradio as gr

from app.ui import plots

HERE = Path(__file__).resolve().parent
SCRIPTS = ("page.js", "keys.js")
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


def theme() -> gr.themes.Base:
    """Ink on paper; the only colours are those that mean something. Values are variables of style.css."""
    fonts = {"font": [gr.themes.Font(name) for name in SANS], "font_mono": [gr.themes.Font(name) for name in MONO]}
    look = {
        "body_text_color": "var(--bt-ink)",
        "body_text_color_subdued": "var(--bt-soft)",
        "background_fill_primary": "var(--bt-paper)",
        "background_fill_secondary": "var(--bt-sheet)",
        "block_background_fill": "transparent",
        "block_border_width": "0px",
        "block_info_text_color": "var(--bt-soft)",
        "block_label_text_color": "var(--bt-ink)",
        "block_padding": "0px",
        "block_shadow": "none",
        "block_title_text_color": "var(--bt-ink)",
        "block_title_text_weight": "600",
        "border_color_accent": "var(--bt-ink)",
        "border_color_primary": "var(--bt-line)",
        "button_primary_background_fill": "var(--bt-ink)",
        "button_primary_background_fill_hover": "var(--bt-soft)",
        "button_primary_text_color": "var(--bt-paper)",
        "button_secondary_background_fill": "var(--bt-sheet)",
        "button_secondary_background_fill_hover": "var(--bt-line)",
        "button_secondary_text_color": "var(--bt-ink)",
        "color_accent": "var(--bt-ink)",
        "color_accent_soft": "var(--bt-line)",
        "input_background_fill": "var(--bt-sheet)",
        "input_background_fill_focus": "var(--bt-sheet)",
        "input_border_color": "var(--bt-line)",
        "input_border_color_focus": "var(--bt-soft)",
        "input_border_width": "1px",
        "input_shadow_focus": "none",
        "panel_border_width": "0px",
        "slider_color": "var(--bt-ink)",
    }
    hues = dict.fromkeys(("primary_hue", "secondary_hue", "neutral_hue"), "neutral")
    base = gr.themes.Base(radius_size="md", text_size=TEXT, **hues, **fonts)
    # The variables change with the scheme by themselves, so both schemes get the same names.
    dark = {f"{name}_dark": value for name, value in look.items() if name not in LIGHT_ONLY}
    return base.set(**look, **dark, **PAPER)


# Painted before style.css is there, so they are values: --bt-paper, light and dark.
PAPER = {"body_background_fill": "#fbfaf7", "body_background_fill_dark": "#141516"}
# Gradio's text_md, which is in pixels, for who has set larger letters in the browser.
TEXT = gr.themes.Size(
    xxs="0.5625rem", xs="0.625rem", sm="0.75rem", md="0.875rem", lg="1rem", xl="1.375rem", xxl="1.625rem", name="bitune"
)
LIGHT_ONLY = ("block_padding", "block_title_text_weight", "color_accent")  # Gradio knows no dark twin of these


def look() -> dict[str, object]:
    """The arguments of launch() that decide how the page looks and what the browser runs."""
    styles = [HERE / "style.css", *sorted(path for path in HERE.parent.glob("*/*.css") if path.parent != HERE)]
    scripts = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return {"theme": theme(), "css": plots.styles(), "css_paths": styles, "js": scripts}
