"""What a request asks of the model, counted before it runs. Knows the engine's tokenizer and the passes of its variants."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.ui.pace import Work
from bitune.schema.conversation import RECOMPUTE, Turn
from bitune.schema.variants import WhatIf

if TYPE_CHECKING:
    from bitune import Engine


def work_of(
    engine: "Engine",
    prompt: object,
    variants: Sequence[str],
    template: object,
    what_ifs: Mapping[str, WhatIf],
    new_tokens: int = 0,
    answer_tokens: int = 0,
    history: Sequence[Turn] = (),
    earlier: object = RECOMPUTE,
) -> Work:
    """The work of answering a prompt.

    Args:
        engine: That will run it.
        prompt, variants, template, what_ifs, earlier: As `Engine.stream` takes them.
        new_tokens: The most that each variant writes.
        answer_tokens: Of an answer that is read after the prompt.
        history: The turns before the prompt; whichever way they are read, counted as if nothing of them were kept.

    Raises:
        PromptError, ConfigError, UnknownNameError: What the engine would raise, before the request stands in line.
    """
    asked = engine.request(prompt, variants, template, what_ifs, history, earlier)
    passes = {one for variant in asked.variants.values() for one in variant.passes}
    tokens = max(map(len, asked.ids.values()))
    return Work(tokens + answer_tokens, max(len(passes), 1), new_tokens, len(asked.variants))
