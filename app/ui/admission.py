"""Who may run the model now, who waits, and who cannot be served: the one place that every request passes. Knows no Gradio and no model.

**All that are admitted run at once**, and take turns on the base (bitune/adapters/turns.py): so a long request never holds up a short
one that runs beside it, and `running` bounds the memory that their caches take.

**The line** is first come, first served, but a request stands behind those that come after it and are shorter, by as many seconds as it
is longer: its place is the time at which it came plus the time that it is expected to take. Shortest first alone would let a long request
wait for ever; but for the kept place, this lets nobody pass who comes more than its own length later. First come alone would let two
seconds wait for two minutes.

**One place is kept** for short requests where two or more may run, so at most one less than all that run are long: were all places taken
by long ones, turns among those would help nobody who waits outside.

**Estimates** come from what the requests before took (pace.py) and from playing through what is going to happen: who runs shares the
device equally, whoever ends lets the next one in.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from app.guard.address import Network
from app.limits import Limits
from app.ui.pace import Pace, Work, spoken
from bitune.errors import BituneError

FORECAST_SECONDS = 1.0
LONG_SECONDS = 10.0  # of the model: about as long as a person waits without wondering
NOT_KNOWN = "; nobody knows yet how long that takes, as nothing has run to its end here"


class Refused(BituneError):
    """A request that is not served now; its text says why and when to come back."""


class Ticket:
    """One request, from when it is asked to when it has left. Made by `Admission.enter`.

    Attributes:
        visitor: Whose it is.
        work: What it asks for; None until that is known, and while it is, it waits without a place in the line.
        admitted: Has a result as soon as it may run.
        seconds: For how long it has had the model: its share, where several run.
        goes_on: Whether more of it comes after what runs now.
        begun: Whether a part of it has run: the others wait for as long as it takes.
        busy: Whether a thread works for it: its place is free when that has ended.
    """

    def __init__(self, admission: "Admission", visitor: str, *, goes_on: bool = False):
        self._admission, self.visitor = admission, visitor
        self.goes_on, self.begun, self.busy = goes_on, False, False
        self.work: Work | None = None
        self.asked_at = self.wanted_at = self.key = admission.clock()
        self.seconds = 0.0
        self.admitted: Future[None] = Future()

    def want(self, work: Work) -> None:
        """Take a place in the line. Refused where the page does not allow so much, or the wait would be too long."""
        self._admission.want(self, work)

    def words(self) -> str:
        """Where it stands in the line, and how long that will be; Refused once it has waited as long as one may."""
        return self._admission.words(self)

    def over(self, *, ended: bool) -> None:
        """What ran of it has ended; where more comes, it may ask for that by `want`. `ended`: it ran to its end, so it tells how long such
        requests take."""
        self._admission.over(self, ended)

    def leave(self, *, ended: bool = False) -> None:
        """Nothing more of it comes; may be called again. While it is `busy`, it leaves when that is `over`. `ended`: as in `over`."""
        self._admission.leave(self, ended)


class Admission:
    """All requests of a page. Any thread may call anything here; nothing waits but for a lock.

    Attributes:
        limits: How many, how long, how much.
        proxies: Whose word is taken for where a request comes from, see app/guard/address.py.
        clock: Seconds, from any start.
        pace: What was measured.
        closed: Why nobody is let in any more; None while somebody may be.
    """

    def __init__(self, limits: Limits, proxies: Sequence[Network] = (), clock: Callable[[], float] = time.monotonic):
        self.limits, self.proxies, self.clock, self.pace = limits, proxies, clock, Pace()
        self._lock = threading.Lock()
        self._entered: list[Ticket] = []  # not running yet, whether their work is known or not
        self._running: list[Ticket] = []
        self.closed: str | None = None
        self._counted_at = self._foreseen_at = clock()
        self._foreseen: Mapping[Ticket, float] = {}  # by `_forecast_lately`; empty as soon as the line is another one

    def close(self, words: str) -> None:
        """Nobody is let in from now on, and who waits is refused with these words; what runs goes on."""
        self.closed = words

    def check_open(self) -> None:
        """Refused once nobody is let in any more."""
        if self.closed is not None:
            raise Refused(self.closed)

    def enter(self, visitor: str, *, goes_on: bool = False) -> Ticket:
        """A ticket for a new request, whose work may not be known yet.

        Args:
            visitor: A text that is the same for all requests of a visitor.
            goes_on: Whether it takes the line more than once, until it leaves. It counts as one request all the time, so what has begun is
                not refused half way because others came meanwhile.

        Raises:
            Refused: This visitor has as many requests here as one may have, or as many wait as may.
        """
        self.check_open()
        with self._lock:
            self._count()
            own = [ticket for ticket in (*self._running, *self._entered) if ticket.visitor == visitor]
            if len(own) >= self.limits.per_address:
                ends = [end for end in map(self._forecast(ends=True).get, own) if end is not None]
                raise Refused(
                    f"As many requests from your address run or wait here as one may have, {len(own)}; come back when one of them "
                    f"has ended{when(min(ends, default=None))}."
                )
            if len(self._entered) >= self.limits.waiting:
                raise Refused(f"As many requests wait here as may, {len(self._entered)}; {self._come_back()}.")
            ticket = Ticket(self, visitor, goes_on=goes_on)
            self._entered.append(ticket)
            return ticket

    def want(self, ticket: Ticket, work: Work) -> None:
        """See `Ticket.want`."""
        self.check_open()
        self._check_size(work)
        with self._lock:
            self._count()
            ticket.work, ticket.wanted_at = work, self.clock()  # the time before went into loading the model, say
            ticket.key = ticket.asked_at + (self.pace.seconds(work) or 0.0)
            start = self._forecast().get(ticket)
            if not ticket.begun and start is not None and start > self.limits.seconds_waiting:
                ticket.work = None
                room = start - self.limits.seconds_waiting
                raise Refused(
                    f"This would wait for {spoken(start)}, and nothing waits here for more than "
                    f"{spoken(self.limits.seconds_waiting)}; come back when the line is shorter{when(room)}."
                )
            self._admit()

    def words(self, ticket: Ticket) -> str:
        """See `Ticket.words`."""
        self.check_open()
        with self._lock:
            self._count()
            if not ticket.begun and self.clock() - ticket.wanted_at > self.limits.seconds_waiting:
                raise Refused(
                    f"This has waited for {spoken(self.limits.seconds_waiting)}, as long as anything waits here; {self._come_back()}."
                )
            line = self._line()
            place = line.index(ticket) + 1 if ticket in line else len(line) + 1
            start = self._forecast_lately().get(ticket)
            return (
                f"Others come first: this is number {place} of {max(len(line), place)} in the line{when(start, 'it starts in')}."
            )

    def over(self, ticket: Ticket, ended: bool) -> None:
        """See `Ticket.over`."""
        with self._lock:
            ticket.busy = False
            self._take_out(ticket, ended)
            if ticket.goes_on:
                ticket.begun = ticket.begun or ticket.work is not None
                ticket.work, ticket.seconds, ticket.admitted, ticket.asked_at = None, 0.0, Future(), self.clock()
                self._entered.append(ticket)
            self._admit()

    def leave(self, ticket: Ticket, ended: bool) -> None:
        """See `Ticket.leave`."""
        with self._lock:
            ticket.goes_on = False
            if not ticket.busy:
                self._take_out(ticket, ended)
                self._admit()

    @property
    def counts(self) -> tuple[int, int]:
        """How many run, and how many wait."""
        with self._lock:
            return len(self._running), len(self._entered)

    def _take_out(self, ticket: Ticket, ended: bool) -> None:
        """It neither runs nor waits any more. Needs the lock."""
        self._count()
        if ticket in self._entered:
            self._entered.remove(ticket)
        if ticket in self._running:
            self._running.remove(ticket)
            if ended:
                self.pace.learn(ticket.work, ticket.seconds)

    def _check_size(self, work: Work) -> None:
        """Refused for more than one request may ask for."""
        asked = {"prompt_tokens": work.prompt_tokens, "new_tokens": work.new_tokens, "variants": work.variants}
        words = {"prompt_tokens": "tokens to read", "new_tokens": "new tokens", "variants": "variants at once"}
        for name, number in asked.items():
            most = vars(self.limits)[name]
            if number > most:
                raise Refused(f"This asks for {number:,} {words[name]}; this page allows at most {most:,}, so ask for fewer.")

    def _line(self) -> list[Ticket]:
        return sorted((ticket for ticket in self._entered if ticket.work is not None), key=lambda ticket: ticket.key)

    def _admit(self) -> None:
        """Let in whoever may run. Needs the lock."""
        if self.closed is not None:
            return
        line, self._foreseen = self._line(), {}
        seconds = self._seconds([*self._running, *line])
        while (ticket := self._next(self._running, line, seconds)) is not None:
            line.remove(ticket)
            self._entered.remove(ticket)
            self._running.append(ticket)
            ticket.admitted.set_result(None)

    def _next(self, running: Collection[Ticket], line: Sequence[Ticket], seconds: Mapping[Ticket, float | None]) -> Ticket | None:
        """Who would be let in beside those that run: the first in the line, a long one only where enough places are left for short ones."""
        if len(running) >= self.limits.running:
            return None
        long = {ticket for ticket in (*running, *line) if (seconds[ticket] or 0.0) > LONG_SECONDS}
        for_long = len(long.intersection(running)) < max(1, self.limits.running - 1)
        return next((ticket for ticket in line if for_long or ticket not in long), None)

    def _seconds(self, tickets: Sequence[Ticket]) -> dict[Ticket, float | None]:
        """How long each will have the model in all; None where that is not known."""
        return {ticket: self.pace.seconds(ticket.work) for ticket in tickets}

    def _count(self) -> None:
        """Share the time since the last look among those that ran. Needs the lock."""
        now = self.clock()
        for ticket in self._running:
            ticket.seconds += (now - self._counted_at) / len(self._running)
        self._counted_at = now

    def _forecast(self, *, ends: bool = False) -> Mapping[Ticket, float]:
        """In how many seconds everybody in the line will be let in, or else everybody will have ended; empty where that is not known."""
        line = self._line()
        seconds = self._seconds([*self._running, *line])
        if None in seconds.values():
            return {}
        left = {ticket: max(seconds[ticket] - ticket.seconds, 0.0) for ticket in self._running}
        now, starts, over = 0.0, {}, {}
        while left or line:
            while (ticket := self._next(left, line, seconds)) is not None:
                line.remove(ticket)
                left[ticket], starts[ticket] = seconds[ticket], now
            first = min(left, key=left.get)
            share = left.pop(first)
            now += share * (len(left) + 1)
            left, over[first] = {ticket: rest - share for ticket, rest in left.items()}, now
        return over if ends else starts

    def _forecast_lately(self) -> Mapping[Ticket, float]:
        """The same for those who wait, made anew once a second and not for each of them. Needs the lock."""
        now = self.clock()
        if not self._foreseen or now - self._foreseen_at >= FORECAST_SECONDS:
            self._foreseen, self._foreseen_at = self._forecast(), now
        return {ticket: max(start - (now - self._foreseen_at), 0.0) for ticket, start in self._foreseen.items()}

    def _come_back(self) -> str:
        """When there will be a place in the line."""
        starts = self._forecast().values()
        return f"come back when there is room again{when(min(starts, default=None))}"


def when(seconds: float | None, words: str = "that is in") -> str:
    """The end of a sentence: `, that is in about 40 seconds`."""
    return NOT_KNOWN if seconds is None else f", {words} about {spoken(seconds)}"
