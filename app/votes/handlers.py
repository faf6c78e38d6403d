"""What happens with votes, without the page: a judgement goes in, a vote is kept; the tally comes out. Knows no gradio.

A vote is only taken for the run that a visitor's session ended with last: the page sends the id of the run that it shows, and the server
holds it against the run that it has itself. So an id that somebody made up, or one of another visitor, is refused.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from math import ceil
from threading import Lock
from types import MappingProxyType

from app.guard.address import Network
from app.ui.api_types import PairValue, VotesAnswer
from app.ui.checks import names, shown
from app.ui.loading import OnEngine
from app.ui.templates import render
from app.ui.variants import views_of
from app.votes.ballot import REASONS, Ballot, Vote
from app.votes.candidates import base_candidate, candidates
from app.votes.place import Kept
from app.votes.tally import Pair, tally
from bitune.errors import ConfigError

HOUR = 3600.0
BETTER, TIE, BAD = "better", "tie", "bad"
MANY = 40  # pairs that the page shows; /votes has all of them
COUNTING = MappingProxyType(
    {
        "one best of several": "a win against each of the others",
        "tie": "half a win for each",
        "all bad": "counted in votes, not in the win rate",
        "a third one better": "counted in votes, not in the win rate",
        "interval": "95 %, Wilson",
    }
)


class Hourly:
    """How often each visitor may do something in an hour. Visitors are in memory alone, and no longer than that hour."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        self.most, self._clock, self._lock = most, clock, Lock()
        self._taken: deque[tuple[float, str]] = deque()
        self._of: Counter[str] = Counter()

    def take(self, visitor: str) -> None:
        """Once more; ConfigError, which says for how long, where this visitor may not."""
        with self._lock:
            now = self._clock()
            while self._taken and self._taken[0][0] <= now - HOUR:
                _, before = self._taken.popleft()
                self._of[before] -= 1
                self._of += Counter()  # leaves out who is at zero
            if self._of[visitor] >= self.most:
                first = next(when for when, who in self._taken if who == visitor)
                minutes = ceil((first + HOUR - now) / 60)
                raise ConfigError(
                    f"{self.most} votes have come from your address in an hour, and no more are taken; vote again in {minutes} min."
                )
            self._taken.append((now, visitor))
            self._of[visitor] += 1


class Voting(OnEngine):
    """Votes on the answers of one engine, kept in one place."""

    def __init__(self, engine, kept: Kept, votes_per_hour: int, proxies: Sequence[Network] = ()):
        """`engine`: a bitune.Engine, or the Loading of one. `votes_per_hour`: of one visitor. `proxies`: in front of the page."""
        super().__init__(engine)
        self.kept, self.proxies = kept, proxies
        self._hourly = Hourly(votes_per_hour)
        self._counted: tuple[int, tuple[int, list[Pair]]] = (0, (0, []))  # the latest vote, and what was counted up to it

    def vote(self, ballot: Ballot | None, run: object, choice: object, reasons: object, texts: object, visitor: str) -> Vote:
        """Keep a vote, which is returned: it is on the disk then.

        Args:
            ballot: Of this session's latest run, from the server's own memory; None where there is nothing to judge.
            run: Id of the run that the page shows.
            choice: The place of the better answer as text, from "0"; `tie` or `bad`.
            reasons: Keys of REASONS.
            texts: Whether prompt and answers may be kept too; only True says so.
            visitor: Who votes, to limit how often; it is not kept.

        Raises:
            ConfigError: It is no vote, or voting is off.
            AlreadyVotedError, VotesError: As `VoteStore.add`.
        """
        if self.kept.store is None:
            raise ConfigError(self.kept.problem or "Voting is off on this page.")
        if ballot is None or ballot.run != run:
            raise ConfigError("These answers are not the latest ones of this page; press Run, and judge what comes.")
        verdict, place = chosen(choice, len(ballot.answers))
        why = names(reasons, "reasons")
        if unknown := [reason for reason in why if reason not in REASONS]:
            raise ConfigError(f"{shown(unknown[0])} is no reason that can be chosen here; take {', '.join(REASONS)}.")
        vote = Vote(
            run=ballot.run,
            day=datetime.now(UTC).date().isoformat(),
            base=base_candidate(self.engine),
            template=ballot.template,
            sampling=ballot.sampling,
            blind=ballot.blind,
            variants=candidates(self.engine, ballot),
            verdict=verdict,
            place=place,
            reasons=tuple(reason for reason in REASONS if reason in why),
            prompt=ballot.prompt if texts is True else None,
            answers=tuple(ballot.answers.values()) if texts is True else None,
        )
        self._hourly.take(visitor)
        self.kept.store.add(vote)
        return vote

    def pairs(self) -> tuple[int, list[Pair]]:
        """How many votes there are, and the pairs they are about: counted anew only where there is a new vote."""
        last = 0 if self.kept.store is None else self.kept.store.last_id()
        if last != self._counted[0]:
            counts = self.kept.store.counts()
            self._counted = last, (sum(count.votes for count in counts), tally(counts))
        return self._counted[1]

    def table(self) -> str:
        """The tally as HTML."""
        votes, pairs = self.pairs()
        engine = self.engine if self.loading.ready else None
        views = {} if engine is None else views_of(engine)
        several = len({pair.base for pair in pairs}) > 1
        return render("votes/table.html", votes=votes, pairs=pairs[:MANY], left=len(pairs[MANY:]), views=views, several=several)

    def votes(self) -> VotesAnswer:
        """How visitors of this page judged the answers of /compare: for each pair of variants how often each was the better one.

        Returns:
            `votes`, how many there are; `counting`, what ties and the like count; and `pairs`, the one with most votes first, each with
            base, names_hidden (whether the names were hidden until the vote), first, second (name, kind and fingerprint of a variant),
            votes, wins, losses, ties, all_bad, third_better, and win_rate of the first with low and high, its 95 % interval, or null.
        """
        votes, pairs = self.pairs()
        return {"votes": votes, "counting": dict(COUNTING), "pairs": [as_json(pair) for pair in pairs]}


def chosen(choice: object, columns: int) -> tuple[str, int | None]:
    """The verdict and, where it is `better`, the place of the better answer; ConfigError for what is no choice."""
    if choice in (TIE, BAD):
        return choice, None
    places = {str(place): place for place in range(columns)}
    if not isinstance(choice, str) or choice not in places:
        raise ConfigError("Nothing is chosen; choose the better answer, that they are about the same, or that all are bad.")
    return BETTER, places[choice]


def as_json(pair: Pair) -> PairValue:
    """A pair for programs."""
    rate = pair.win_rate
    return {
        "base": asdict(pair.base),
        "names_hidden": pair.blind,
        "first": asdict(pair.first),
        "second": asdict(pair.second),
        "votes": pair.votes,
        "wins": pair.wins,
        "losses": pair.losses,
        "ties": pair.ties,
        "all_bad": pair.bad,
        "third_better": pair.others,
        "win_rate": None if rate is None else {"mean": rate.mean, "low": rate.low, "high": rate.high},
    }
