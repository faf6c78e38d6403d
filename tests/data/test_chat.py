"""Chat templates as people's models bring them: what transformers writes, or one sentence, and always an end."""

import sys
import threading
import time

import pytest

from bitune import Engine, PromptError
from bitune.data.chat import render_chat
from bitune.data.prompts import PromptTemplate
from tests.tiny import tiny_base, tiny_tokenizer

ANY_PROMPT = [{"role": "user", "content": "Hi"}]
WITH_SYSTEM = [{"role": "system", "content": "Be short."}, *ANY_PROMPT]
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
WRITES = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def with_template(template: object):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    "template",
    [
        WRITES + "{% if add_generation_prompt %}<answer>{% endif %}",
        "{{ bos_token }}" + WRITES,
        "{{ cls_token }}" + WRITES,  # undefined, and written as nothing
        "{% set named = dict(messages[0], **{'content': 'x'}) %}{{ named['content'] }}" + WRITES,
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% break %}{% endfor %}",
        {"default": WRITES, "tool_use": "{{ nothing.x }}"},
        "{% for i in range(30) %}{% for j in range(100) %}{{ i }}{% endfor %}{% endfor %}",
        REFUSES + WRITES,
        "{% macro tree(n) %}{{ '  ' * n }}{{ n }}{{ tree(n - 1) if n > 0 }}{% endmacro %}{{ tree(3) }}" + WRITES,
        "{{ '-' * 20 }}{{ 3 * messages | length + 2.5 * 2 }}" + WRITES,
    ],
)
@pytest.mark.parametrize("chat", [ANY_PROMPT, [*ANY_PROMPT, {"role": "assistant", "content": "Yes, "}]])
def test_a_chat_is_written_as_transformers_writes_it(template, chat):
    tokenizer = with_template(template)
    before = sys.gettrace()
    for opened in (True, False):
        ending = {"add_generation_prompt": opened, "continue_final_message": not opened}
        try:
            expected = tokenizer.apply_chat_template(chat, tokenize=False, **ending)
        except ValueError:  # the last message cannot be continued
            with pytest.raises(PromptError, match="continue_final_message is set"):
                render_chat(chat, tokenizer, "x", add_generation_prompt=opened)
        else:
            assert render_chat(chat, tokenizer, "x", add_generation_prompt=opened) == expected
    assert sys.gettrace() is before


def test_a_system_role_that_is_refused_is_left_out():
    tokenizer = with_template(REFUSES + WRITES)
    assert render_chat(WITH_SYSTEM, tokenizer, "x") == "<user>Hi"
    with pytest.raises(PromptError, match="System role not supported"):
        render_chat(WITH_SYSTEM[:1], tokenizer, "x")


ENDLESS = {
    "nested ranges": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "a filter": "{{ (range(100000) | list * 1000) | map('string') | join | length }}",
    "macros": "{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) if n < 30 }}{% endfor %}{% endmacro %}{{ f(0) }}",
}
FAILING = {
    "raised": ("{{ raise_exception('Only pairs') }}", "Only pairs"),
    "syntax": ("{% if %}", "Expected an expression"),
    "undefined": ("{{ nothing.x.y }}", "'nothing' is undefined"),
    "a missing special token": ("{{ cls_token + 'x' }}", "'cls_token' is undefined"),
    "types": ("{{ messages[0]['content'] + 5 }}", "concatenate"),
    "arithmetic": ("{{ 1 / 0 }}", "division by zero"),
    "a long range": ("{% for i in range(1000000000) %}x{% endfor %}", "Range too big"),
    "a power": ("{{ 10 ** 10 ** 8 }}", r"power \(\*\*\)"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "outside": ("{% include 'secrets' %}", "no loader"),
    "the sandbox": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "several": ({"a": WRITES, "b": WRITES}, r"'a', 'b'.*none is called 'default'"),
    "no text": (5, "is no text"),
    "a long one": ("x" * 1_000_001, "over 1,000,000 characters"),
    "much": ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "writes over 10,000,000 characters"),
    "much at once": (
        "{{ ('x' * 1000) | replace('x', 'y' * (10001 | int)) | replace('y', 'zz') }}",
        "writes over 10,000,000 characters",
    ),
    "a large product": ("{{ 'x' * 3000000000 }}", r"product \(\*\) without a number up to 1,000"),
    "a product of products": ("{{ ('x' * 1000 + 'y') * 1000 }}", r"product \(\*\)"),
    "squares": (
        "{% set ns = namespace(x=9999999999) %}{% for i in range(60) %}{% set ns.x = ns.x*ns.x %}{% endfor %}{{ ns.x }}",
        r"product \(\*\)",
    ),
    "a power where an answer is marked": ("{% generation %}{{ 9 ** 9 ** 9 }}{% endgeneration %}{% break %}", r"power \(\*\*\)"),
    "joined": ("{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "writes over"),
    "added": ("{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "writes over"),
    "added to a variable": ("{% set x = 'x' * 1000 %}" + "{% set x = x + x %}" * 30, "writes over"),
    "centred": ("{{ messages[0]['content'] | center(20000000) | length }}", "writes over"),
    "half a character": ("{{ '\\ud800' }}", r"writes half of a surrogate pair \(U\+D800\)"),
    "half a character itself": ("\ud800", r"writes half of a surrogate pair \(U\+D800\)"),
    "loops in loops": ("{% for a in [1] %}" * 21 + "{% endfor %}" * 21, "too many statically nested blocks"),
    "more than is read": ("{% for i in range(100) %}{{ 'x' * 1000 }}{% endfor %}", "makes a text of 100,000 characters"),
    "nothing": ("{% if false %}{% endif %}", "holds no token"),
    "none": (None, "no chat template"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_one_sentence(name):
    template, words = FAILING[name]
    with pytest.raises(PromptError, match=words) as caught:
        PromptTemplate("chat").encode("Hi", with_template(template), 512)
    assert "\n" not in str(caught.value) and ("choose" in str(caught.value) or name == "nothing")


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_stopped(name):
    """Also in a thread, as the page answers; a debugger's tracing is put back."""
    said = []

    def ask() -> None:
        try:
            PromptTemplate("chat").encode("Hi", with_template(ENDLESS[name]), 512)
        except PromptError as error:
            said.append(str(error))

    start = time.monotonic()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(120)
    assert said and "does not end within 2 seconds" in said[0]
    assert time.monotonic() - start < 120


def test_memory_that_runs_out_in_a_template_keeps_its_name():
    with pytest.raises(MemoryError):
        render_chat(ANY_PROMPT, with_template("{{ 'x' | center(10000000000000000) }}"), "x")


def test_what_is_not_the_templates_keeps_its_name(monkeypatch):
    tokenizer = with_template(WRITES)

    def broken(*arguments, **named):
        raise AttributeError("a mistake of ours")

    monkeypatch.setattr(tokenizer, "apply_chat_template", broken)
    with pytest.raises(AttributeError, match="a mistake of ours"):
        render_chat(ANY_PROMPT, tokenizer, "x")


def test_the_engine_says_it_before_anything_runs():
    base = tiny_base()
    base.tokenizer.chat_template = FAILING["raised"][0]
    engine = Engine(base)
    for template in ("own", "chat"):
        with pytest.raises(PromptError, match="Only pairs"):
            engine.stream("Hi", ["base"], template=template)
    assert engine.prompt_ids("Hi", "base", template="none")
