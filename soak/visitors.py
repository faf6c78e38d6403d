"""Visitors that ask Compare, Attention and Mixing in turn, each with a marker of its own in its prompts, and check what comes back."""

import asyncio
import json
import math
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from soak.client import call

MARKER = re.compile(r"marker(\d+)x")
# Between 1 and the next number in bfloat16, in which the app may run: a request among others is computed in another order than alone.
ROUNDING = 2**-7
MOST_SECONDS = 300  # for a request, its time in the line included
ENDPOINTS = ("compare", "attention", "mixing")
QUESTIONS = ("Which planet is closest to the Sun?", "What do bees make?", "Name a fruit that is yellow.", "Why is the sky blue?")


@dataclass
class Tally:
    """What came of all requests.

    Attributes:
        answered: Requests by endpoint that were answered.
        refused: Sentences of those that were not, by how often.
        unanswered: Requests of which nothing came.
        mixed_up: Replies that hold somebody else's marker, or lack their own, or differ from the same request's earlier reply.
        seconds: Of the answered ones.
    """

    answered: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.answered.total() + self.refused.total() + len(self.unanswered)

    def figures(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "requests": self.requests,
            "answered": dict(self.answered),
            "refused": self.refused.total(),
            "sentences of refusals": [_without_numbers(words) for words, _ in self.refused.most_common(5)],
            "unanswered": len(self.unanswered),
            "mixed up": len(self.mixed_up),
            "problems": (self.unanswered + self.mixed_up)[:5],
            "median seconds": round(statistics.median(self.seconds), 1) if self.seconds else None,
            "longest seconds": round(max(self.seconds), 1) if self.seconds else None,
        }


class Visitor:
    """One of many. Asks the same few things again and again, so that any two replies to the same request can be held together."""

    def __init__(self, number: int, client: httpx.AsyncClient, tally: Tally, tokens: int):
        self.number, self.client, self.tally, self.tokens = number, client, tally, tokens
        self.random = random.Random(number)
        self._earlier: dict[str, dict] = {}

    def request(self) -> tuple[str, dict]:
        """An endpoint and its arguments."""
        endpoint = self.random.choice(ENDPOINTS)
        prompt = f"marker{self.number}x {self.random.choice(QUESTIONS)}"
        if endpoint == "compare":
            return endpoint, {"prompt": prompt, "max_new_tokens": self.random.choice((2, self.tokens))}
        if endpoint == "attention":
            return endpoint, {"prompt": prompt, "variant": "base", "layer": 0, "head": 0}
        return endpoint, {"prompt": prompt}

    async def ask(self) -> None:
        """One request, into the tally."""
        endpoint, arguments = self.request()
        reply = await call(self.client, endpoint, arguments, MOST_SECONDS)
        if reply.value is not None:
            self.tally.answered[endpoint] += 1
            self.tally.seconds.append(reply.seconds)
            self._check(endpoint, arguments, reply.value)
        elif reply.answered:
            self.tally.refused[_without_numbers(reply.words)] += 1
        else:
            self.tally.unanswered.append(f"{endpoint}: {reply.words}")

    def _check(self, endpoint: str, arguments: dict, value: dict) -> None:
        """The reply must be about the visitor's own prompt, and be the same each time: greedy answers and maps are."""
        text = "".join(value["tokens"]) if endpoint == "attention" else json.dumps(value.get("prompts", ""))
        found = set(map(int, MARKER.findall(text)))
        if endpoint != "mixing" and found != {self.number}:
            self.tally.mixed_up.append(f"visitor {self.number} has {sorted(found)} in its {endpoint}")
        earlier = self._earlier.setdefault(json.dumps([endpoint, arguments]), value)
        if not _alike(endpoint, value, earlier):
            self.tally.mixed_up.append(f"visitor {self.number} has another {endpoint} than before")


def _alike(endpoint: str, one: dict, other: dict) -> bool:
    """What of two replies to the same request may not differ: texts, tokens, and numbers by more than rounding."""
    if endpoint == "compare":
        return _texts(one) == _texts(other)
    if endpoint == "attention":
        return one["tokens"] == other["tokens"]
    return all(
        math.isclose(moved, before, abs_tol=ROUNDING)
        for name in one
        for moved, before in zip(one[name]["moved_keys"] or (), other[name]["moved_keys"] or (), strict=True)
    )


def _texts(value: dict) -> dict[str, str]:
    return {name: completion["text"] for name, completion in value["completions"].items()}


def _without_numbers(words: str) -> str:
    return re.sub(r"\d[\d,.]*", "N", words)[:200]


def client_of(url: str, number: int) -> httpx.AsyncClient:
    """Of a visitor with an address of its own, since the page counts what each address asks: all of 127/8 is this machine."""
    address = f"127.0.{1 + number // 250}.{1 + number % 250}"
    return httpx.AsyncClient(base_url=url, transport=httpx.AsyncHTTPTransport(local_address=address))


async def visit(url: str, visitors: int, *, seconds: float, tokens: int, pause: float) -> Tally:
    """Visitors who stay for a time, all at once: each asks, looks at the reply for at most `pause` seconds, and asks again."""
    tally, end = Tally(), time.monotonic() + seconds

    async def stay(number: int) -> None:
        async with client_of(url, number) as client:
            visitor = Visitor(number, client, tally, tokens)
            while time.monotonic() < end:
                await visitor.ask()
                await asyncio.sleep(pause * visitor.random.random())

    await asyncio.gather(*(stay(number) for number in range(visitors)))
    return tally


async def ask_often(url: str, requests: int, *, tokens: int, at_once: int, after_each: Callable[[int], None]) -> Tally:
    """So many requests by visitors who do not pause.

    Args:
        at_once: How many visitors.
        after_each: Gets the number of requests that have ended.
    """
    tally = Tally()

    async def stay(number: int) -> None:
        async with client_of(url, number) as client:
            visitor = Visitor(number, client, tally, tokens)
            while tally.requests < requests:
                await visitor.ask()
                after_each(tally.requests)

    await asyncio.gather(*(stay(number) for number in range(at_once)))
    return tally
