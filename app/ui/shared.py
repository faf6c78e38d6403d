"""What passes between tabs. No tab imports another one: page.py hands these from the tab that has them to the one that needs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel

from app.ui.events import PRIVATE, sent
from app.ui.frame import Inputs, Updates, listen
from bitune.errors import UnknownNameError

TO_TABS = "() => document.querySelector('[role=tablist]').scrollIntoView({block: 'start'})"


@dataclass(frozen=True)
class PromptSource:
    """A tab's fields from which another tab takes a prompt and the template around it."""

    prompt: gr.Textbox
    template: gr.Radio


@dataclass(frozen=True)
class PromptTarget:
    """A tab that takes a prompt from another one.

    `tab`: its id among the page's tabs. `components`: what is updated. `fill`: a prompt and its template as these updates.
    """

    tab: str
    components: Sequence[Component]
    fill: Callable[[str, str], Updates]


def wire_targets(
    trigger: Callable, prompt_of: Callable[..., tuple[str, str]], inputs: Inputs, tabs: gr.Tabs, targets: Sequence[PromptTarget]
) -> None:
    """A press on a prompt fills the fields of another tab and opens it; running it there is left to the visitor.

    Args:
        trigger: An event that says `to` which tab.
        prompt_of: Of the event and the values of `inputs` by name, the prompt and its template; raises where there is none.
    """
    by_tab = {target.tab: target for target in targets}

    def send(event: gr.EventData, **values: object) -> Updates:
        to = sent(event, "to", str)
        if to not in by_tab:
            raise UnknownNameError("tab", to, by_tab)
        return {tabs: gr.Tabs(selected=to), **by_tab[to].fill(*prompt_of(event, **values))}

    outputs = dict.fromkeys([tabs, *(component for target in targets for component in target.components)])
    listen(trigger, send, inputs, outputs).success(None, js=TO_TABS, **PRIVATE)


@dataclass(frozen=True)
class WhatIfTarget:
    """A tab in which a visitor's what-ifs are variants to choose.

    `chosen`: the choice, an input of whoever adds a what-if. `components`: what is updated. `show`: the what-ifs that there are and the
    variants to choose, as these updates; then what the request found chosen, if it was one of the visitor (choices.py).
    """

    chosen: gr.CheckboxGroup
    components: Sequence[Component]
    show: Callable[..., Updates]


@dataclass(frozen=True)
class WhenLoaded:
    """What of a tab becomes known when the engine is there.

    `inputs`: what a visitor may have chosen meanwhile, by name. `components`: what is updated. `fill`: the values of the inputs, by
    name, as these updates.
    """

    inputs: Mapping[str, Component]
    components: Sequence[Component]
    fill: Callable[..., Updates]


@dataclass(frozen=True)
class LinkPart:
    """What of a tab a link carries.

    `tab`: its id among the page's tabs. `kind`: the fields, none of them required; what a link leaves out stays as it is on the page.
    `fields`: the components whose values they are; what the browser alone knows, its scripts say. `components`: what is updated.
    `restore`: fields that `kind` has checked and the visitor's what-ifs by name as these updates, and a sentence for each thing that is not
    here. `say`: what the components and the browser hold as the fields of `kind`; where it is None they are these fields.
    """

    tab: str
    kind: type[BaseModel]
    fields: Mapping[str, Component]
    components: Sequence[Component]
    restore: Callable[[BaseModel, Mapping[str, dict]], tuple[Updates, list[str]]]
    say: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None


@dataclass(frozen=True)
class WhatIfList:
    """Where a visitor's what-ifs are listed, and chosen: `show`, with the same arguments as WhatIfTarget's, as updates of `components`."""

    components: Sequence[Component]
    show: Callable[..., Updates]
