"""Whether an open answer is right: by its number, compared exactly, or by its text. Knows texts alone.

Numbers are found where lm-eval's gsm8k finds them (`strict-match` after the first `####`, `flexible-extract` the last one), and compared
by value: lm-eval compares their digits, so that for it 18.00 is not 18.
"""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

_MARK = re.compile("#{4,}")
_NEXT_QUESTION = "Question:"  # where lm-eval's gsm8k stops an answer that runs on; prompts of ours begin so too
_MINUS = str.maketrans("\u2212\uff0d\ufe63", "---")
_UNSIGNED = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?!\d))?|(?<!\d)\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)])[-+])?(?:[$€£](?P<minus>-)?)?"
    rf"(?:(?:(?P<whole>\d+) +)?(?<!\d/)(?P<top>\d+)/(?P<bottom>0*[1-9]\d*)(?![\d/])|(?P<decimal>{_UNSIGNED}))"
)
_AROUND = r"[\s%€£.]*"


def same_answer(predicted: str, correct: str) -> bool:
    """Whether an open answer is right.

    Where the correct one is a number, or ends in `#### number` as worked solutions of GSM8K do, the numbers must be equal: of the
    prediction the one in its first `####` line that has one, else its last. Where it ends in `####` and a text of one line, that text
    and the prediction's first `####` line must agree, else the whole texts, but for case, white space and Unicode's ways to write one
    character. A line ends at a next `####` too. What a prediction says after a next `Question:` is not part of the answer.

    Args:
        predicted: what a model wrote.
        correct: what it should have written.
    """
    if _NEXT_QUESTION not in correct:
        predicted = predicted.partition(_NEXT_QUESTION)[0]
    *before, final = (part.strip() for part in _MARK.split(correct))
    expected = _only_number(final)
    if expected is not None:
        return number_of(predicted) == expected
    if before and final and "\n" not in final:
        predicted, correct = next(filter(None, _marked_lines(predicted)), ""), final
    return _plain(predicted) == _plain(correct)


def number_of(text: str) -> Fraction | None:
    """The first number in the first `####` line of a text that has one, else its last number; None without one.

    Thousands may have commas, a fraction or a mixed number (`1 1/2`) is one number, `$` and `%` are left out.
    """
    text = text.translate(_MINUS)
    if _MARK.search(text):
        return next((_value(found) for line in _marked_lines(text) if (found := _NUMBER.search(line))), None)
    *_, last = [None, *_NUMBER.finditer(text)]
    return None if last is None else _value(last)


def _marked_lines(text: str) -> list[str]:
    """What follows each `####`, up to the end of its line or the next one."""
    return [part.strip().partition("\n")[0].strip() for part in _MARK.split(text)[1:]]


def _only_number(text: str) -> Fraction | None:
    """The number that a text is; None where it says anything else."""
    text = text.translate(_MINUS).strip()
    found = _NUMBER.match(text)
    return _value(found) if found and re.fullmatch(_AROUND, text[found.end() :]) else None


def _value(found: re.Match) -> Fraction:
    if found["decimal"]:
        value = Fraction(Decimal(found["decimal"].replace(",", "")))
    else:
        whole, top, bottom = (Fraction(Decimal(found[part] or 0)) for part in ("whole", "top", "bottom"))
        value = whole + top / bottom
    return -value if "-" in (found["sign"] or "") + (found["minus"] or "") else value


def _plain(text: str) -> str:
    """A text but for case, white space and how its characters are composed."""
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFC", text).casefold().split()))
