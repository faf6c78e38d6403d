"""The file of votes: SQLite, to which any number of processes write. A vote is on the disk when `add` returns.

Every call opens the file anew: that takes a tenth of a millisecond, and no connection crosses a thread or a fork.

Why a rollback journal and not WAL: votes are rare, so nobody waits for a writer; all of them are in one file, which can be copied; and
it works on the network disks of a Space or of several replicas, where WAL does not. `synchronous=EXTRA` makes SQLite also sync the
folder after it has deleted the journal, without which the last vote before a power cut could be rolled back
(https://sqlite.org/pragma.html#pragma_synchronous).
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from app.votes.ballot import Candidate, Count, Vote
from bitune.errors import BituneError, Failure, disk_failure

SCHEMA = 1
BUSY_SECONDS = 20.0  # for others that write a vote, which takes milliseconds: SQLite lets them in at random, not in turn
PAGE = 500  # votes that are read at a time, so that no writer waits for a slow reader

TABLE = """CREATE TABLE votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    day TEXT NOT NULL,
    base TEXT NOT NULL,
    template TEXT NOT NULL,
    sampling TEXT NOT NULL,
    blind INTEGER NOT NULL,
    variants TEXT NOT NULL,
    verdict TEXT NOT NULL,
    place INTEGER,
    reasons TEXT NOT NULL,
    prompt TEXT,
    answers TEXT
) STRICT"""
# Which file of votes this is, for whoever gathers those of several.
NAME_TABLE = "CREATE TABLE this_file (id TEXT NOT NULL) STRICT"
COLUMNS = ("run", "day", "base", "template", "sampling", "blind", "variants", "verdict", "place", "reasons", "prompt", "answers")
PLAIN = ("run", "day", "template", "verdict", "place", "prompt")  # the others but `blind` are JSON
OUTCOME = "base, blind, variants, verdict, place"

# By SQLite's primary result code. What is not here passes under its own name.
_KNOWN = {
    sqlite3.SQLITE_FULL: Failure("the disk is full", "free some space"),
    sqlite3.SQLITE_READONLY: Failure("the file or its folder is read-only", "change the permissions, or name another file"),
    sqlite3.SQLITE_PERM: Failure("permission denied", "change the permissions, or name another file"),
    sqlite3.SQLITE_CANTOPEN: Failure("the file cannot be opened", "change the permissions, or name another file"),
    sqlite3.SQLITE_BUSY: Failure(f"another program has held the file for {BUSY_SECONDS:.0f} s", "try again"),
    sqlite3.SQLITE_LOCKED: Failure("another program holds the file", "try again"),
    sqlite3.SQLITE_IOERR: Failure("the disk failed to read or write", "check the disk"),
    sqlite3.SQLITE_CORRUPT: Failure("the file is damaged", "move it away, and keep it: much of it can be recovered"),
    sqlite3.SQLITE_NOTADB: Failure("the file is no SQLite database", "name another file"),
}


class VotesError(BituneError):
    """Votes cannot be kept or read. Its text names no path, as visitors may see it."""

    def __init__(self, what: str, failure: Failure):
        """`what`: the beginning of the sentence."""
        self.failure = failure
        super().__init__(f"{what}: {failure.cause}; {failure.remedy}.")


class AlreadyVotedError(BituneError):
    """The run has its vote."""


class VoteStore:
    """The votes in one file."""

    def __init__(self, file: Path):
        """Make the file and its folder as far as they are not there, and prove that it can be written.

        Raises:
            VotesError: It cannot, is damaged, is something else, or was written by a newer version.
        """
        self.file = file
        with _known("Votes cannot be kept"):
            file.parent.mkdir(parents=True, exist_ok=True)
            with self._open("rwc") as connection, _transaction(connection):
                self._prepare(connection)

    @classmethod
    def reading(cls, file: Path) -> "VoteStore":
        """The votes of a file that is there, perhaps on a read-only disk; nothing is written. VotesError as above."""
        store = cls.__new__(cls)
        store.file = file
        with _known("Votes cannot be read"), store._open() as connection:
            check_schema(connection)
        return store

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Of processes that start at once the first one makes the table. Setting the version is the proof that it can be written."""
        if check_schema(connection, new=True) == 0:
            connection.execute(TABLE)
            connection.execute(NAME_TABLE)
            connection.execute("INSERT INTO this_file VALUES (?)", [uuid4().hex])
        connection.execute(f"PRAGMA user_version = {SCHEMA}")

    @contextmanager
    def _open(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        address = f"{self.file.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            yield connection

    def add(self, vote: Vote) -> None:
        """Keep a vote: it is on the disk when this returns.

        Raises:
            AlreadyVotedError: The run has a vote.
            VotesError: The disk or another program is in the way; then no part of it is kept.
        """
        values = [_stored(name, value) for name, value in asdict(vote).items()]
        insert = f"INSERT INTO votes ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
        try:
            with _known("The vote could not be kept"), self._open() as connection, _transaction(connection):
                connection.execute(insert, values)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise
            raise AlreadyVotedError("This run has been judged already; press Run for another one.") from error

    def counts(self) -> list[Count]:
        """How many votes of each kind there are."""
        query = f"SELECT {OUTCOME}, count(*) FROM votes GROUP BY {OUTCOME}"
        with _known("Votes cannot be read"), self._open() as connection:
            rows = connection.execute(query).fetchall()
        return [
            Count(Candidate(**json.loads(base)), bool(blind), _candidates(variants), verdict, place, votes)
            for base, blind, variants, verdict, place, votes in rows
        ]

    def id(self) -> str:
        """Which file this is: unlike that of any other file, wherever it is moved."""
        with _known("Votes cannot be read"), self._open() as connection:
            return connection.execute("SELECT id FROM this_file").fetchone()[0]

    def last_id(self) -> int:
        """The number of the latest vote, 0 where there is none."""
        with _known("Votes cannot be read"), self._open() as connection:
            return connection.execute("SELECT coalesce(max(id), 0) FROM votes").fetchone()[0]

    def votes(self) -> Iterator[Vote]:
        """All votes, the oldest first."""
        query, after = f"SELECT id, {', '.join(COLUMNS)} FROM votes WHERE id > ? ORDER BY id LIMIT {PAGE}", 0
        while True:
            with _known("Votes cannot be read"), self._open() as connection:
                rows = connection.execute(query, [after]).fetchall()
            for _, *values in rows:
                yield _vote(dict(zip(COLUMNS, values, strict=True)))
            if len(rows) < PAGE:
                return
            after = rows[-1][0]


def check_schema(connection: sqlite3.Connection, new: bool = False) -> int:
    """The version of the schema, 0 for a file without any where it may be `new`; VotesError for a newer one or another database."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version > SCHEMA:
        newer = f"the file has schema {version} of a newer version, and this one knows {SCHEMA}"
        raise VotesError("Votes cannot be kept", Failure(newer, "update the program, or name another file"))
    columns = {row[1] for row in connection.execute("PRAGMA table_info(votes)")}
    if (version == 0 and (tables or not new)) or version < 0 or (version and columns != {"id", *COLUMNS}):
        raise VotesError("Votes cannot be kept", Failure("the file is a database of something else", "name another file"))
    return version


def _stored(name: str, value: object) -> object:
    if name == "blind":
        return int(value)
    return value if name in PLAIN or value is None else json.dumps(value, sort_keys=True)


def _candidates(stored: str) -> tuple[Candidate, ...]:
    return tuple(Candidate(**each) for each in json.loads(stored))


def _vote(row: dict) -> Vote:
    read = {
        name: value if name in PLAIN or value is None else json.loads(value) for name, value in row.items() if name != "blind"
    }
    candidates = {"base": Candidate(**read["base"]), "variants": _candidates(row["variants"])}
    answers = None if read["answers"] is None else tuple(read["answers"])
    return Vote(**{**read, **candidates, "blind": bool(row["blind"]), "reasons": tuple(read["reasons"]), "answers": answers})


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE: who writes waits for other writers at its beginning, where SQLite can wait, and not in the middle."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _known(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise VotesError(what, _failure(error)) from error
    except sqlite3.DatabaseError as error:  # damaged, or no database: the class itself, none of its subclasses
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise VotesError(what, _failure(error)) from error
    except OSError as error:
        raise VotesError(what, disk_failure(OSError(error.errno, error.strerror))) from error  # without the path


def _failure(error: sqlite3.Error) -> Failure:
    """The known cause of what SQLite reports; another one is raised as it is."""
    failure = _KNOWN.get(error.sqlite_errorcode & 0xFF)  # the higher bits say more than a person needs
    if failure is None:
        raise error
    return failure
