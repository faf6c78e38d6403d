"""What stands above all tabs: the link to this page, the run as a file, and a visitor's own runs. Components and wiring only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.compare.handlers import Screen
from app.compare.link import Link
from app.compare.tab import CompareTab
from app.sharing.handlers import LATER, SharingHandlers, chosen_in, names_in, renamed, without_names
from app.ui.events import AT_ONCE, PRIVATE, QUIET, sent
from app.ui.frame import Updates, listen
from app.ui.pieces import html
from app.ui.shared import LinkPart, WhatIfList, WhenLoaded
from app.ui.templates import problem, render
from app.ui.validation import as_far_as_valid

FOLDER = Path(__file__).resolve().parent
State = Mapping[str, object]

# What the browser alone knows: the part of the address that no server gets, and what the tabs' scripts say of themselves.
WHERE = """(_, ...rest) => {
    const said = {};
    document.dispatchEvent(new CustomEvent("bt-say", { detail: said }));
    const open = document.querySelector("[role=tab][aria-selected=true]");
    return [{ hash: window.location.hash, tab: open?.dataset.tabId, said }, ...rest];
}"""
# Nothing to do where there is no link: then a sentence says why. A Space's page is a frame, and the address bar its parent's.
PUT_LINK = """async (text) => {
    if (!text) return "Copy link";
    const url = new URL(window.location.href);
    for (const name of %s) url.searchParams.delete(name);
    url.hash = text;
    window.history.replaceState(window.history.state, "", url);
    if (window.parent !== window) window.parent.postMessage({ queryString: url.search, hash: url.hash }, "https://huggingface.co");
    try {
        await navigator.clipboard.writeText(url.href);
        return "Link copied";
    } catch {
        return "Link is in the address bar";
    }
}""" % [*Link.model_fields]
AS_BEFORE = "() => new Promise((done) => setTimeout(() => done('Copy link'), 4000))"
# Hands a text to kept.js, which does with it what the event is called.
HAND_OVER = """(text) => {
    document.dispatchEvent(new CustomEvent("%s", { detail: text }));
}"""


@dataclass(frozen=True)
class Bar:
    """The components. `where` and `handed` are never seen: what comes from the browser, and what goes there; `pending`: State of a link."""

    link: gr.Button
    save: gr.Button
    kept: gr.HTML
    note: gr.HTML
    where: gr.JSON
    handed: gr.Textbox
    pending: gr.State


@dataclass(frozen=True)
class Shared:
    """What a page is made of, for whoever says it or puts it back."""

    handlers: SharingHandlers
    bar: Bar
    parts: Sequence[LinkPart]
    tabs: gr.Tabs
    what_ifs: gr.State
    listed: WhatIfList | None
    compare: CompareTab

    @property
    def components(self) -> list[Component]:
        """Everything that `restored` may update."""
        parts = [component for part in self.parts for component in part.components]
        listed = self.listed.components if self.listed else []
        request = self.compare.request.components
        return list(dict.fromkeys([self.bar.note, self.bar.pending, self.tabs, *parts, *listed, *request]))

    def said(self, where: State, what_ifs: State, values: State) -> tuple[dict[str, object], list[str]]:
        """The state of the page, and a sentence for each field that a link cannot hold."""
        where, sentences = objects(where), []
        state = {"tab": where.get("tab"), **({"what_ifs": what_ifs} if what_ifs else {})}
        said = objects(where.get("said"))
        for part in self.parts:
            of_page = {name: values[f"{part.tab}_{name}"] for name in part.fields}
            fields = {**objects(said.get(part.tab)), **of_page}
            state[part.tab], words = self.handlers.said(part.kind, fields if part.say is None else part.say(fields))
            sentences += words
        return state, sentences

    def restored(self, state: State, known: State, chosen: Sequence[str], what: str = "The link") -> tuple[Updates, list[str]]:
        """The page in a state of whatever origin, as far as it is here, and a sentence for each thing that is not.

        Args:
            state: What a link or a saved run says.
            known: The visitor's what-ifs.
            chosen: The variants that are chosen in Compare, where the state does not say.
            what: The subject of the sentences.
        """
        linked, sentences, updates, pending = state.get("what_ifs") or {}, [], {}, None
        if linked and self.handlers.loading.ready:
            found = self.handlers.what_ifs(linked, known)
            known, state, sentences = found.known, renamed(state, found.names), list(found.words)
        elif linked:
            pending, sentences = state, [LATER]
            state = without_names(state, names_in(linked))
        for part in self.parts:
            if part.tab in state:
                values, words = as_far_as_valid(part.kind, state[part.tab], what)
                more, not_here = part.restore(values, known)
                updates, sentences = updates | more, [*sentences, *words, *not_here]
        if linked and pending is None:
            variants = self.compare.what_if_target.chosen
            updates |= self.what_if_updates(known, updates.get(variants, [*chosen, *found.names.values()]))
        if state.get("tab") in [part.tab for part in self.parts]:
            updates[self.tabs] = gr.Tabs(selected=state["tab"])
        return {**updates, self.bar.pending: pending, self.bar.note: noted(sentences)}, sentences

    @property
    def attention_variant(self) -> Component:
        """Who reads in Attention."""
        return next(part.fields["variant"] for part in self.parts if part.tab == "attention")

    def what_if_updates(self, known: State, chosen: Sequence[str]) -> Updates:
        """What-ifs where they are listed and chosen; nothing where no checkpoint is, so that there are none."""
        return self.listed.show(known, chosen) if self.listed else {}

    def when_loaded(self) -> WhenLoaded:
        """The what-ifs of a link that was opened before it was known whether they fit."""

        def fill(pending: State | None, known: dict, chosen: list[str]) -> Updates:
            if not pending:
                return {self.bar.pending: None}
            found = self.handlers.what_ifs(pending["what_ifs"], known)
            updates = self.what_if_updates(found.known, [*chosen, *chosen_in(pending, found.names)])
            reader = objects(pending.get("attention")).get("variant")
            if isinstance(reader, str) and reader in found.names:
                choices = [*self.handlers.names, *found.known]
                updates[self.attention_variant] = gr.update(choices=choices, value=found.names[reader])
            return {**updates, self.bar.pending: None, self.bar.note: noted(found.words)}

        inputs = {"pending": self.bar.pending, "known": self.what_ifs, "chosen": self.compare.what_if_target.chosen}
        return WhenLoaded(inputs, self.components, fill)


def build_bar() -> Bar:
    """Put the components here; `wire` connects them when the tabs are there."""
    note = html("", "bt-note")
    with gr.Row(elem_classes="bt-actions bt-keep"):
        link = gr.Button("Copy link", elem_id="bt-link", size="sm", scale=0, min_width=0)
        save = gr.Button("Save run", elem_id="bt-save", size="sm", scale=0, min_width=0)
        template, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("kept.html", "kept.js"))
        kept = html("", "bt-kept", html_template=template, js_on_load=script)
    return Bar(link, save, kept, note, gr.JSON(visible=False), gr.Textbox(visible=False), gr.State(None))


def wire(page: gr.Blocks, shared: Shared) -> Dependency:
    """Connect the bar. Returns the listener that restores a page from its address when it is opened."""
    bar, latest = shared.bar, shared.compare.latest
    wire_link(shared)
    wire_opened(shared)

    kept = shared.compare.handlers

    def ended(screen: Screen) -> Updates:
        recording = kept.recording_of(screen)
        return {bar.handed: shared.handlers.saved(recording) if recording else ""}

    def save(screen: Screen) -> Updates:
        return {bar.handed: shared.handlers.saved(kept.recording_of(screen), screen.not_saved), bar.note: ""}

    def unveiled(screen: Screen) -> Updates:
        # What was said of a run whose names were hidden is no longer true.
        return {**ended(screen), bar.note: ""} if screen.unveiled else {bar.handed: ""}

    for run, to_keep in [
        *((run, ended) for run in shared.compare.ended),
        *((vote, unveiled) for vote in shared.compare.unveiled),
    ]:
        # "multiple": the next run may end before this one was handed over.
        of_run = listen(run.then, to_keep, {"screen": latest}, [bar.handed, bar.note], **AT_ONCE, trigger_mode="multiple")
        of_run.then(None, bar.handed, js=HAND_OVER % "bt-run-ended", **PRIVATE, trigger_mode="multiple")
    to_save = listen(bar.save.click, save, {"screen": latest}, [bar.handed, bar.note], lambda words: refused(bar, words))
    to_save.then(None, bar.handed, js=HAND_OVER % "bt-save-run", **PRIVATE)
    return wire_address(page, shared)


def wire_link(shared: Shared) -> None:
    """Copy link: what is on the page now, whatever ran last, as an address."""
    bar = shared.bar

    def link(where: dict, what_ifs: dict, **values: object) -> Updates:
        state, sentences = shared.said(where, what_ifs, values)
        return {bar.handed: shared.handlers.link(state), bar.note: noted(sentences)}

    fields = {f"{part.tab}_{name}": component for part in shared.parts for name, component in part.fields.items()}
    inputs = {"where": bar.where, "what_ifs": shared.what_ifs, **fields}
    made = listen(bar.link.click, link, inputs, [bar.handed, bar.note], lambda words: refused(bar, words), js=WHERE, **AT_ONCE)
    put = made.then(None, bar.handed, bar.link, js=PUT_LINK, **QUIET)
    put.then(None, None, bar.link, js=AS_BEFORE, **QUIET)


def wire_opened(shared: Shared) -> None:
    """A saved run, dropped on the page or taken from the history: its answers, and its request in the fields."""
    bar, request = shared.bar, shared.compare.request

    def opened(event: gr.EventData, known: dict, chosen: list[str]) -> Updates:
        recording, state, words = shared.handlers.open_run(sent(event, "text", str), sent(event, "name", str))
        updates, _ = shared.restored(state, known, chosen, "The saved run")
        return {**updates, **request.updates(shared.compare.handlers.opened(recording, words))}

    inputs = {"known": shared.what_ifs, "chosen": shared.compare.what_if_target.chosen}
    listen(bar.kept.upload, opened, inputs, shared.components, lambda words: told(bar, words))


def wire_address(page: gr.Blocks, shared: Shared) -> Dependency:
    """A page that is opened by a link is restored; nothing runs by itself."""
    bar = shared.bar

    def opened(where: dict, known: dict, chosen: list[str], http: gr.Request) -> Updates:
        state = shared.handlers.linked(objects(where).get("hash"), dict(http.query_params))
        return {bar.note: ""} if state is None else shared.restored(state, known, chosen)[0]

    inputs = {"where": bar.where, "known": shared.what_ifs, "chosen": shared.compare.what_if_target.chosen}
    return listen(page.load, opened, inputs, shared.components, lambda words: told(bar, words), js=WHERE, **AT_ONCE)


def objects(value: object) -> Mapping[str, object]:
    """What came from a browser where it is an object; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def noted(sentences: Sequence[str]) -> str:
    """The sentences under the bar."""
    return render("sharing/note.html", sentences=sentences)


def told(bar: Bar, words: str) -> Updates:
    """What went wrong, under the bar."""
    return {bar.note: problem(words)}


def refused(bar: Bar, words: str) -> Updates:
    """The same, where the browser waits for a text that does not come."""
    return {**told(bar, words), bar.handed: ""}
