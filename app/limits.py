"""What one visitor, and all of them together, may take of the machine: a table of limits, each with its flag and its variable."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bitune.errors import ConfigError


def limit(default: int, words: str) -> Any:
    """A field of `Limits`: its value where nobody chose one, and what it counts, for --help."""
    return field(default=default, metadata={"words": words})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits with which a free Space (2 CPU cores, 16 GB) stays up. `waiting` is --waiting on the command line and BITUNE_WAITING
    in the environment, and so is every field."""

    running: int = limit(3, "requests that may run the model at once, in turns; of two or more places one is kept for short ones")
    waiting: int = limit(32, "requests that may wait for it")
    seconds_waiting: int = limit(300, "seconds that a request may wait")
    per_address: int = limit(4, "requests of one address that may run or wait at once")
    new_tokens: int = limit(512, "tokens that a request may have written by each variant")
    variants: int = limit(12, "variants that a request may compare, what-ifs included")
    prompt_tokens: int = limit(2048, "tokens that a prompt may have")
    set_prompts: int = limit(200, "prompts that a set may have, each counted once for every answer that a variant gives to it")
    loaded_checkpoints: int = limit(12, "checkpoints that may be loaded at once, where that is done from the page")
    body_bytes: int = limit(2_000_000, "bytes that the body of an HTTP request may have")
    body_levels: int = limit(16, "levels of lists and objects in the JSON of a body")
    body_values: int = limit(20_000, "values in the JSON of a body")
    seconds_body: int = limit(20, "seconds in which a body has to arrive")
    connections: int = limit(64, "requests over HTTP of one address that may be open at once, streams to its pages included")
    sessions: int = limit(200, "opened pages whose state is kept; of more, the one unused for longest is forgotten")
    votes_per_hour: int = limit(60, "votes that one address may give in an hour")

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if value < 1:
                raise ConfigError(f"{flag(each.name)} is {value}; it must be 1 or more: {each.metadata['words']}.")

    @classmethod
    def from_flags(cls, flags: argparse.Namespace) -> "Limits":
        """What `add_flags` made the parser read."""
        return cls(**{each.name: getattr(flags, each.name) for each in fields(cls)})


def flag(name: str) -> str:
    """seconds_waiting -> --seconds-waiting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """seconds_waiting -> BITUNE_SECONDS_WAITING."""
    return "BITUNE_" + name.upper()


def add_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """A flag for every limit, whose default is its variable in the environment, else the one above."""
    group = parser.add_argument_group(
        "limits", "Each also as a variable of the environment: --per-address is BITUNE_PER_ADDRESS."
    )
    for each in fields(Limits):
        words = f"{each.metadata['words']} (default: {each.default})"
        default = environment.get(variable(each.name), each.default)
        group.add_argument(flag(each.name), type=int, default=default, metavar="N", help=words)
