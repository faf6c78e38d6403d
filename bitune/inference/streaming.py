"""A request whose variants answer in step, as a session: what is checked before it runs, and what it runs.

Knows of an engine what `Holder` says.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from bitune.adapters.manager import AdapterManager
from bitune.base.loading import Base
from bitune.inference.answer import Answer
from bitune.inference.generate import generate
from bitune.inference.request import Request
from bitune.inference.session import Prompts, Session
from bitune.model.conversation import check_conversation
from bitune.model.generation_config import end_tokens
from bitune.model.limits import check_given_answer, check_one_side
from bitune.schema.generation import GenerationSettings


class Holder(Protocol):
    """Who has the base and the adapters: an Engine."""

    base: Base
    manager: AdapterManager

    def holding(self, request: Request) -> AbstractContextManager[None]: ...


def session_of(engine: Holder, request: Request, settings: GenerationSettings, begun: Sequence[int] = ()) -> Session:
    """The session of a request, which runs from the first `next` on.

    Args:
        engine: Whose base runs it.
        request: What runs.
        settings: How tokens are chosen. `max_new_tokens` come behind `begun`.
        begun: Token ids with which every answer begins, whoever would say so.

    Raises:
        PromptError: Prompt and answer are more than this base reads.
        ConfigError: An id in `begun` is no token of the base.
    """
    model, layout = engine.base.model, engine.manager.layout
    if begun:
        check_given_answer(model, layout, list(request.ids.values()), begun)
    lengths = {name: len(ids) for name, ids in request.ids.items()}
    limit = min(settings.max_new_tokens, layout.context - max(lengths.values()) - len(begun))
    check_one_side(layout, list(lengths.values()), [len(begun) + limit] * len(lengths))
    for name, turns in request.ends.items():
        check_conversation(layout, request.ids[name], turns, len(begun) + limit)
    ends = frozenset(end_tokens(model, engine.base.tokenizer))
    answers = [Answer(name, engine.base.tokenizer, settings, limit, ends, begun) for name in request.variants]

    def work(cancelled, started) -> None:
        rows = list(request.variants.values()), list(request.ids.values()), answers
        with engine.holding(request):
            generate(engine.manager, *rows, settings, cancelled, started, list(request.ends.values()), begun)

    return Session(answers, Prompts(request.texts, lengths), work)
