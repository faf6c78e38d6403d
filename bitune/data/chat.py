"""A base's chat template: a program that came with its tokenizer, run within bounds. Knows tokenizers; knows no model.

What the template writes is what transformers' `apply_chat_template` writes. What goes wrong in the template is one sentence, and a
template that does not end, or writes without end, is stopped: Jinja's sandbox limits the length of a range, not how often it runs.
"""

import logging
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from types import FrameType, TracebackType

import jinja2
from transformers import PreTrainedTokenizerBase

from bitune.errors import PromptError, reason

MOST_SECONDS = 2.0  # of a processor, for what takes milliseconds
MOST_CHARACTERS = 10_000_000  # that it writes: several of the longest contexts
_TEMPLATE_CHARACTERS = 1_000_000  # of itself: thirty times the longest known
_CODE = "<template>"  # what Jinja calls the file of a template that came as text

log = logging.getLogger(__name__)


def render_chat(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, remedy: str, *, add_generation_prompt: bool = True
) -> str:
    """The text of a chat. Where the template refuses the system role, the chat is written without it, as lm-eval does.

    Args:
        messages: `role` and `content` of each.
        tokenizer: Its template is used; of several, the one called `default`.
        remedy: What a person may do where the template fails; the end of the sentence.
        add_generation_prompt: Open the answer. Without it the last message is left open, to be continued.

    Raises:
        PromptError: There is no such template, it is broken, it refuses these messages, or it does not end.
    """
    _check(tokenizer, remedy)
    ending = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
    try:
        return _render(messages, tokenizer, remedy, ending)
    except PromptError as error:
        others = [message for message in messages if message["role"] != "system"]
        if not isinstance(error.__cause__, jinja2.TemplateError) or not others or len(others) == len(messages):
            raise
        log.warning("%s The chat is written without its system message.", error)
        return _render(others, tokenizer, remedy, ending)


def _check(tokenizer: PreTrainedTokenizerBase, remedy: str) -> None:
    template = tokenizer.chat_template
    if not template:
        raise PromptError(f"This base has no chat template; {remedy}.")
    if isinstance(template, dict):
        if "default" not in template:
            names = ", ".join(map(repr, sorted(template)))
            raise PromptError(f"This base has several chat templates ({names}) and none is called 'default'; {remedy}.")
        template = template["default"]
    if not isinstance(template, str) or len(template) > _TEMPLATE_CHARACTERS:
        raise PromptError(
            f"The chat template of this base is no text, or one of over {_TEMPLATE_CHARACTERS:,} characters; {remedy}."
        )
    if _has_power(template):
        raise PromptError(f"The chat template of this base computes a power (**), which may take for ever; {remedy}.")


@lru_cache(maxsize=8)
def _has_power(template: str) -> bool:
    """Whether `**` stands between two values, and not before named arguments. Its time has no bound, and Python cannot interrupt it."""
    try:
        tokens = [value for _, kind, value in jinja2.Environment().lex(template) if kind != "whitespace"]
    except jinja2.TemplateSyntaxError:  # as transformers will find
        return False
    return any(value == "**" and before not in ("(", ",") for before, value in zip(tokens, tokens[1:], strict=False))


def _render(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, remedy: str, ending: dict[str, bool]) -> str:
    watch = _Watch()
    try:
        with watch:
            return tokenizer.apply_chat_template(list(messages), tokenize=False, **ending)
    except _StoppedError as error:
        raise PromptError(f"The chat template of this base {error}; {remedy}.") from error
    except Exception as error:
        # Jinja's own, what the template's code did, or a last message that it does not write; anything else is not the template's.
        jinjas = isinstance(error, jinja2.TemplateError | RecursionError)
        if jinjas or error is watch.raised or "continue_final_message" in str(error):
            raise PromptError(f"The chat template of this base fails: {reason(error)}; {remedy}.") from error
        raise


class _StoppedError(BaseException):
    """A template went beyond a bound. No Exception, for Jinja goes on after any of those while it compiles."""


class _Watch:
    """Follows the code of templates in this thread, and stops it beyond a bound. A debugger's own tracing is put back at the end.

    Attributes:
        raised: The exception that last passed through the code of a template.
    """

    def __init__(self):
        self.raised: BaseException | None = None
        self._characters = 0

    def __enter__(self) -> "_Watch":
        self._end = time.thread_time() + MOST_SECONDS
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, value: object):
        self._check_time()  # also in filters that loop by themselves
        return self._within if frame.f_code.co_filename == _CODE else None

    def _within(self, frame: FrameType, event: str, value: object):
        self._check_time()
        if event == "exception":
            self.raised = value[1]
        elif event == "return" and isinstance(value, str):  # a piece of the text, or what a macro wrote
            self._characters += len(value)
            if self._characters > MOST_CHARACTERS:
                raise _StoppedError(f"writes over {MOST_CHARACTERS:,} characters")
        return self._within

    def _check_time(self) -> None:
        if time.thread_time() > self._end:
            raise _StoppedError(f"does not end within {MOST_SECONDS:g} seconds")
