"""Where answers part: the marks lie on the right words and the text stays whole."""

import random

import pytest

from app.ui.differences import difference, in_words


def marked(reference: str, text: str) -> list[str]:
    return [piece for piece, is_marked in difference(reference, text).pieces if is_marked]


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("the cat sat", "the cat sat", []),
        ("the cat sat", "the dog sat", ["dog"]),
        ("the cat sat", "the cat sat down there", ["down there"]),
        ("the cat sat", "the sat", []),
        ("the cat sat.", "the cat sat!", ["!"]),
        ("", "all of it", ["all of it"]),
        ("all of it", "", []),
        ("今日は晴れ", "今日は雨", ["雨"]),
        ("a family 👩‍👩‍👧 here", "a family 👩‍👩‍👦 here", ["👩‍👩‍👦"]),
    ],
)
def test_marks_what_the_reference_has_not(reference, text, expected):
    assert marked(reference, text) == expected


def test_marks_never_change_the_text():
    generator = random.Random(0)
    letters = "ab \n\t<>&.,é今ب👩‍"
    for _ in range(300):
        reference, text = ("".join(generator.choices(letters, k=generator.randrange(30))) for _ in range(2))
        assert "".join(piece for piece, _ in difference(reference, text).pieces) == text


def test_counts_the_common_start():
    found = difference("one two three four", "one two 3 four")
    assert (found.shared_start, found.changed, found.words, found.same) == (2, 1, 4, False)


@pytest.mark.parametrize(
    ("reference", "text", "sentence"),
    [
        ("one two", "one  two", "The same words as base."),
        ("one two three", "one two", "Only words that base has too, but fewer."),
        ("one two", "one too", "The same as base for 1 word; 1 of 2 words differs."),
        ("one two", "two of three", "2 of 3 words differ from base."),
        ("one", "two", "1 of 1 word differs from base."),
    ],
)
def test_says_the_difference_in_words(reference, text, sentence):
    assert in_words(difference(reference, text), "base") == sentence


def test_endless_repetition_is_compared_in_reasonable_time():
    # What a small model falls into; difflib is at its slowest there.
    assert difference("a b " * 250, "b a a " * 170).changed > 0


def test_what_repeats_itself_is_compared_from_both_ends():
    parts = difference("a " * 300 + "end", "a " * 200 + "b " + "a " * 100 + "end")
    assert (parts.shared_start, parts.changed, parts.words) == (200, 1, 302)
    assert difference("a " * 300, "a " * 300).same
    assert difference("a " * 300, "a " * 200).changed == 0, "fewer words, none of them others"
