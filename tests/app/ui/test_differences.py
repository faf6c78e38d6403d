"""Where answers part: the marks lie on the right words of both, and the texts stay whole."""

import random

import pytest

from app.ui.differences import Piece, Words, difference, in_all, in_words, pieces, shared_tokens, words_in
from tests.mutations import within


def marked(reference: str, text: str) -> list[str]:
    return [piece.text for piece in difference(reference, text).pieces if piece.mark]


def marked_there(reference: str, text: str) -> list[str]:
    found = difference(reference, text)
    return [piece.text for piece in pieces(found.reference, found.reference_marks, ()) if piece.mark]


@pytest.mark.parametrize(
    ("reference", "text", "there", "here"),
    [
        ("the cat sat", "the cat sat", [], []),
        ("the cat sat", "the dog sat", ["cat"], ["dog"]),
        ("the cat sat", "the cat sat down there", [], ["down there"]),
        ("the cat sat", "the sat", ["cat"], []),
        ("the cat sat.", "the cat sat!", ["."], ["!"]),
        ("今日は晴れ", "今日は雨", ["晴れ"], ["雨"]),
        ("a family 👩‍👩‍👧 here", "a family 👩‍👩‍👦 here", ["👩‍👩‍👧"], ["👩‍👩‍👦"]),
        ("one two three four five", "one 2 three 4 five", ["two", "four"], ["2", "4"]),
    ],
)
def test_marks_what_the_other_has_not_on_both_sides(reference, text, there, here):
    assert (marked_there(reference, text), marked(reference, text)) == (there, here)
    assert (marked_there(text, reference), marked(text, reference)) == (here, there)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("Bees make honey, which they store for the winter. " * 5, "honey."),
        ("", "all of it"),
        ("all of it", ""),
        ("Mercury", "Earth"),
    ],
)
def test_another_answer_altogether_has_no_marks(reference, text):
    found = difference(reference, text)
    assert found.another and found.point is None
    assert not marked(reference, text) and not marked_there(reference, text)
    assert in_words(found, "base").startswith(("A different answer: ", "No text, ", "An answer of "))


def test_what_begins_alike_is_no_other_answer_however_it_goes_on():
    found = difference("the planet closest to us is Venus", "the planet closest " + "and so on in a long way of its own " * 9)
    assert not found.another
    assert found.point == 3


def test_marks_never_change_the_texts():
    generator = random.Random(0)
    letters = "ab \n\t<>&.,é今ب👩\u200d"
    for _ in range(300):
        reference, text = ("".join(generator.choices(letters, k=generator.randrange(30))) for _ in range(2))
        found = difference(reference, text)
        assert "".join(piece.text for piece in found.pieces) == text
        there = pieces(found.reference, found.reference_marks, () if found.point is None else (found.point,))
        assert "".join(piece.text for piece in there) == reference


def test_the_point_where_they_part_is_before_the_same_word_of_both():
    found = difference("one two three four", "one two 3 four")
    assert found.pieces == [Piece("one two "), Piece("3", "all", True), Piece(" four")]
    assert pieces(found.reference, found.reference_marks, (found.point,)) == [
        Piece("one two "),
        Piece("three", "all", True),
        Piece(" four"),
    ]
    assert (found.shared_start, found.changed, found.missing, found.same) == (2, 1, 1, False)


def test_one_that_ends_parts_at_its_end():
    found = difference("one two three four", "one two three \n")
    assert found.pieces == [Piece("one two three"), Piece(" \n", "", True)]
    assert marked_there("one two three four", "one two three") == ["four"]
    assert difference("a a a", "a a a").point is None
    assert difference("two three four", "one two three four").point is None, "there is nothing before it"


def test_a_reference_says_what_none_of_the_others_and_what_not_all_of_them_say():
    reference = "one two three four five"
    marks = in_all([difference(reference, "one two 3 four five"), difference(reference, "one 2 3 four five")])
    assert marks == ["", "some", "all", "", ""]
    assert [piece.mark for piece in pieces(Words.of(reference), marks, {1, 2})] == ["", "some", "", "all", ""]
    assert (
        in_all([difference(reference, reference), difference(reference, "something else altogether, long and other")]) == [""] * 5
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("The cat sat.", 3),
        ("**Yes** – it is, isn't it?", 5),
        ("well-known, at 10:30, for 57.9", 5),
        ("(a|b) foo(bar)", 4),
        ("今日は", 3),
        ("e\u0301te\u0301 हिन्दी", 2),
        ("+++ --- ___", 0),
    ],
)
def test_words_are_counted_as_people_do(text, words):
    assert len(words_in(Words.of(text))) == words


@pytest.mark.parametrize(
    ("reference", "text", "sentence"),
    [
        ("one two", "one  two", "The same words as base."),
        ("one, two. Three", "one, two.", "The same as base up to word 2 (4 tokens), then it ends; base goes on for 1 word."),
        ("one two", "one two three.", "The same as base up to word 2 (4 tokens), then it goes on for 1 word."),
        (
            "The cat sat.",
            "The cat sat!",
            "The same as base up to word 3 (4 tokens), then “!” where base has “.”. All words are the same; only punctuation differs.",
        ),
        (
            "He didn't go.",
            "He didn't go",
            "The same as base up to word 3 (4 tokens), then it leaves out “.”. All words are the same; only punctuation differs.",
        ),
        (
            "It isn't so, is it",
            "It isn't, is it",
            "The same as base up to word 2 (4 tokens), then it leaves out “so”. 0 of its 4 words and 1 of base's 5 is marked.",
        ),
        (
            "It isn't so",
            "It isn so",
            "The same as base up to word 1 (4 tokens), then it leaves out “'t”. 0 of its 3 words and 1 of base's 3 is marked.",
        ),
        (
            "“one two three",
            "“four two three",
            "From the first word, “four” where base has “one”. 1 of its 3 words and 1 of base's 3 are marked.",
        ),
        ("one", "two, of three", "A different answer: 3 words, where base has 1 word."),
        ("“ one two", "“", "From the first word, it leaves out “one two”. 0 of its 0 words and 2 of base's 2 are marked."),
        ("", "", "No text, as base."),
        ("one two", "", "No text, where base has 2 words."),
        ("", "one two.", "An answer of 2 words, where base has no text."),
    ],
)
def test_says_the_difference_in_words(reference, text, sentence):
    said = in_words(difference(reference, text), "base", 4)
    assert said.replace("\u2068", "").replace("\u2069", "") == sentence


def test_what_repeats_itself_is_put_into_words_at_once():
    with within(2):
        in_words(difference("a b " * 8_000, "b a a " * 5_000), "base")
        words_in(Words.of("+" * 500_000 + "a'" * 100_000))


def test_a_long_quotation_is_cut():
    said = in_words(difference("a b c " + "x" * 900, "a b c " + "y " * 900), "base")
    assert len(said) < 200 and "…" in said


def test_counts_the_tokens_that_answers_begin_with_alike():
    assert shared_tokens((1, 2, 3), (1, 2, 4, 5)) == 2
    assert shared_tokens((1, 2), (1, 2)) == 2
    assert shared_tokens((), (1,)) == 0


def test_endless_repetition_is_compared_in_reasonable_time():
    # What a small model falls into; difflib is at its slowest there.
    assert difference("a b " * 250, "b a a " * 170).changed > 0


def test_what_repeats_itself_is_compared_from_both_ends():
    parts = difference("a " * 300 + "end", "a " * 200 + "b " + "a " * 100 + "end")
    assert (parts.shared_start, parts.changed, parts.missing) == (200, 1, 0)
    assert difference("a " * 300, "a " * 300).same
    fewer = difference("a " * 300, "a " * 200)
    assert (fewer.changed, fewer.missing) == (0, 100), "fewer words, none of them others"
