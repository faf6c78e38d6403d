"""How long requests take on this machine with this model: measured on those that ended last."""

from dataclasses import dataclass

_KEPT = 0.9  # of what is known, with each request more: about the last ten count
_LEAST_SECONDS = 1e-3
_RIDGE = 1e-3  # of all that was measured; where all requests were alike, only the sum of both rates is known


@dataclass(frozen=True)
class Work:
    """What a request asks of the model.

    `prompt_tokens`: of the longest prompt, an answer that is read along with it included. `passes`: how often prompts are read.
    `new_tokens`: the most that one variant may write. `variants`: how many answer. `prompts`: how many of about that length are answered at once.
    """

    prompt_tokens: int
    passes: int = 1
    new_tokens: int = 0
    variants: int = 1
    prompts: int = 1

    @property
    def reading(self) -> int:
        """Tokens read, once for each pass."""
        return self.prompt_tokens * self.passes * self.prompts

    @property
    def writing(self) -> int:
        """Tokens written by all variants, at most."""
        return self.new_tokens * self.variants * self.prompts


class Pace:
    """Seconds for a token read and for a token written.

    Least squares over the two rates, in which every request counts alike, long or short: each says
    (reading * x + writing * y) / seconds = 1. What was asked for counts, not what was written, since that is all that is known of a
    request that waits; so answers that end early make later estimates shorter.
    """

    def __init__(self):
        self._xx = self._xy = self._yy = self._x = self._y = 0.0

    def learn(self, work: Work, seconds: float) -> None:
        """A request that went to its end had the model for so many seconds."""
        seconds = max(seconds, _LEAST_SECONDS)
        reading, writing = work.reading / seconds, work.writing / seconds
        added = (reading**2, reading * writing, writing**2, reading, writing)
        known = (self._xx, self._xy, self._yy, self._x, self._y)
        self._xx, self._xy, self._yy, self._x, self._y = (_KEPT * old + new for old, new in zip(known, added, strict=True))

    def seconds(self, work: Work) -> float | None:
        """How long this will have the model; None while nothing was measured."""
        if not self._xx + self._yy:
            return None
        for_reading, for_writing = self._rates()
        return work.reading * for_reading + work.writing * for_writing

    def _rates(self) -> tuple[float, float]:
        """Neither is below 0: where one would be, all time is the other's."""
        xx, yy = self._xx + _RIDGE * (self._xx + self._yy), self._yy + _RIDGE * (self._xx + self._yy)
        determinant = xx * yy - self._xy**2
        for_reading = (self._x * yy - self._y * self._xy) / determinant
        for_writing = (self._y * xx - self._x * self._xy) / determinant
        if for_reading < 0:
            return 0.0, self._y / yy
        return (self._x / xx, 0.0) if for_writing < 0 else (for_reading, for_writing)


def spoken(seconds: float) -> str:
    """A time as people say it, rounded up: `5 seconds`, `40 seconds`, `3 minutes`."""
    if seconds > 90:
        return f"{-int(-seconds // 60)} minutes"
    step = 5 if seconds > 10 else 1
    whole = max(1, -int(-seconds // step) * step)
    return f"{whole} second{'s' if whole > 1 else ''}"
