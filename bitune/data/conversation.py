"""Where the turns of a conversation begin and end among its tokens. Knows tokenizers; knows no model.

A conversation is one text (`PromptTemplate.render`), and its token ids are those of the whole text, however its turns are read. Here the
places of the turns are found in it.
"""

from collections.abc import Iterable, Sequence
from os.path import commonprefix

from transformers import PreTrainedTokenizerBase

from bitune.data.prompts import PromptTemplate

TurnEnd = tuple[int, int]
"""Of a turn that was answered: how many tokens the conversation has up to the end of its question, and of its answer."""


def turn_ends(
    template: PromptTemplate, turns: Sequence[tuple[str, str]], text: str, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[TurnEnd, ...]:
    """The end of each turn before the last question.

    A question ends where the text ends that was read to answer it, template included; an answer ends with its own text, so that the
    token which closed it belongs to the next question. A token that stands on both sides of an end belongs to what comes after it.
    Where a template writes a turn before otherwise than it was (answers without their reasoning, say), the end is where the texts part.

    Args:
        template: Around the questions.
        turns: Question and answer of each turn.
        text, ids: Of the whole conversation, as `template.encode` has them.

    Returns:
        Numbers of tokens that never fall; at least one token belongs to the first question, and at least one to the last.
    """
    places = []
    for number, (question, answer) in enumerate(turns):
        asked = len(commonprefix([template.render(question, tokenizer, turns[:number]), text]))
        written = next((form for form in (answer, answer.strip()) if text.startswith(form, asked)), "")
        places += [asked, asked + len(written)]
    found = template.ids([text[:place] for place in places], tokenizer)
    counts = _rising((len(commonprefix([before, list(ids)])) for before in found), len(ids) - 1)
    return tuple(zip(counts[::2], counts[1::2], strict=True))


def _rising(counts: Iterable[int], most: int) -> list[int]:
    """`counts` between 1 and `most`, none below the one before it."""
    risen = [min(1, most)]
    for count in counts:
        risen.append(max(risen[-1], min(count, most)))
    return risen[1:]
