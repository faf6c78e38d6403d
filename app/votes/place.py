"""Where votes are kept on this machine, or why they are not."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.votes.store import VotesError, VoteStore
from bitune.errors import ConfigError

OFF = "off"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """The votes of a page. `problem`: why there is no store, in a sentence without a path; "" where nobody wants one."""

    store: VoteStore | None
    problem: str = ""


NOWHERE = Kept(None)


def votes_file(named: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The file that a person named; where that is "", `bitune/votes.sqlite3` in $XDG_DATA_HOME or ~/.local/share.

    Raises:
        ConfigError: Nobody named one, and there is no home folder.
    """
    try:
        if named:
            return Path(named).expanduser()
        data = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:  # no home folder
        raise ConfigError("Votes have no place here, as there is no home folder; name a file with --votes.") from error
    return Path(data) / "bitune" / "votes.sqlite3"


def kept_in(named: str, dataset: str = "") -> Kept:
    """The store in the file that `votes_file` says, or why there is none: without votes the page goes on. The log names the file.

    Args:
        named: A file, "" for the default one, or `off`.
        dataset: Hub data set that gets the votes too; "" for none.
    """
    if named == OFF:
        return NOWHERE
    try:
        file = votes_file(named)
        store = VoteStore(file)
    except VotesError as error:
        log.warning("Voting is off. %s (%s)", error, file)
        return Kept(None, f"Voting is off: {error.failure.cause}.")
    except ConfigError as error:
        log.warning("Voting is off. %s", error)
        return Kept(None, "Voting is off: votes have no place here.")
    if dataset:
        from app.votes.hub import send  # imports the Hub's client, which a page without a data set need not wait for

        send(store, dataset)
    return Kept(store)
