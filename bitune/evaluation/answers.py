"""Whether an open answer is right: by its last number, or by its text. Knows texts alone."""

import re

_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_TOLERANCE = 1e-3  # MAWPS answers are rounded


def same_answer(predicted: str, correct: str) -> bool:
    """Whether an open answer is right.

    Where the correct one is a number, or ends in `#### number` as worked solutions of GSM8K do, the last number of the prediction
    counts (in its own `####` line if it has one); else the texts must agree but for case and white space.
    """
    expected = number_of(correct) if "####" in correct or _NUMBER.fullmatch(correct.strip()) else None
    if expected is not None:
        number = number_of(predicted)
        return number is not None and abs(number - expected) <= _TOLERANCE
    return " ".join(predicted.split()).casefold() == " ".join(correct.split()).casefold()


def number_of(text: str) -> float | None:
    """The last number of a text, or the first after its last `####`; None without one. Thousands may have commas."""
    _, marked, tail = text.rpartition("####")
    numbers = _NUMBER.findall(tail)
    return float((numbers[0] if marked else numbers[-1]).replace(",", "")) if numbers else None
