"""The texts of questions, matched by id: our own, and the study's from data sets that the visitor has. Knows no page.

They are read when they are first asked for, because a data set from the Hub takes a while; what cannot be read is said, not raised.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from app.evidence.items import ItemText
from app.evidence.sources import files_of
from bitune.data.examples import Example, load_examples
from bitune.errors import DataError
from bitune.evaluation.report import item_id
from bitune.schema.config import CHAT, PLACEHOLDER

HEAD, LISTED, TAIL = "Question: ", "\n\nChoices:\n", "\n\nAnswer:"  # what bitune.data.examples puts around a question


class ItemTexts:
    """The texts in these sources: folders of *.test.jsonl, JSON Lines files, Hub data sets; and those of `own`, a file of ours."""

    def __init__(self, sources: Sequence[str] = (), own: Path | None = None):
        self.sources = tuple(sources)
        self.own = own
        self.lock = Lock()
        self.by_id: dict[str, ItemText] | None = None
        self.problems: list[str] = []

    def get(self) -> Mapping[str, ItemText]:
        """Id -> text of every item in the sources. Whoever comes while they are read waits."""
        with self.lock:
            if self.by_id is None:
                self.problems = []
                own = () if self.own is None else (str(self.own),)
                self.by_id = {id: text for source in (*own, *self.sources) for id, text in self.read(source).items()}
            return self.by_id

    def read(self, source: str) -> dict[str, ItemText]:
        """The texts of one source; what is wrong with it goes to the problems."""
        texts: dict[str, ItemText] = {}
        try:
            files = files_of(source)
        except (DataError, OSError, RuntimeError, ValueError) as error:  # a ~user nobody knows, a zero byte in a path
            files = []
            self.problems.append(str(error))
        for file, split in files:
            try:
                texts |= by_id(load_examples(file, split))
            except DataError as error:
                self.problems.append(str(error))
        return texts


def by_id(examples: Iterable[Example]) -> dict[str, ItemText]:
    """The texts of these examples by the id of their prompt."""
    return {item_id(example.prompt): text_of(example) for example in examples}


def text_of(example: Example) -> ItemText:
    """An example without what stands around its question."""
    choices = None if example.choices is None else tuple(choice.removeprefix(" ") for choice in example.choices)
    listed = "" if choices is None else LISTED + "\n".join(choices)
    around = ((HEAD, listed + TAIL), (f"{listed.lstrip()}\n\n{HEAD}", TAIL))  # the choices after the question, or before it
    questions = [inner(example.prompt, *ends) for ends in around]
    return ItemText(example.prompt, next(filter(None, questions), example.prompt), choices)


def inner(text: str, head: str, tail: str) -> str | None:
    """What stands between head and tail, None where they do not stand around it."""
    fits = text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail)
    return text[len(head) : len(text) - len(tail)] if fits else None


def as_asked(prompt: str, templates: Iterable[str | None]) -> tuple[str, str]:
    """A measured prompt as a person would type it, and the template (app.ui.prompt_templates) to choose, so that what is read is the prompt again.

    `templates`: of the loaded checkpoints. Where they share one that stands around the prompt, it is left to it (`own`); else the
    text is whole already (`none`).
    """
    known = set(templates)
    template = known.pop() if len(known) == 1 else None
    if template is None or template == CHAT:
        return prompt, "none"
    head, _, tail = template.partition(PLACEHOLDER)
    typed = inner(prompt, head, tail)
    return (prompt, "none") if typed is None else (typed, "own")
