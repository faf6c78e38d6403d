"""The whole page: a head, and one tab for each way of looking at Bitune."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import gradio as gr

from app.attention import tab as attention
from app.attention.handlers import AttentionHandlers
from app.compare import tab as compare
from app.compare.handlers import CompareHandlers
from app.compare.recorded import Recording
from app.evidence import tab as evidence
from app.evidence.data import FOLDER
from app.evidence.handlers import EvidenceHandlers
from app.mixing import tab as mixing
from app.mixing.handlers import MixingHandlers
from app.ui import render


def build_page(engine, recordings: Mapping[str, Recording], data: Sequence[str] = (), results: Path = FOLDER) -> gr.Blocks:
    """The page on this engine; `recordings` by key of their example, `data` with the study's questions, its `results` a folder."""
    handlers, attention_handlers = CompareHandlers(engine, recordings), AttentionHandlers(engine)
    with gr.Blocks(title="Bitune", analytics_enabled=False) as page:
        gr.HTML(render.head(engine.base_facts, engine.checkpoints, handlers.views), apply_default_css=False, elem_id="bt-top")
        what_ifs = gr.State({})  # of this visitor, for all tabs
        with gr.Tabs() as tabs:
            with gr.Tab("Compare", id="compare"):
                fields, outputs = compare.build(page, handlers, what_ifs)
            with gr.Tab("Attention", id="attention") as tab:
                read = attention.build(tab, attention_handlers, outputs.latest, what_ifs)
            with gr.Tab("Mixing", id="mixing"):
                mixing.build(MixingHandlers(engine), fields, what_ifs)
            with gr.Tab("Evidence", id="evidence") as tab:
                others = evidence.OtherTabs(tabs, fields, handlers, outputs, read, attention_handlers)
                evidence.build(tab, EvidenceHandlers(engine, results, data), others)
    return page
