"""The tab Evidence: components and wiring only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from app.evidence.handlers import Asked, EvidenceHandlers, Explorer
from app.ui.errors import sentence
from app.ui.shared import PromptTarget

INTRODUCTION = (
    "How many test questions each variant of the study answered right: the base, and what was trained on it with the same data. "
    "Look at the right: a filled dot is a difference larger than luck with questions and seeds."
)
ITEMS = (
    "The questions one by one, as two of these variants answered them. Look for those where one is right and the other wrong; with several "
    "seeds a variant counts as right where most of its seeds are. Take a question to Compare or Attention to see what happens there."
)
WAITING = '<p class="bt-empty">Reading the questions.</p>'
# One listener for all pages of the list: they are drawn anew inside of `element`.
ON_LOAD = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-item]");
    if (button) trigger("select", { item: button.dataset.item, to: button.dataset.to });
});"""
TO_TOP = "() => document.querySelector('#bt-items').scrollIntoView({block: 'start'})"
TO_TABS = "() => document.querySelector('[role=tablist]').scrollIntoView({block: 'start'})"
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE = {**QUIET, "queue": False}


@dataclass(frozen=True)
class Shown:
    """What a person chooses in the explorer, in the order in which Asked takes it, and what an Explorer is shown on."""

    setting: gr.Radio
    first: gr.Dropdown
    second: gr.Dropdown
    task: gr.Radio
    wanted: gr.Radio
    page: gr.State
    note: gr.HTML
    items: gr.HTML
    back: gr.Button
    place: gr.HTML
    on: gr.Button

    def asked(self) -> list:
        return [self.setting, self.first, self.second, self.task, self.wanted, self.page]

    def all(self) -> list:
        return [self.wanted, self.page, self.note, self.items, self.back, self.place, self.on]

    def show(self, found: Explorer) -> dict:
        """The component updates of an Explorer."""
        return {
            self.wanted: gr.update(choices=found.filters) if found.filters else gr.skip(),
            self.page: found.page,
            self.note: found.note,
            self.items: found.html,
            self.back: gr.update(interactive=found.page > 0),
            self.place: f'<span class="bt-place">{found.place}</span>',
            self.on: gr.update(interactive=found.page + 1 < found.pages),
        }


def build(tab: gr.Tab, handlers: EvidenceHandlers, tabs: gr.Tabs, targets: Sequence[PromptTarget]) -> None:
    """Put the tab's components here and wire them."""
    gr.api(api_of(handlers), api_name="evidence")
    gr.HTML(f'<p class="bt-introduction">{INTRODUCTION}</p>', apply_default_css=False)
    if handlers.missing():
        gr.HTML(handlers.missing(), apply_default_css=False, elem_id="bt-evidence-missing")
    if not handlers.evidence:
        return
    settings = handlers.settings
    setting = gr.Radio(
        settings, value=settings[0][1], label="What was trained on what", elem_id="bt-setting", visible=len(settings) > 1
    )
    table = gr.HTML(handlers.table(settings[0][1]), elem_id="bt-evidence", apply_default_css=False)
    gr.HTML(f'<h2 class="bt-heading">Question by question</h2><p class="bt-introduction">{ITEMS}</p>', apply_default_css=False)
    shown = explorer(handlers, setting)
    wire_choices(tab, handlers, shown, table)
    wire_pages(handlers, shown)
    wire_send(handlers, shown, tabs, targets)


def explorer(handlers: EvidenceHandlers, setting: gr.Radio) -> Shown:
    """Choices, the list and its pages; filled when the tab is opened."""
    chosen = handlers.first_choice(setting.value)
    rows, tasks = handlers.rows(chosen.setting), handlers.tasks(chosen.setting)
    with gr.Row(elem_classes="bt-rows"):
        first = gr.Dropdown(rows, value=chosen.first, label="First variant", elem_id="bt-first-row", min_width=180)
        second = gr.Dropdown(rows, value=chosen.second, label="Second variant", elem_id="bt-second-row", min_width=180)
    task = gr.Radio(tasks, value=chosen.task, label="Questions of", elem_id="bt-task", visible=len(tasks) > 1)
    wanted = gr.Radio(handlers.filters(chosen), value=chosen.wanted, label="Show", elem_id="bt-filter")
    note = gr.HTML("", elem_id="bt-items-note", apply_default_css=False)
    items = gr.HTML(WAITING, elem_id="bt-items", apply_default_css=False, js_on_load=ON_LOAD)
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        back = gr.Button("Back", interactive=False, scale=0, min_width=90, elem_id="bt-back")
        on = gr.Button("Next", interactive=False, scale=0, min_width=90, elem_id="bt-next")
        place = gr.HTML("", apply_default_css=False, min_width=0, elem_id="bt-place")
    return Shown(setting, first, second, task, wanted, gr.State(0), note, items, back, place, on)


def wire_choices(tab: gr.Tab, handlers: EvidenceHandlers, shown: Shown, table: gr.HTML) -> None:
    """Coming here, another setting, another choice: the list is drawn anew."""

    def explore(*values) -> dict:
        return shown.show(handlers.explore(Asked(*values)))

    def start(*values) -> dict:
        return explore(*values[:-1], 0)

    def change_setting(setting: str) -> dict:
        if setting not in handlers.evidence:  # from a program; the page offers those there are
            return {table: handlers.table(setting)}
        chosen, rows = handlers.first_choice(setting), handlers.rows(setting)
        tasks = handlers.tasks(setting)
        return {
            table: handlers.table(setting),
            shown.first: gr.update(choices=rows, value=chosen.first),
            shown.second: gr.update(choices=rows, value=chosen.second),
            shown.task: gr.update(choices=tasks, value=chosen.task, visible=len(tasks) > 1),
            **shown.show(found := handlers.explore(chosen)),
            shown.wanted: gr.update(choices=found.filters, value=chosen.wanted),
        }

    tab.select(explore, shown.asked(), shown.all(), **QUIET)  # queued: the texts may have to come from the Hub
    shown.setting.input(change_setting, shown.setting, [table, shown.first, shown.second, shown.task, *shown.all()], **AT_ONCE)
    for choice in (shown.first, shown.second, shown.task, shown.wanted):
        choice.input(start, shown.asked(), shown.all(), **AT_ONCE)


def wire_pages(handlers: EvidenceHandlers, shown: Shown) -> None:
    """Back and Next."""
    for button, step in ((shown.back, -1), (shown.on, 1)):

        def turn(*values, step=step) -> dict:
            *chosen, page = values
            return shown.show(handlers.explore(Asked(*chosen, page + step)))

        button.click(turn, shown.asked(), shown.all(), **AT_ONCE).then(None, js=TO_TOP, api_visibility="private")


def wire_send(handlers: EvidenceHandlers, shown: Shown, tabs: gr.Tabs, targets: Sequence[PromptTarget]) -> None:
    """A question fills the fields of another tab and opens it; running it there is left to the visitor."""
    by_tab = {target.tab: target for target in targets}

    def send(event: gr.EventData) -> dict:
        try:
            sent, target = handlers.send(event.item), by_tab[event.to]
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        return {tabs: gr.Tabs(selected=target.tab), **target.fill(sent.prompt, sent.template)}

    components = list(dict.fromkeys([tabs, *(component for target in targets for component in target.components)]))
    sent = shown.items.select(send, None, components, **AT_ONCE)
    sent.success(None, js=TO_TABS, api_visibility="private")


def api_of(handlers: EvidenceHandlers) -> Callable:
    """The function behind /evidence. Its signature and docstring are what clients and MCP tools read."""

    def evidence(setting: str | None = None) -> dict:
        """What the study measured: how many questions the base, LoRA, Bitune and its ablations answer right, with intervals.

        Args:
            setting: Name of one setting of the study, such as instruction, choices or arithmetic; all that are recorded if left out.

        Returns:
            For every setting its title, text, base, the row `reference` that differences are taken to, tasks, and rows: name, method,
            peft, rank, parameters, seeds, learning_rate, steps, minutes; accuracy by task and for `average` as mean, low, high (95 %
            interval) and spread (standard deviation over seeds), shares from 0 to 1; minus, the paired difference to the row named in against.
        """
        try:
            return handlers.answer(setting)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    return evidence
