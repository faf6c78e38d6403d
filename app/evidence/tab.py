"""The tab Evidence: components and wiring only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from app.evidence.handlers import EvidenceHandlers, ItemPage, ItemQuery, Link
from app.ui.api_types import EvidenceAnswer
from app.ui.events import PRIVATE, QUIET
from app.ui.frame import Updates, api, listen
from app.ui.pieces import html
from app.ui.plots import chart, drawn
from app.ui.shared import LinkPart, PromptTarget
from app.ui.templates import empty, heading, introduction, problem

INTRODUCTION = (
    "How many test questions each variant of the study answered right: the base, and what was trained on it with the same data. "
    "Look at the chart below the table: a filled dot is a difference larger than luck with questions and seeds."
)
ITEMS = (
    "The questions one by one, as two of these variants answered them. Look for those where one is right and the other wrong; with several "
    "seeds a variant counts as right where most of its seeds are. Take a question to Compare or Attention to see what happens there."
)
# One listener for all pages of the list: they are drawn anew inside of `element`.
ON_LOAD = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-item]");
    if (button) trigger("select", { item: button.dataset.item, to: button.dataset.to });
});"""
TO_TOP = "() => document.querySelector('#bt-items').scrollIntoView({block: 'start'})"
TO_TABS = "() => document.querySelector('[role=tablist]').scrollIntoView({block: 'start'})"


@dataclass(frozen=True)
class Explorer:
    """The components of the explorer: what a person chooses, by the names of ItemQuery, and what an ItemPage is shown on."""

    setting: gr.Radio
    first: gr.Dropdown
    second: gr.Dropdown
    task: gr.Radio
    wanted: gr.Radio
    page: gr.State
    note: gr.HTML
    items: gr.HTML
    back: gr.Button
    position: gr.HTML
    next: gr.Button

    def inputs(self) -> dict:
        return {name: getattr(self, name) for name in ItemQuery.__dataclass_fields__}

    def outputs(self) -> list:
        return [self.wanted, self.page, self.note, self.items, self.back, self.position, self.next]

    def show(self, page: ItemPage) -> Updates:
        """The component updates of a page."""
        return {
            self.wanted: gr.update(choices=page.filters) if page.filters else gr.skip(),
            self.page: page.page,
            self.note: page.note,
            self.items: page.html,
            self.back: gr.update(interactive=page.page > 0),
            self.position: page.position,
            self.next: gr.update(interactive=page.page + 1 < page.pages),
        }

    def failed(self, words: str) -> Updates:
        """A sentence instead of a page."""
        return self.show(ItemPage(problem(words)))


def build(tab: gr.Tab, handlers: EvidenceHandlers, tabs: gr.Tabs, targets: Sequence[PromptTarget]) -> LinkPart | None:
    """Put the tab's components here and wire them.

    Args:
        tab: This tab.
        handlers: What happens here.
        tabs: All tabs of the page.
        targets: The tabs to which a question can be sent.

    Returns:
        What a link carries; None where there is no study to look at.
    """
    api(api_of(handlers), "evidence")
    html(introduction(INTRODUCTION))
    if handlers.missing():
        html(handlers.missing(), "bt-evidence-missing")
    if not handlers.evidence:
        return None
    settings = handlers.settings
    first = settings[0][1]
    setting = gr.Radio(settings, value=first, label="What was trained on what", elem_id="bt-setting", visible=len(settings) > 1)
    table = html(handlers.table(first), "bt-evidence")
    whiskers = chart(handlers.whiskers(first), f"bitune-study-{first}", "bt-whiskers")
    html(heading("Question by question", ITEMS))
    explorer = build_explorer(handlers, setting)
    wire_list(tab, handlers, explorer)
    shown = wire_setting(handlers, explorer, table, whiskers)
    wire_targets(handlers, explorer, tabs, targets)
    return shown


def build_explorer(handlers: EvidenceHandlers, setting: gr.Radio) -> Explorer:
    """Choices, the list and its pages; filled when the tab is opened."""
    query = handlers.first_query(setting.value)
    rows, tasks = handlers.rows(query.setting), handlers.tasks(query.setting)
    with gr.Row(elem_classes="bt-rows"):
        first = gr.Dropdown(rows, value=query.first, label="First variant", elem_id="bt-first-row", min_width=180)
        second = gr.Dropdown(rows, value=query.second, label="Second variant", elem_id="bt-second-row", min_width=180)
    task = gr.Radio(tasks, value=query.task, label="Questions of", elem_id="bt-task", visible=len(tasks) > 1)
    wanted = gr.Radio(handlers.filters(query), value=query.wanted, label="Show", elem_id="bt-filter")
    note = html("", "bt-items-note")
    items = html(empty("Reading the questions."), "bt-items", js_on_load=ON_LOAD)
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        back = gr.Button("Back", interactive=False, scale=0, min_width=90, elem_id="bt-back")
        next_ = gr.Button("Next", interactive=False, scale=0, min_width=90, elem_id="bt-next")
        position = html("", "bt-place", min_width=0)
    return Explorer(setting, first, second, task, wanted, gr.State(0), note, items, back, position, next_)


def wire_list(tab: gr.Tab, handlers: EvidenceHandlers, explorer: Explorer) -> None:
    """Coming here, another choice, another page: the list is drawn anew."""

    def explore(**query: object) -> Updates:
        return explorer.show(handlers.explore(ItemQuery(**query)))

    def first_page(**query: object) -> Updates:
        return explore(**{**query, "page": 0})

    def page_back(page: int, **query: object) -> Updates:
        return explore(page=page - 1, **query)

    def page_on(page: int, **query: object) -> Updates:
        return explore(page=page + 1, **query)

    wiring = {"inputs": explorer.inputs(), "outputs": explorer.outputs(), "failed": explorer.failed}
    listen(tab.select, explore, **wiring, **QUIET)  # queued: the texts may have to come from the Hub
    for choice in (explorer.first, explorer.second, explorer.task, explorer.wanted):
        listen(choice.input, first_page, **wiring)
    for button, change_page in ((explorer.back, page_back), (explorer.next, page_on)):
        listen(button.click, change_page, **wiring).then(None, js=TO_TOP, **PRIVATE)


def wire_setting(handlers: EvidenceHandlers, explorer: Explorer, table: gr.HTML, whiskers: gr.Plot) -> LinkPart:
    """Another setting: its table, its chart, its choices and its list. A link chooses one too; its list comes when the tab is opened."""

    def choose(query: ItemQuery) -> Updates:
        rows, tasks = handlers.rows(query.setting), handlers.tasks(query.setting)
        return {
            table: handlers.table(query.setting),
            whiskers: gr.update(**drawn(handlers.whiskers(query.setting), f"bitune-study-{query.setting}")),
            explorer.first: gr.update(choices=rows, value=query.first),
            explorer.second: gr.update(choices=rows, value=query.second),
            explorer.task: gr.update(choices=tasks, value=query.task, visible=len(tasks) > 1),
            explorer.wanted: gr.update(choices=handlers.filters(query), value=query.wanted),
        }

    def change_setting(setting: str) -> Updates:
        query = handlers.first_query(setting)
        return {**explorer.show(handlers.explore(query)), **choose(query)}

    def restore(link: Link, what_ifs: Sequence[str]) -> tuple[Updates, list[str]]:
        query, words = handlers.linked_query(link)
        if query is None:
            return {}, words
        return {**choose(query), explorer.setting: query.setting, explorer.page: query.page}, words

    chosen = [table, whiskers, explorer.first, explorer.second, explorer.task]
    inputs, outputs = {"setting": explorer.setting}, [*chosen, *explorer.outputs()]
    listen(explorer.setting.input, change_setting, inputs, outputs, lambda words: {table: problem(words)})
    return LinkPart("evidence", Link, explorer.inputs(), [*chosen, explorer.wanted, explorer.setting, explorer.page], restore)


def wire_targets(handlers: EvidenceHandlers, explorer: Explorer, tabs: gr.Tabs, targets: Sequence[PromptTarget]) -> None:
    """A question fills the fields of another tab and opens it; running it there is left to the visitor."""
    by_tab = {target.tab: target for target in targets}

    def send(event: gr.EventData) -> Updates:
        prompt, template = handlers.prompt_of(event.item)
        return {tabs: gr.Tabs(selected=event.to), **by_tab[event.to].fill(prompt, template)}

    outputs = dict.fromkeys([tabs, *(component for target in targets for component in target.components)])
    listen(explorer.items.select, send, {}, outputs).success(None, js=TO_TABS, **PRIVATE)


def api_of(handlers: EvidenceHandlers) -> Callable:
    """The function behind /evidence. Its signature and docstring are what clients and MCP tools read."""

    def evidence(setting: str | None = None) -> dict[str, EvidenceAnswer]:
        """What the study measured: how many questions the base, LoRA, Bitune and its ablations answer right, with intervals.

        Args:
            setting: Name of one setting of the study, such as instruction, choices or arithmetic; all that are recorded if left out.

        Returns:
            For every setting its title, text, base, the row `reference` that differences are taken to, tasks, and rows: name, method,
            peft, rank, parameters, seeds, learning_rate, steps, minutes; accuracy by task and for `average` as mean, low, high (95 %
            interval) and spread (standard deviation over seeds), shares from 0 to 1; minus, the paired difference to the row named in against.
        """
        return handlers.answer(setting)

    return evidence
