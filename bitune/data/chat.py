"""A base's chat template: a program that came with its tokenizer, run within bounds. Knows tokenizers; knows no model.

What the template writes is what transformers' `apply_chat_template` writes. What goes wrong in the template is one sentence, and a
template that does not end, or writes without end, is stopped: Jinja's sandbox limits the length of a range, not how often it runs.
"""

import logging
import re
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from types import FrameType, TracebackType

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from transformers import PreTrainedTokenizerBase

from bitune.errors import PromptError, reason

MAX_SECONDS = 2.0  # of a processor, for what takes milliseconds
MAX_CHARACTERS = 10_000_000  # that it writes: several of the longest contexts
MAX_TIMES = 1_000  # that it takes a value which is not a constant
_TEMPLATE_CHARACTERS = 1_000_000  # of itself: thirty times the longest known
_CODE = "<template>"  # what Jinja calls the file of a template that came as text
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")

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
    if (unbounded := _unbounded(template)) is not None:
        raise PromptError(f"The chat template of this base computes {unbounded}, which may take for ever; {remedy}.")


class _GenerationTag(Extension):
    """transformers' block around what an assistant says, read as what stands in it."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _unbounded(template: str) -> str | None:
    """The arithmetic of a template whose time or memory has no bound, and which Python cannot interrupt; None without any.

    That is every power, and a product unless a number up to MAX_TIMES multiplies what holds no other product, or a number that is
    computed repeats a constant text, as for an indentation.
    """
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", _GenerationTag]).parse(template)
        if tree.find(nodes.Pow) is not None:
            return "a power (**)"
        if not all(_is_bounded(product) for product in tree.find_all(nodes.Mul)):
            return f"a product (*) without a number up to {MAX_TIMES:,} in it"
    except (jinja2.TemplateSyntaxError, RecursionError):  # as transformers will find
        pass
    return None


def _is_bounded(product: nodes.Mul) -> bool:
    def is_bound(side: nodes.Expr, other: nodes.Expr) -> bool:
        if not isinstance(side, nodes.Const):
            return False
        if isinstance(side.value, str):
            return not isinstance(other, nodes.Const)
        small = isinstance(side.value, int | float) and side.value <= MAX_TIMES
        return small and not isinstance(other, nodes.Mul) and other.find(nodes.Mul) is None

    return is_bound(product.left, product.right) or is_bound(product.right, product.left)


def _render(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, remedy: str, ending: dict[str, bool]) -> str:
    watch = _Watch()
    try:
        with watch:
            text = tokenizer.apply_chat_template(list(messages), tokenize=False, **ending)
    except _StoppedError as error:
        raise PromptError(f"The chat template of this base {error}; {remedy}.") from error
    except Exception as error:
        # Jinja's own, what the template's code did, or a last message that it does not write; anything else is not the template's.
        # SyntaxError is Python's, for too many blocks in one another.
        jinjas = isinstance(error, jinja2.TemplateError | RecursionError | SyntaxError)
        templates = error is watch.raised and not isinstance(error, MemoryError)
        if jinjas or templates or "continue_final_message" in str(error):
            raise PromptError(f"The chat template of this base fails: {reason(error)}; {remedy}.") from error
        raise
    if half := _HALF_A_PAIR.search(text):
        raise PromptError(
            f"The chat template of this base writes half of a surrogate pair (U+{ord(half[0]):04X}), which is not text; {remedy}."
        )
    return text


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
        self._end = time.thread_time() + MAX_SECONDS
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, value: object):
        self._check_time()  # also in filters that loop by themselves
        if frame.f_code.co_filename == _CODE:
            return self._within
        if frame.f_back is not None and frame.f_back.f_code.co_filename == _CODE:
            frame.f_trace_lines = False
            return self._returned
        return None

    def _returned(self, frame: FrameType, event: str, value: object):
        """From a filter, an attribute or what joins two texts back into the template, which may make it longer again and again."""
        if event == "return":
            self._check_length(value)
        return self._returned

    def _within(self, frame: FrameType, event: str, value: object):
        self._check_time()
        if event == "exception":
            self.raised = value[1]
        elif event == "line":
            for variable in frame.f_locals.values():
                self._check_length(variable)
        elif event == "return" and isinstance(value, str):  # a piece of the text, or what a macro wrote
            self._characters += len(value)
            self._check_length(value, self._characters)
        return self._within

    def _check_length(self, value: object, characters: int = 0) -> None:
        if isinstance(value, str) and max(characters, len(value)) > MAX_CHARACTERS:
            raise _StoppedError(f"writes over {MAX_CHARACTERS:,} characters")

    def _check_time(self) -> None:
        if time.thread_time() > self._end:
            raise _StoppedError(f"does not end within {MAX_SECONDS:g} seconds")
