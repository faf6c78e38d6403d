"""An answer's text as its tokens come: what all tokens at once decode to, whatever the tokenizer, and never taken back."""

import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bitune.inference.answer import Answer
from bitune.inference.detokenizer import Detokenizer
from bitune.inference.sampling import GenerationSettings
from tests.tokenizers import KINDS, InPython

TEXT = "naïve café, 👩‍👩‍👧 €uro on ab; 你好  two spaces\n\n\tdon't 's "


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama's: what is not in the vocabulary comes in bytes, and a run of them is a text or none."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<s>", "</s>", "<pad>", *byte_tokens, "▁", *map(chr, range(33, 127)), "▁▁", "▁the", "ab"]
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], byte_fallback=True, unk_token="<unk>"
    )
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return _fast(model, decoders.Sequence(parts), "<unk>", "<s>", "</s>", "<pad>")


def word_pieces(**flags: bool) -> PreTrainedTokenizerFast:
    """Words joined by spaces, which `clean_up_tokenization_spaces` takes away again before some signs."""
    signs = ["n", "'", "t", "s", "m", "ve", "re", ".", "?", "!", ",", "n't", "'s", "'ve"]
    pieces = ["[UNK]", "a", "b", "don", "##c", "##n", "##'", "##t", *signs]
    model = models.WordPiece(vocab={piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]")
    return _fast(model, decoders.WordPiece(cleanup=False), "[UNK]", **flags)


def word_ends() -> PreTrainedTokenizerFast:
    """A sign at the end of a word, which is a space unless the text ends there."""
    vocabulary = {piece: index for index, piece in enumerate(["a", "b", "a</w>", "b</w>"])}
    return _fast(models.BPE(vocab=vocabulary, merges=[]), decoders.BPEDecoder("</w>"))


def _fast(model, decoder, *special: str, **flags: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **flags)


class Cleaning(InPython):
    """Characters whose text is cleaned up when all of it is there."""

    def __init__(self):
        super().__init__(clean_up_tokenization_spaces=True)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


MAKES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    **{name: kind.make for name, kind in KINDS.items()},
    "byte_fallback": byte_fallback,
    "word_pieces": word_pieces,
    "word_pieces_cleaned": lambda: word_pieces(clean_up_tokenization_spaces=True),
    "word_ends": word_ends,
    "cleaned_in_python": Cleaning,
}


@pytest.fixture(params=MAKES)
def tokenizer(request) -> PreTrainedTokenizerBase:
    return MAKES[request.param]()


def whole(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


def sequences(tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Any ids, special and broken ones among them; few of them, so that they meet again; real text; the signs that are cleaned up."""
    known = list(range(len(tokenizer)))
    signs = [token for token in known if whole(tokenizer, [token]) in set("n'tsmvre.?!, ")]
    text = tokenizer(TEXT).input_ids if "Piece" not in type(tokenizer).__name__ else known
    for seed in range(8):
        draw = random.Random(seed)
        few = draw.sample(known, min(6, len(known)))
        for pool in (known, few, signs or known):
            yield draw.choices(pool, k=90)
        yield (text * 8)[seed : seed + 120]


def answer(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = (), limit: int = 1000) -> Answer:
    return Answer("x", tokenizer, GenerationSettings(limit, stop=stop), limit, frozenset())


def test_it_is_the_text_of_all_tokens_after_every_one(tokenizer):
    for ids in sequences(tokenizer):
        text = Detokenizer(tokenizer)
        for count, token in enumerate(ids, 1):
            text.add(token)
            assert text.text() == whole(tokenizer, ids[:count]), ids[:count]


def test_what_is_shown_is_never_taken_back(tokenizer):
    for number, ids in enumerate(sequences(tokenizer)):
        shown, running = [], answer(tokenizer, limit=len(ids))
        for place, token in enumerate(ids):
            running.add(token, 0.1 * place)
            if place % (number % 4 + 1) == 0:  # not every token is looked at
                shown.append(running.snapshot().text)
        last = running.snapshot()
        assert (last.finish_reason, last.text) == ("length", whole(tokenizer, ids))
        assert all(later.startswith(text) for text, later in zip(shown, [*shown[1:], last.text], strict=True))


def test_a_stop_string_is_found_with_the_token_that_ends_it(tokenizer):
    """It may span tokens, begin inside of one, and stand anywhere; what stood before it is the answer."""
    found = 0
    for number, ids in enumerate(sequences(tokenizer)):
        text, draw = whole(tokenizer, ids), random.Random(number)
        start = draw.randrange(max(1, len(text)))
        stop = [text[start : start + draw.randint(1, 12)] or "x", "never said"]
        running, shown = answer(tokenizer, stop), []
        for place, token in enumerate(ids):
            running.add(token, 0.1 * place)
            shown.append(running.snapshot().text)
            so_far = whole(tokenizer, ids[: place + 1])
            assert running.is_finished == (stop[0] in so_far), (stop, so_far)
            if running.is_finished:
                found += 1
                assert (shown[-1], running.snapshot().finish_reason) == (so_far[: so_far.index(stop[0])], "stop")
                break
        assert all(later.startswith(text) for text, later in zip(shown, shown[1:], strict=False)), (stop, shown)
    assert found > 10


@pytest.mark.parametrize("kind", ["gpt2", "byt5", "byte_fallback"])
def test_an_unfinished_character_is_not_shown(kind):
    tokenizer = MAKES[kind]()
    ids = tokenizer("a€b", add_special_tokens=False).input_ids
    running, shown = answer(tokenizer), []
    for place, token in enumerate(ids):
        running.add(token, place)
        shown.append(running.snapshot().text)
    assert len(ids) == 5
    assert shown == ["a", "a", "a", "a" if kind == "byte_fallback" else "a€", "a€b"], (
        "a run of bytes may still turn out to be none"
    )


def test_an_answer_that_was_cancelled_keeps_the_beginning_of_a_stop_string():
    tokenizer = KINDS["gpt2"].make()
    running = answer(tokenizer, stop=["END OF IT"])
    for token in tokenizer("the END OF").input_ids:
        running.add(token, 0.1)
    assert running.snapshot().text == "the "
    running.cancel()
    assert (running.snapshot().text, running.snapshot().finish_reason) == ("the END OF", "cancelled")


@pytest.mark.parametrize("stop", [(), ("never said",)])
@pytest.mark.parametrize("kind", ["gpt2", "llama2", "byt5", "in_python", "byte_fallback", "word_pieces_cleaned"])
def test_a_token_costs_the_same_however_long_the_answer_is(kind, stop, monkeypatch):
    """Counted in tokens that are decoded, not in seconds."""
    tokenizer, decoded = MAKES[kind](), []
    pool = [token for token in range(len(tokenizer)) if whole(tokenizer, [token]).isalnum()]
    running, decode = answer(tokenizer, stop, 3000), type(tokenizer).decode
    monkeypatch.setattr(
        type(tokenizer), "decode", lambda self, ids, **more: decoded.append(len(ids)) or decode(self, ids, **more)
    )
    draw, marks = random.Random(0), []
    for place in range(2000):
        running.add(draw.choice(pool), place)
        running.snapshot()
        marks.append(sum(decoded))
    assert marks[1999] - marks[1499] < 1.2 * (marks[599] - marks[99])
    assert max(decoded) < 60
