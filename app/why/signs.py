"""How a token is written where it stands alone: signs for white space, the number of a character without a shape, bytes that are no character.

Pure: knows no model and no page.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import category

from app.ui.characters import UNFINISHED, spread_characters
from app.ui.templates import CONTROL_PICTURES, faithful

SPACE, NEW_LINE, TAB, EMPTY = "␣", "↵", "→", "‥"
SIGNS = CONTROL_PICTURES | {ord(" "): SPACE, ord("\n"): NEW_LINE, ord("\t"): TAB}
WITHOUT_SHAPE = {"Zs", "Zl", "Zp", "Cf", "Cc"}  # Unicode's categories of spaces, separators, format and control characters
SPREAD = f"Some characters take several tokens: the character stands on the first of them, and {EMPTY} on each of the others."
NO_CHARACTER = re.compile("[\udc80-\udcff]+")  # what Python's surrogateescape puts for bytes that are not UTF-8
ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a token of one byte, as tokenizers of SentencePiece's kind call it
BYTES_SHOWN, NUMBER_SHOWN = re.compile(r"<0x[0-9A-F]{2}(?: 0x[0-9A-F]{2})*>"), re.compile(r"<U\+[0-9A-F]{4,6}>")


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers have in the place of the 256 bytes."""
    alike = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in alike]
    return {chr(byte): byte for byte in alike} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


BYTE_ALPHABET = _byte_alphabet()


def visible(text: str) -> str:
    """The text of a token, with a sign for each character that nobody sees and the values of bytes that are no character."""
    shown = "".join(character if category(character) not in WITHOUT_SHAPE else _sign(character) for character in text)
    return NO_CHARACTER.sub(_bytes_shown, shown) or EMPTY


def _sign(character: str) -> str:
    return character.translate(SIGNS) if ord(character) in SIGNS else f"<U+{ord(character):04X}>"


def _bytes_shown(found: re.Match[str]) -> str:
    return "<" + " ".join(f"0x{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape")) + ">"


def labelled(token: int, text: str, name_of: Callable[[int], str | None]) -> str:
    """A token as `visible` writes it; one that is only part of a character has its bytes where its name says them.

    Args:
        token: Its id.
        text: What it is decoded to.
        name_of: The name of a token in its vocabulary, as `convert_ids_to_tokens` of a tokenizer.
    """
    known = bytes_of(name_of(token)) if UNFINISHED in text else None
    return visible(text if known is None else known.decode("utf-8", "surrogateescape"))


def bytes_of(name: str | None) -> bytes | None:
    """The bytes that the name of a token stands for; None where it names none."""
    if not name:
        return None
    if one := ONE_BYTE.fullmatch(name):
        return bytes([int(one[1], 16)])
    return bytes(map(BYTE_ALPHABET.get, name)) if all(character in BYTE_ALPHABET for character in name) else None


def notation(labels: Iterable[str]) -> str:
    """What the signs in these tokens mean, in sentences; spaces and new lines always."""
    text = "\n".join(labels)
    words = [f"{SPACE} is a space, {NEW_LINE} a new line{f', {TAB} a tab' if TAB in text else ''}."]
    if found := NUMBER_SHOWN.search(text):
        words.append(f"{found[0]} is a character that cannot be seen, by its number in Unicode.")
    if found := BYTES_SHOWN.search(text):
        words.append(f"{found[0]} is a token that is only part of a character: the value of each of its bytes.")
    if UNFINISHED in text:
        words.append(f"{UNFINISHED} is a token that is only part of a character.")
    if EMPTY in text:
        words.append(f"{EMPTY} is a token without text.")
    return " ".join(words)


def pieces(ids: Sequence[int], texts: Mapping[int, str], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """The text of each token where all stand in a row; the first of several that make one character carries it, the others are empty."""
    shown = [texts[token] for token in ids]
    for one in spread_characters(ids, shown, decode):
        shown[one.start : one.end] = [one.text, *[""] * (one.end - one.start - 1)]
    return shown


@dataclass(frozen=True)
class Written:
    """How a token of a text is written. `text`: where all of them stand in a row; `label`: where it stands alone."""

    text: str
    label: str


def written(
    ids: Sequence[int], texts: Sequence[str], decode: Callable[[Sequence[int]], str], name_of: Callable[[int], str | None]
) -> list[Written]:
    """How each token of a text is written. `texts`: what each is decoded to; `decode`, `name_of`: of the tokenizer."""
    labels = [labelled(token, text, name_of) for token, text in zip(ids, texts, strict=True)]
    row = pieces(ids, dict(zip(ids, texts, strict=True)), decode)
    return [
        Written(faithful(text.replace("\n", f"{NEW_LINE}\n")) or EMPTY, label) for text, label in zip(row, labels, strict=True)
    ]
