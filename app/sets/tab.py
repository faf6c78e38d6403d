"""The tab Many prompts: components and wiring only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from app.sets.api import ForPrograms, sets_function
from app.sets.handlers import GoingOn, Screen, SetHandlers
from app.sets.html import said
from app.sets.progress import ALL
from app.sets.request import MAX_SAMPLES, MAX_TEMPERATURE, MIN_TOP_P, Link
from app.sets.run import set_screens
from app.ui.choices import offered
from app.ui.events import ENDPOINT, PRIVATE, QUIET, sent
from app.ui.frame import Inputs, ModelRequest, StopButton, Updates, listen
from app.ui.linked import as_here
from app.ui.pieces import html
from app.ui.prompt_templates import template_choice, templates_left
from app.ui.shared import LinkPart, PromptTarget, WhenLoaded, wire_targets
from app.ui.templates import introduction, problem, render

FOLDER = Path(__file__).resolve().parent
INTRODUCTION = (
    "A whole set of prompts, answered by every variant you choose. Look at the table: how often two variants say the same, how long their "
    "answers are, and who is right where you say what is; a difference counts where “above zero” or “below zero” stands beside it."
)
PLACEHOLDER = (
    "A prompt a line. What follows a tab is the right answer.\nPrompts of several lines: put a line --- between them.\n"
    "Or JSON Lines, or CSV."
)
ON_LOAD = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-row]");
    if (button) trigger("select", { row: button.dataset.row, to: button.dataset.to });
});"""
TO_TOP = "() => document.querySelector('#bt-set-rows').scrollIntoView({block: 'start'})"
# A file that the page made, saved by the browser; none where a sentence says why.
SAVE = """(text) => {
    if (!text) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "%s" }));
    link.download = "bitune-set-" + new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-") + ".%s";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}"""
KINDS = {"jsonl": "application/json", "csv": "text/csv"}


@dataclass(frozen=True)
class Panel:
    """Where a Screen is shown.

    `go_on`: where the button is that goes on with a set. `shown`: the Screen itself; `page`: of its rows; `handed`: a file on its way to
    the browser.
    """

    status: gr.HTML
    summary: gr.HTML
    wanted: gr.Radio
    rows: gr.HTML
    back: gr.Button
    position: gr.HTML
    next: gr.Button
    save: dict[str, gr.Button]
    go_on: gr.Column
    shown: gr.State
    page: gr.State
    handed: gr.Textbox

    @property
    def components(self) -> list:
        """What `show` updates."""
        saves = self.save.values()
        own = [self.status, self.summary, self.wanted, self.rows, self.back, self.position, self.next, self.go_on]
        return [*own, *saves, self.shown, self.page]

    def show(self, screen: Screen) -> Updates:
        """A screen on these components."""
        can_save = not screen.running and bool(screen.rows)
        return {
            self.status: screen.status,
            self.summary: screen.summary,
            self.rows: screen.rows,
            self.wanted: gr.update(choices=list(screen.filters), value=screen.wanted, visible=True)
            if screen.filters
            else gr.update(visible=False),
            self.back: gr.update(interactive=screen.page > 0, visible=screen.pages > 1),
            self.next: gr.update(interactive=screen.page + 1 < screen.pages, visible=screen.pages > 1),
            self.position: screen.position,
            self.go_on: gr.update(visible=screen.can_go_on),
            **{button: gr.update(visible=can_save) for button in self.save.values()},
            self.shown: screen,
            self.page: screen.page,
        }


@dataclass(frozen=True)
class SetsTab:
    """What the engine changes, and what a link carries."""

    when_loaded: WhenLoaded
    link_part: LinkPart


def build(tab: gr.Tab, handlers: SetHandlers, what_ifs: gr.State, tabs: gr.Tabs, targets: Sequence[PromptTarget]) -> SetsTab:
    """Put the tab's components here and wire them.

    Args:
        tab: This tab.
        handlers: What happens here.
        what_ifs: This visitor's, as in app/ui/what_ifs.py.
        tabs: All tabs of the page.
        targets: The tabs to which a prompt of the set can be sent.
    """
    html(introduction(INTRODUCTION))
    with gr.Row(elem_classes="bt-form bt-set-form"):
        with gr.Column(scale=5, min_width=300):
            text = gr.Textbox(label="Prompts", lines=9, max_lines=18, elem_id="bt-set", placeholder=PLACEHOLDER)
            file = html(
                render("sets/file.html", largest=handlers.admission.limits.body_bytes // 2),
                "bt-set-file",
                js_on_load=(FOLDER / "file.js").read_text(encoding="utf-8"),
            )
            note = html("", "bt-set-note")
        with gr.Column(scale=4, min_width=300):
            fields = choices(handlers)
            with gr.Row(elem_classes="bt-actions"):
                run = gr.Button("Run", variant="primary", elem_id="bt-set-run", scale=0, min_width=120)
                stop = StopButton(elem_id="bt-set-stop", scale=0, min_width=100)
                with gr.Column(scale=0, min_width=100, visible=False) as place:
                    go_on = gr.Button("Go on", elem_id="bt-set-go-on")
    panel = results(handlers.first_screen(), place)
    request = ModelRequest(run, stop, panel.components, panel.show)
    request.wire(handlers, {"text": text, **fields, "what_ifs": what_ifs, "shown": panel.shown}, set_screens)
    again = ModelRequest(go_on, stop, [*panel.components, run], lambda screen: again_shown(panel, run, screen))
    again.wire(GoingOn(handlers.loading, handlers.admission), {"shown": panel.shown}, set_screens)
    wire_file(handlers, file, text, note)
    wire_rows(handlers, panel)
    wire_saving(handlers, panel, note)

    def prompt_of(event: gr.EventData, shown: Screen) -> tuple[str, str]:
        return handlers.prompt_of(shown, sent(event, "row", str))

    wire_targets(panel.rows.select, prompt_of, {"shown": panel.shown}, tabs, targets)
    wire_what_ifs(tab, handlers, fields["variants"], what_ifs)
    gr.api(sets_function(ForPrograms(handlers.loading, handlers.admission)), api_name="sets", **ENDPOINT)
    return SetsTab(when_loaded(handlers, fields, what_ifs), link_part(handlers, fields))


def choices(handlers: SetHandlers) -> Inputs:
    """Which variants run, and how, by the names that SetRequest has for them."""
    names, most = handlers.names, handlers.admission.limits.new_tokens
    fields = {
        "variants": gr.CheckboxGroup(names, value=names, label="Variants", elem_id="bt-set-variants"),
        "template": template_choice(handlers.has_chat_template, elem_id="bt-set-template"),
    }
    with gr.Accordion("Length and sampling", open=False):
        with gr.Row():
            fields["max_new_tokens"] = gr.Slider(1, most, value=min(32, most), step=1, label="New tokens", min_width=180)
            fields["temperature"] = gr.Slider(0, MAX_TEMPERATURE, value=0, step=0.05, label="Temperature", min_width=180)
        with gr.Row():
            fields["top_p"] = gr.Slider(MIN_TOP_P, 1, value=1, step=0.05, label="Top-p", min_width=180)
            fields["seed"] = gr.Number(value=0, precision=0, label="Seed", min_width=180)
        fields["samples"] = gr.Slider(
            1,
            MAX_SAMPLES,
            value=1,
            step=1,
            label="Answers of each variant to each prompt",
            info="More than one needs a temperature.",
        )
    return fields


def results(first: Screen, go_on: gr.Column) -> Panel:
    """Where a Screen is shown; `go_on` is there where a set can be gone on with."""
    status, summary = html(first.status, "bt-set-status"), html("", "bt-set-summary")
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        save = {
            "jsonl": gr.Button("Save as JSON Lines", size="sm", scale=0, min_width=0, visible=False, elem_id="bt-set-jsonl"),
            "csv": gr.Button("Save as CSV", size="sm", scale=0, min_width=0, visible=False, elem_id="bt-set-csv"),
        }
    wanted = gr.Radio([("all", ALL)], value=ALL, label="Show", elem_id="bt-set-filter", visible=False)
    rows = html("", "bt-set-rows", js_on_load=ON_LOAD)
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        back = gr.Button("Back", scale=0, min_width=90, visible=False, elem_id="bt-set-back")
        next_ = gr.Button("Next", scale=0, min_width=90, visible=False, elem_id="bt-set-next")
        position = html("", "bt-set-place", min_width=0)
    handed = gr.Textbox(visible=False)
    return Panel(status, summary, wanted, rows, back, position, next_, save, go_on, gr.State(first), gr.State(0), handed)


def again_shown(panel: Panel, run: gr.Button, screen: Screen) -> Updates:
    """A screen of a set that goes on: meanwhile Run cannot be pressed either."""
    return {**panel.show(screen), run: gr.update(interactive=not screen.running)}


def wire_file(handlers: SetHandlers, file: gr.HTML, text: gr.Textbox, note: gr.HTML) -> None:
    """A file that the browser has read stands in the box."""

    def opened(event: gr.EventData) -> Updates:
        prompts, words = handlers.opened(sent(event, "text", str), sent(event, "name", str))
        return {text: prompts, note: said(words)}

    listen(file.upload, opened, {}, [text, note], lambda words: {note: problem(words)})
    text.input(lambda: "", None, note, **QUIET)


def wire_rows(handlers: SetHandlers, panel: Panel) -> None:
    """Another choice of rows, another page of them."""
    inputs = {"shown": panel.shown, "wanted": panel.wanted, "page": panel.page}

    def look(shown: Screen, wanted: str, page: int, by: int | None) -> Updates:
        return panel.show(handlers.look(shown, wanted, 0 if by is None else page + by))

    def choose(shown: Screen, wanted: str, page: int) -> Updates:
        return look(shown, wanted, page, None)

    def back(shown: Screen, wanted: str, page: int) -> Updates:
        return look(shown, wanted, page, -1)

    def on(shown: Screen, wanted: str, page: int) -> Updates:
        return look(shown, wanted, page, 1)

    listen(panel.wanted.input, choose, inputs, panel.components)
    for button, turn in ((panel.back, back), (panel.next, on)):
        listen(button.click, turn, inputs, panel.components).then(None, js=TO_TOP, **PRIVATE)


def wire_saving(handlers: SetHandlers, panel: Panel, note: gr.HTML) -> None:
    """The rows as a file of the browser's."""
    for form, button in panel.save.items():

        def save(shown: Screen, form: str = form) -> Updates:
            return {panel.handed: handlers.saved(shown, form), note: ""}

        def refused(words: str) -> Updates:
            return {panel.handed: "", note: problem(words)}

        made = listen(button.click, save, {"shown": panel.shown}, [panel.handed, note], refused)
        made.then(None, panel.handed, js=SAVE % (KINDS[form], form), **PRIVATE)


def wire_what_ifs(tab: gr.Tab, handlers: SetHandlers, variants: gr.CheckboxGroup, what_ifs: gr.State) -> None:
    """Coming here, the visitor's what-ifs can be chosen too."""

    def show(chosen: list[str], what_ifs: dict[str, dict]) -> Updates:
        names = [*handlers.names, *what_ifs]
        return {variants: offered(names, chosen, [name for name in names if name in chosen])}

    listen(tab.select, show, {"chosen": variants, "what_ifs": what_ifs}, [variants])


def link_part(handlers: SetHandlers, fields: Inputs) -> LinkPart:
    """A link fills in the choices; the prompts are left as they are."""

    def restore(link: Link, what_ifs: Mapping[str, dict]) -> tuple[Updates, list[str]]:
        values, words = as_here(handlers, fields, link.model_dump(exclude_none=True), what_ifs)
        if link.variants is not None:
            values["variants"] = gr.update(choices=[*handlers.names, *what_ifs], value=values["variants"])
        return {fields[name]: value for name, value in values.items()}, words

    return LinkPart("sets", Link, fields, list(fields.values()), restore)


def when_loaded(handlers: SetHandlers, fields: Inputs, what_ifs: gr.State) -> WhenLoaded:
    """The variants that there are, and the templates of this base; what is chosen stays as far as it is there."""

    def fill(variants: list[str], template: str, known: dict[str, dict]) -> Updates:
        names = [*handlers.names, *known]
        return {
            fields["variants"]: offered(names, variants, [name for name in names if name in variants]),
            fields["template"]: templates_left(handlers.has_chat_template, template),
        }

    chosen = {name: fields[name] for name in ("variants", "template")}
    return WhenLoaded({**chosen, "known": what_ifs}, list(chosen.values()), fill)
