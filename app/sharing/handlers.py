"""What happens when a page is shared, without the page: its state becomes a link, a link or a saved run becomes state. Knows no Gradio.

A state is plain JSON: the fields of each tab under the tab's id, `tab`, which of them is open, and `what_ifs`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from app.compare.handlers import REQUEST
from app.compare.link import from_query, with_names
from app.compare.origin import not_as_here
from app.compare.recorded import Recording, to_json
from app.compare.screen import NOTHING_TO_SAVE
from app.sharing import links
from app.sharing.runs import open_run
from app.ui.checks import shown
from app.ui.loading import OnEngine
from app.ui.validation import as_far_as_valid
from app.ui.what_ifs import MAX_WHAT_IFS, add, read
from bitune.errors import BituneError, ConfigError

LATER = "Its what-ifs come when the model is loaded."
FIELDS = ("prompt", "variants", "template", "max_new_tokens", "temperature", "top_p", "seed")  # of a request, as a link has them


@dataclass(frozen=True)
class WhatIfs:
    """A visitor's what-ifs with those of a link or a run among them. `names`: what each of these is called here; `words` on the others."""

    known: Mapping[str, dict]
    names: Mapping[str, str]
    words: Sequence[str]


class SharingHandlers(OnEngine):
    """Links and saved runs on one engine."""

    def link(self, state: Mapping[str, object]) -> str:
        """The text behind the # of an address; ConfigError where it would be too long."""
        return links.encode(state)

    def linked(self, fragment: object, query: Mapping[str, str]) -> dict[str, object] | None:
        """The state in an address; None where it has none, ConfigError where it is damaged."""
        if isinstance(fragment, str) and (state := links.decode(fragment)) is not None:
            return state
        fields = from_query(query)
        return None if fields is None else {"compare": fields}

    def said(self, kind: type[BaseModel], fields: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
        """The fields of a tab as a link has them, and a sentence for each that it cannot hold."""
        checked, words = as_far_as_valid(kind, {name: value for name, value in fields.items() if value is not None}, "The page")
        return checked.model_dump(exclude_none=True), words

    def what_ifs(self, linked: object, known: Mapping[str, dict]) -> WhatIfs:
        """`known` with what-ifs of whatever origin; those that do not fit what is loaded are left out, with a sentence each."""
        merged, names, words = dict(known), {}, []
        if not isinstance(linked, Mapping):
            return WhatIfs(merged, names, [f"what_ifs must be an object; got {shown(linked)}."])
        if len(linked) > MAX_WHAT_IFS:
            words.append(f"There are {len(linked):,} what-ifs; this page takes {MAX_WHAT_IFS}.")
        for name, value in list(linked.items())[:MAX_WHAT_IFS]:
            try:
                (question,) = read({name: value}).values()
                merged, names[name] = add(merged, question, self.engine.mixing(question.of), self.engine.variants, name)
            except BituneError as error:
                words.append(str(error))
        return WhatIfs(merged, names, words)

    def open_run(self, content: object, name: str = "") -> tuple[Recording, dict[str, object], list[str]]:
        """A saved run, the state that would ask for it again, and what of it is not here; DataError where it is none.

        `content`: the text of its file; `name`: of that file, empty where it is not known.
        """
        recording = open_run(content, name)
        request = REQUEST.dump_python(recording.request, mode="json")
        asked = {name: request[name] for name in FIELDS}
        if recording.request.history:  # the form holds what a conversation began with, the panel below it the rest
            asked["prompt"] = recording.request.history[0].prompt
        state = {"tab": "compare", "compare": asked, "what_ifs": request["what_ifs"]}
        return recording, state, not_as_here(recording, self.engine if self.loading.ready else None)

    def saved(self, recording: Recording | None, why_not: str = NOTHING_TO_SAVE) -> str:
        """The file of a run; ConfigError, which says `why_not`, where there is none."""
        if recording is None:
            raise ConfigError(why_not)
        return to_json(recording)


def names_in(linked: object) -> dict[str, str]:
    """The names of the what-ifs of a link, as long as nobody can look whether they fit."""
    return {name: name for name in list(linked)[:MAX_WHAT_IFS]} if isinstance(linked, Mapping) else {}


def without_names(state: Mapping[str, object], names: Collection[str]) -> dict[str, object]:
    """A state in which no tab has chosen these what-ifs, as long as the page does not have them."""
    changed = dict(state)
    attention = state.get("attention")
    for tab in ("compare", "sets"):
        fields = state.get(tab)
        if isinstance(fields, Mapping) and isinstance(chosen := fields.get("variants"), list):
            changed[tab] = {**fields, "variants": [name for name in chosen if name not in names]}
    if isinstance(attention, Mapping) and attention.get("variant") in list(names):
        changed["attention"] = {field: value for field, value in attention.items() if field != "variant"}
    return changed


def chosen_in(state: Mapping[str, object], names: Mapping[str, str]) -> list[str]:
    """Which of these what-ifs a state has chosen in Compare, as they are called here; all where it says nothing of Compare's choice."""
    compare = state.get("compare")
    chosen = compare.get("variants") if isinstance(compare, Mapping) else None
    return [here for name, here in names.items() if not isinstance(chosen, list) or name in chosen]


def renamed(state: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """A state whose what-ifs are called otherwise here."""
    changed = dict(state)
    for tab, field in (("compare", "variants"), ("attention", "variant"), ("sets", "variants")):
        fields = state.get(tab)
        if isinstance(fields, Mapping) and field in fields:
            changed[tab] = {**fields, field: of_name(fields[field], names)}
    if isinstance(compare := changed.get("compare"), Mapping):
        changed["compare"] = with_names(compare, names)
    return changed


def of_name(value: object, names: Mapping[str, str]) -> object:
    """A name, or a list of names, with those of `names` replaced; anything else as it is."""
    if isinstance(value, list):
        return [of_name(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value
