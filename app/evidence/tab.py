"""The tab Evidence: components and wiring only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gradio as gr

from app.evidence.handlers import EvidenceHandlers, ItemPage, ItemQuery, Link
from app.ui.api_types import EvidenceAnswer
from app.ui.events import PRIVATE, QUIET, sent
from app.ui.frame import Updates, api, listen
from app.ui.pieces import html
from app.ui.plots import chart, drawn
from app.ui.shared import LinkPart, PromptTarget, wire_targets
from app.ui.templates import empty, heading, introduction, problem

INTRODUCTION = (
    "How many test questions each variant of the study answered right: the base, and what was trained on it with the same data. "
    "Look at the chart below the table: a filled dot is a difference larger than luck with questions and seeds."
)
ITEMS = (
    "The questions one by one, as the variants answered them. Look for those where one of the two that you choose is right and the other "
    "wrong; with several seeds a variant counts as right where most of its seeds are. A percentage beside a variant is what its choice has "
    "of the probability of all choices. Take a question to Compare or Attention to see what happens there."
)
# One listener for all pages of the list: they are drawn anew inside of `element`.
ON_LOAD = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-item]");
    if (button) trigger("select", { item: button.dataset.item, to: button.dataset.to });
});"""
TO_TOP = "() => document.querySelector('#bt-items').scrollIntoView({block: 'start'})"


@dataclass(frozen=True)
class Explorer:
    """The components of the explorer: what a person chooses, by the names of ItemQuery, and what an ItemPage is shown on."""

    setting: gr.Radio
    first: gr.Dropdown
    second: gr.Dropdown
    task: gr.Radio
    topic: gr.Dropdown
    wanted: gr.Radio
    page: gr.State
    figures: gr.HTML
    note: gr.HTML
    items: gr.HTML
    back: gr.Button
    position: gr.HTML
    next: gr.Button

    def inputs(self) -> dict:
        return {name: getattr(self, name) for name in ItemQuery.__dataclass_fields__}

    def outputs(self) -> list:
        return [self.wanted, self.page, self.figures, self.note, self.items, self.back, self.position, self.next]

    def show(self, page: ItemPage) -> Updates:
        """The component updates of a page."""
        return {
            self.wanted: gr.update(choices=page.filters) if page.filters else gr.skip(),
            self.page: page.page,
            self.figures: page.figures,
            self.note: page.note,
            self.items: page.html,
            self.back: gr.update(interactive=page.page > 0, visible=page.pages > 1),
            self.position: page.position,
            self.next: gr.update(interactive=page.page + 1 < page.pages, visible=page.pages > 1),
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
    explorer = build_explorer(handlers)
    wire_list(tab, handlers, explorer)
    wire_table(handlers, setting, table, whiskers)
    wire_questions(handlers, explorer)

    def prompt_of(event: gr.EventData) -> tuple[str, str]:
        return handlers.prompt_of(sent(event, "item", str))

    wire_targets(explorer.items.select, prompt_of, {}, tabs, targets)
    return link_part(handlers, explorer, setting, table, whiskers)


def build_explorer(handlers: EvidenceHandlers) -> Explorer:
    """Choices, the list and its pages; filled when the tab is opened."""
    sets = handlers.question_sets
    query = handlers.first_query(sets[0][1])
    rows, tasks, topics = handlers.rows(query.setting), handlers.tasks(query.setting), handlers.topics(query.setting)
    setting = gr.Radio(sets, value=query.setting, label="Questions", elem_id="bt-questions", visible=len(sets) > 1)
    with gr.Row(elem_classes="bt-rows"):
        first = gr.Dropdown(rows, value=query.first, label="First variant", elem_id="bt-first-row", min_width=180)
        second = gr.Dropdown(rows, value=query.second, label="Second variant", elem_id="bt-second-row", min_width=180)
        has_topics = len(topics) > 1
        topic = gr.Dropdown(topics, value=query.topic, label="Topic", elem_id="bt-topic", min_width=180, visible=has_topics)
    task = gr.Radio(tasks, value=query.task, label="Which of them", elem_id="bt-task", visible=len(tasks) > 1)
    figures = html("", "bt-counted")
    wanted = gr.Radio(handlers.filters(query), value=query.wanted, label="Show", elem_id="bt-filter")
    note = html("", "bt-items-note")
    items = html(empty("Reading the questions."), "bt-items", js_on_load=ON_LOAD)
    with gr.Row(elem_classes="bt-actions bt-buttons"):
        back = gr.Button("Back", interactive=False, scale=0, min_width=90, elem_id="bt-back")
        next_ = gr.Button("Next", interactive=False, scale=0, min_width=90, elem_id="bt-next")
        position = html("", "bt-place", min_width=0)
    return Explorer(setting, first, second, task, topic, wanted, gr.State(0), figures, note, items, back, position, next_)


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
    for choice in (explorer.first, explorer.second, explorer.task, explorer.topic, explorer.wanted):
        listen(choice.input, first_page, **wiring)
    for button, change_page in ((explorer.back, page_back), (explorer.next, page_on)):
        listen(button.click, change_page, **wiring).then(None, js=TO_TOP, **PRIVATE)


def tables(handlers: EvidenceHandlers, setting: str, table: gr.HTML, whiskers: gr.Plot) -> Updates:
    """The table of a setting and its chart."""
    figure = drawn(handlers.whiskers(setting), f"bitune-study-{setting}")
    return {table: handlers.table(setting), whiskers: gr.update(**figure)}


def wire_table(handlers: EvidenceHandlers, setting: gr.Radio, table: gr.HTML, whiskers: gr.Plot) -> None:
    """Another setting above: its table and its chart."""

    def change_setting(setting: str) -> Updates:
        return tables(handlers, setting, table, whiskers)

    listen(setting.input, change_setting, {"setting": setting}, [table, whiskers], lambda words: {table: problem(words)})


def choices(handlers: EvidenceHandlers, explorer: Explorer, query: ItemQuery) -> Updates:
    """What there is to choose among the questions of a setting."""
    rows, tasks, topics = handlers.rows(query.setting), handlers.tasks(query.setting), handlers.topics(query.setting)
    return {
        explorer.first: gr.update(choices=rows, value=query.first),
        explorer.second: gr.update(choices=rows, value=query.second),
        explorer.task: gr.update(choices=tasks, value=query.task, visible=len(tasks) > 1),
        explorer.topic: gr.update(choices=topics, value=query.topic, visible=len(topics) > 1),
        explorer.wanted: gr.update(choices=handlers.filters(query), value=query.wanted),
    }


def wire_questions(handlers: EvidenceHandlers, explorer: Explorer) -> None:
    """Other questions: their choices and their list."""

    def change_questions(setting: str) -> Updates:
        query = handlers.first_query(setting)
        return {**explorer.show(handlers.explore(query)), **choices(handlers, explorer, query)}

    outputs = [explorer.first, explorer.second, explorer.task, explorer.topic, *explorer.outputs()]
    listen(explorer.setting.input, change_questions, {"setting": explorer.setting}, outputs, explorer.failed)


def link_part(handlers: EvidenceHandlers, explorer: Explorer, setting: gr.Radio, table: gr.HTML, whiskers: gr.Plot) -> LinkPart:
    """What a link carries; the list it asks for comes when the tab is opened."""

    def restore(link: Link, what_ifs: Mapping[str, dict]) -> tuple[Updates, list[str]]:
        above, words = handlers.linked_table(link)
        query, more = handlers.linked_query(link)
        updates = {} if above is None else {setting: above, **tables(handlers, above, table, whiskers)}
        if query is not None:
            updates |= {**choices(handlers, explorer, query), explorer.setting: query.setting, explorer.page: query.page}
        return updates, list(dict.fromkeys([*words, *more]))

    explored = [explorer.setting, explorer.first, explorer.second, explorer.task, explorer.topic, explorer.wanted, explorer.page]
    return LinkPart("evidence", Link, {"table": setting, **explorer.inputs()}, [setting, table, whiskers, *explored], restore)


def api_of(handlers: EvidenceHandlers) -> Callable:
    """The function behind /evidence. Its signature and docstring are what clients and MCP tools read."""

    def evidence(setting: str | None = None) -> dict[str, EvidenceAnswer]:
        """What the study measured: how many questions the base, LoRA, Bitune and its ablations answer right, with intervals.

        Args:
            setting: Name of one setting of the study, such as instruction, choices or arithmetic, or own for the questions written for
                this project, which are no benchmark; all that are recorded if left out.

        Returns:
            For every setting its title, text, base, the row `reference` that differences are taken to, tasks, and rows: name, method,
            peft, rank, parameters, seeds, learning_rate, steps, minutes; accuracy by task and for `average` as mean, low, high (95 %
            interval) and spread (standard deviation over seeds), shares from 0 to 1; minus, the paired difference to the row named in
            against; and made, of own alone: when and with which libraries and weights the answers were computed.
        """
        return handlers.answer(setting)

    return evidence
