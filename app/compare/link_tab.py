"""What a link carries of Compare, and what becomes of it on the page: components and wiring only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import gradio as gr

from app.compare import conversation_tab
from app.compare.conversation import can_go_on
from app.compare.handlers import CompareHandlers
from app.compare.link import Link, conversation_of
from app.compare.screen import Screen
from app.ui.frame import Inputs, ModelRequest, Updates
from app.ui.linked import as_here
from app.ui.shared import LinkPart
from app.ui.templates import empty
from app.why import tab as why
from app.why.look import LookLink, Wish

FROM_LINK = "Prompt and settings come from the link. Press Run to see the answers."


@dataclass(frozen=True)
class Below:
    """What of a link stands below the form: the conversation, what is looked at, and the screen of both."""

    talk: conversation_tab.Panel
    reasons: why.Section
    latest: gr.State


def said(values: Mapping[str, object]) -> dict[str, object]:
    """What a link says: the form, and of the screen below it the conversation and what is looked at, where it is of this prompt.

    Args:
        values: Of the form, `latest`, `run` and the fields of LookLink by name; `looked`: of the browser.
    """
    form = {name: value for name, value in values.items() if name in Link.model_fields}
    latest, run, wish = (values[name] for name in ("latest", "run", "wish"))
    talk = conversation_of(latest.request) if can_go_on(latest) else None
    asked = form["prompt"] if talk is None else talk["question"]
    look = {}
    if run is not None and run.request.prompt == asked:
        choices = {name: values[name] for name in LookLink.model_fields if values.get(name) is not None}
        looked = values.get("looked")
        look = choices | (looked if isinstance(looked, dict) else {})
    elif run is None and wish is not None and wish.prompt == asked:
        look = wish.look.model_dump(exclude_none=True)
    return {**form, "conversation": talk, "look": look or None}


def link_part(handlers: CompareHandlers, fields: Inputs, request: ModelRequest[Screen], below: Below) -> LinkPart:
    """A link fills in the fields; running it is left to the visitor."""

    def restore(link: Link, what_ifs: Mapping[str, dict]) -> tuple[Updates, list[str]]:
        said_of_fields = link.model_dump(exclude_none=True, exclude={"look", "conversation"})
        values, words = as_here(handlers, fields, said_of_fields, what_ifs)
        screen, talk, asked = Screen(empty(FROM_LINK)), link.conversation, link.prompt
        if talk is not None:
            sampling = {name: values[name] for name in conversation_tab.SAMPLING if name in values}
            linked, more = handlers.linked(talk, what_ifs, **sampling)
            words += [one for one in more if one not in words]
            screen, asked = (screen, asked) if linked is None else (linked, talk.question)
        wish = None if link.look is None or asked is None else Wish(asked, link.look)
        values |= {"wish": wish, "reference": link.reference}
        updates = {fields[name]: value for name, value in values.items()}
        updates |= request.updates(replace(screen, wish=wish, reference=link.reference))
        if screen.request is not None:
            updates[below.talk.question] = gr.update(value=talk.question)
            updates[below.talk.earlier] = talk.earlier
        return updates, words

    more = {"latest": below.latest, "run": below.reasons.run, **below.reasons.fields}
    outputs = dict.fromkeys([*fields.values(), *request.components, below.talk.earlier])
    return LinkPart("compare", Link, {**fields, **more}, list(outputs), restore, said)
