"""The whole page: a head, and one tab for each way of looking at Bitune."""

from collections.abc import Mapping

import gradio as gr

from app import attention, compare, mixing, render
from app.attention_handlers import AttentionHandlers
from app.handlers import CompareHandlers
from app.mixing_handlers import MixingHandlers
from app.recorded import Recording


def build_page(engine, recordings: Mapping[str, Recording]) -> gr.Blocks:
    """The page on this engine; `recordings` by key of their example."""
    handlers = CompareHandlers(engine, recordings)
    with gr.Blocks(title="Bitune", analytics_enabled=False) as page:
        gr.HTML(render.head(engine.base_facts, engine.checkpoints, handlers.views), apply_default_css=False, elem_id="bt-top")
        what_ifs = gr.State({})  # of this visitor, for all tabs
        with gr.Tabs():
            with gr.Tab("Compare"):
                fields, latest = compare.build(page, handlers, what_ifs)
            with gr.Tab("Attention") as tab:
                attention.build(tab, AttentionHandlers(engine), latest, what_ifs)
            with gr.Tab("Mixing"):
                mixing.build(MixingHandlers(engine), fields, what_ifs)
    return page
