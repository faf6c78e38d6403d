"""Characters of several tokens: bytes as tokens, as byte-level tokenizers make them."""

import pytest

from app.ui.characters import UNFINISHED, Spread, spread_characters


def decode(ids) -> str:
    """Bytes as a tokenizer decodes them."""
    return b"".join(ids).decode("utf-8", errors="replace")


def spread(*tokens: bytes) -> list[Spread]:
    return spread_characters(tokens, [decode([token]) for token in tokens], decode)


def test_every_byte_of_a_character_belongs_to_it():
    signs = [bytes([byte]) for byte in "a\u4f60\U0001f469b".encode()]
    assert spread(*signs) == [Spread(1, 4, "\u4f60"), Spread(4, 8, "\U0001f469")]


def test_a_token_may_begin_with_a_space_or_hold_half_of_the_next_character():
    first, second = "\u4f60".encode(), "\u597d".encode()
    assert spread(b" " + first[:1], first[1:]) == [Spread(0, 2, " \u4f60")]
    assert spread(first[:2], first[2:] + second[:1], second[1:]) == [Spread(0, 3, "\u4f60\u597d")]


@pytest.mark.parametrize("tokens", [(), (b"a", b"b"), ("\u4f60".encode()[:2],), (UNFINISHED.encode(), b"a")])
def test_what_stands_alone_or_was_cut_off_is_left_as_it_is(tokens):
    assert spread(*tokens) == []
