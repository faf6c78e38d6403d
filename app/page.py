"""The whole page: a head, one tab for each way of looking at Bitune, what passes between them and what is shared of all."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import gradio as gr
from gradio.events import Dependency

from app.attention import tab as attention
from app.attention.handlers import AttentionHandlers
from app.attention.recorded import RecordedReading
from app.compare import tab as compare
from app.compare.handlers import CompareHandlers
from app.compare.recorded import Recording
from app.evidence import tab as evidence
from app.evidence.data import FOLDER
from app.evidence.handlers import EvidenceHandlers
from app.limits import Limits
from app.mixing import tab as mixing
from app.mixing.handlers import MixingHandlers
from app.models import base_tab
from app.models import tab as models_section
from app.models.base_handlers import BaseHandlers
from app.models.handlers import ModelsHandlers
from app.sets import tab as sets
from app.sets.handlers import SetHandlers
from app.sharing import tab as sharing
from app.sharing.handlers import SharingHandlers
from app.sharing.tab import Shared
from app.ui.admission import Admission
from app.ui.events import AT_ONCE, QUIET
from app.ui.frame import Updates, listen
from app.ui.loading import Loading, OnEngine
from app.ui.markdown import card
from app.ui.paths import APP
from app.ui.pieces import html
from app.ui.shared import WhenLoaded
from app.ui.templates import render
from app.ui.variants import views_of
from app.votes.handlers import Voting
from app.votes.place import NOWHERE, Kept

FOLLOW_SECONDS = 0.5  # between two looks at an engine that is loading


def build_page(
    engine,
    recordings: Mapping[str, Recording],
    data: Sequence[str] = (),
    results: Path = FOLDER,
    admission: Admission | None = None,
    votes: Kept = NOWHERE,
    recorded_map: RecordedReading | None = None,
    models: ModelsHandlers | None = None,
    bases: BaseHandlers | None = None,
) -> gr.Blocks:
    """The page.

    Args:
        engine: A bitune.Engine with its checkpoints, or the Loading of one.
        recordings: Answers computed earlier, by key of their example.
        data: Sources of the study's questions: folders, files, Hub ids.
        results: The folder of the study's results.
        admission: Who decides which requests may run the model; one with the limits of a free Space if None.
        votes: Where votes are kept.
        recorded_map: What Attention shows before anything was read, if there is one.
        models: Loads checkpoints from the page; None where that is not to be.
        bases: Another base likewise.

    Returns:
        What `server.serve` launches.
    """
    loading, admission = OnEngine(engine).loading, admission or Admission(Limits())
    with gr.Blocks(title="Bitune", analytics_enabled=False) as page:
        html(render("ui/head.html"), "bt-top", js_on_load=(APP / "ui" / "head.js").read_text(encoding="utf-8"))
        loaded = html(what_is_loaded(loading), "bt-loaded")
        section = None if models is None else models_section.build(models)
        if bases is not None:
            base_tab.build(bases)
        bar = sharing.build_bar()
        voting = Voting(loading, votes, admission.limits.votes_per_hour, admission.proxies)
        what_ifs, latest_run = gr.State({}), gr.State(None)  # of this visitor, for all tabs
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab("Compare", id="compare"):
                on_compare = compare.build(CompareHandlers(loading, recordings, admission), voting, what_ifs, latest_run)
            with gr.Tab("Attention", id="attention") as tab:
                on_attention = attention.build(tab, AttentionHandlers(loading, admission), what_ifs, latest_run, recorded_map)
            with gr.Tab("Mixing", id="mixing"):
                handlers = MixingHandlers(loading, admission, most=0 if models is None else models.most)
                on_mixing = mixing.build(handlers, on_compare.prompt_source, what_ifs, on_compare.what_if_target)
            targets = [on_compare.prompt_target, on_attention.prompt_target]
            with gr.Tab("Many prompts", id="sets") as tab:
                on_sets = sets.build(tab, SetHandlers(loading, admission), what_ifs, tabs, targets)
            with gr.Tab("Evidence", id="evidence") as tab:
                in_evidence = evidence.build(tab, EvidenceHandlers(loading, results, data), tabs, targets)
        parts = [on_compare.link_part, on_attention.link_part, on_sets.link_part]
        parts += filter(None, (on_mixing.link_part, in_evidence))
        shared = Shared(SharingHandlers(loading), bar, parts, tabs, what_ifs, on_mixing.what_ifs, on_compare)
        restored = on_compare.opened(sharing.wire(page, shared))
        tell = [on_compare.when_loaded, on_attention.when_loaded, *on_mixing.when_loaded, on_sets.when_loaded]
        if section is not None:
            models_section.wire(section, on_compare.what_if_target, what_ifs)
            tell.insert(0, section.when_loaded)
            keep_up(section.watch, loading, loaded, tell)
        if not loading.ready or section is not None:
            follow(page, restored, loading, loaded, [*tell, shared.when_loaded()])
    return page


def what_is_loaded(loading: Loading) -> str:
    """The last line of the head: what is loaded, what is being done to load it, or why that failed."""
    notes = render("ui/notes.html", notes=loading.notes)
    if not loading.ready:
        state = {"words": loading.words, "problem": loading.problem, "goes_on": loading.goes_on}
        return render("ui/loading.html", **state) + notes
    engine = loading.engine
    views = views_of(engine)
    cards = {name: card(facts.card) for name, facts in engine.checkpoints.items() if facts.card is not None}
    return render("ui/loaded.html", base=engine.base_facts, checkpoints=engine.checkpoints, views=views, cards=cards) + notes


def follow(page: gr.Blocks, opened: Dependency, loading: Loading, loaded: gr.HTML, tabs: Sequence[WhenLoaded]) -> None:
    """Every page that is `opened` shows how far the loading is, and at its end what the tabs did not know before, one after the other."""

    async def show() -> AsyncIterator[str]:
        with loading.followed():
            while not loading.ready and loading.problem is None:
                yield what_is_loaded(loading)
                await asyncio.sleep(FOLLOW_SECONDS)
            yield what_is_loaded(loading)

    def show_at_first() -> None:
        loaded.value = what_is_loaded(loading)
        page.config = page.get_config_file()  # what Gradio sends to whoever opens the page from now on

    loading.at_end(show_at_first)
    tell_all(opened.then(show, None, loaded, concurrency_limit=None, **QUIET), loading, tabs)


def keep_up(watch: gr.HTML, loading: Loading, loaded: gr.HTML, tabs: Sequence[WhenLoaded]) -> None:
    """Every open page shows other checkpoints than before when its `watch` has found out that there are some."""
    shown = watch.input(lambda: what_is_loaded(loading), None, loaded, **AT_ONCE)
    tell_all(shown, loading, tabs)


def tell_all(shown: Dependency, loading: Loading, tabs: Sequence[WhenLoaded]) -> None:
    """What the tabs did not know before, one after the other."""
    for tab in tabs:

        def fill(tab: WhenLoaded = tab, **values: object) -> Updates:
            return tab.fill(**values) if loading.ready else dict.fromkeys(tab.components, gr.skip())

        shown = listen(shown.then, fill, tab.inputs, tab.components)
