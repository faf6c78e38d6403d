"""Answers and model cards that are Markdown as HTML. Pure; the text is hostile, so only what markdown-it makes of plain Markdown comes out.

HTML in the text stays text, and there are no links and no pictures: nothing that a model or a stranger writes can be followed or fetched.
"""

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from app.ui.templates import faithful

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink", "reference"])
ABOVE = 3  # levels of headings of the page, under which those of a text stand
PLAIN = {"paragraph_open", "paragraph_close", "inline"}
PLAIN_INLINE = {"text", "softbreak"}
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
MOST_OF_A_CARD = 20_000  # characters; the rest of a longer one is left out


def rendered(text: str) -> Markup | None:
    """A text as its Markdown says it should look, or None where there is no Markdown in it."""
    tokens = MARKDOWN.parse(faithful(text))
    inline = {child.type for token in tokens for child in token.children or ()}
    return None if {token.type for token in tokens} <= PLAIN and inline <= PLAIN_INLINE else as_html(tokens)


def card(text: str) -> Markup:
    """A model card without the data at its head."""
    return as_html(MARKDOWN.parse(faithful(FRONT_MATTER.sub("", text)[:MOST_OF_A_CARD])))


def as_html(tokens: Sequence[Token]) -> Markup:
    """What markdown-it has read, escaped by its own renderer."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + ABOVE, 6)}"
    return Markup(MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}))
