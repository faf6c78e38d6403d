"""What a request asks of the model, counted before it runs. Knows the engine's tokenizer and the passes of its variants."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.ui.pace import Work
from bitune.errors import ConfigError
from bitune.schema.conversation import Turn
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
) -> Work:
    """The work of answering a prompt.

    Args:
        engine: That will run it.
        prompt, variants, template, what_ifs: As `Engine.stream` takes them.
        new_tokens: The most that each variant writes.
        answer_tokens: Of an answer that is read after the prompt.
        history: The turns before the prompt; whichever way they are read, counted as if nothing of them were kept.

    Raises:
        PromptError, ConfigError, UnknownNameError: What the engine would raise.
    """
    if not variants:
        raise ConfigError("No variant is chosen; choose at least one.")
    sources = dict.fromkeys(what_ifs[name].of if name in what_ifs else name for name in variants)
    if history:  # each variant reads its own
        options = {"template": template, "what_ifs": what_ifs, "history": history}
        tokens = max(len(engine.prompt_ids(prompt, name, **options)) for name in variants)
    else:
        tokens = max(len(engine.prompt_ids(prompt, name, template=template)) for name in sources)
    known = engine.variants
    passes = {one for name in sources if name in known for one in known[name].passes}
    return Work(tokens + answer_tokens, max(len(passes), 1), new_tokens, len(set(variants)))
