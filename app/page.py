"""The whole page: a head, one tab for each way of looking at Bitune, and what passes between them."""

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
from app.ui.templates import render
from app.ui.variants import views_of


def build_page(engine, recordings: Mapping[str, Recording], data: Sequence[str] = (), results: Path = FOLDER) -> gr.Blocks:
    """The page.

    Args:
        engine: A bitune.Engine with its checkpoints.
        recordings: Answers computed earlier, by key of their example.
        data: Sources of the study's questions: folders, files, Hub ids.
        results: The folder of the study's results.

    Returns:
        What `server.serve` launches.
    """
    with gr.Blocks(title="Bitune", analytics_enabled=False) as page:
        views = views_of(engine.variants, engine.checkpoints)
        head = render("ui/head.html", base=engine.base_facts, checkpoints=engine.checkpoints, views=views)
        gr.HTML(head, apply_default_css=False, elem_id="bt-top")
        what_ifs, latest_run = gr.State({}), gr.State(None)  # of this visitor, for all tabs
        with gr.Tabs() as tabs:
            with gr.Tab("Compare", id="compare"):
                on_compare = compare.build(page, CompareHandlers(engine, recordings), what_ifs, latest_run)
            with gr.Tab("Attention", id="attention") as tab:
                on_attention = attention.build(tab, AttentionHandlers(engine), what_ifs, latest_run)
            with gr.Tab("Mixing", id="mixing"):
                mixing.build(MixingHandlers(engine), on_compare.prompt_source, what_ifs, on_compare.what_if_target)
            with gr.Tab("Evidence", id="evidence") as tab:
                evidence.build(tab, EvidenceHandlers(engine, results, data), tabs, [on_compare.prompt_target, on_attention])
    return page
