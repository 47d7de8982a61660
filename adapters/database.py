"""Opens the SQLite files of a member's home."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from broker import durable, writing
from broker.errors import ConfigurationError, UnavailableError
from broker.writing import AWAY, keep_private, log_ahead

QUEUED = "queued INTEGER NOT NULL DEFAULT 0"
"""Column of what waits to be sent: how often it was queued anew.

Who has sent it marks it only where that is as it was when it was read: another process may have sent it too, heard of
its rejection and queued it anew meanwhile, the same bytes.
"""

WAIT_S = 30.0
"""How long a file that another process keeps is waited for."""


@contextmanager
def answering() -> Iterator[None]:
    """Turn what SQLite says of a file that another process keeps, or that has no room, into UnavailableError.

    What no time mends, a damaged file or one that is not ours to write, passes as it is.
    """
    with writing.answering(
        "a file of this home cannot be used now; another process may keep it, or its disk is full", AWAY
    ):
        yield


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Keep what the block writes if it ends well, nothing of it otherwise. Raises UnavailableError as `answering`."""
    with answering(), writing.transaction(database):
        yield


def connect(path: Path, tables: str, known: int, wait: float = WAIT_S) -> sqlite3.Connection:
    """Open a file that survives kill -9 and forgets what is erased, and make its tables if they are missing.

    Every commit is on disk when it returns; only its owner may read the file. `known`: the highest `user_version` that
    is understood here. `wait`: for how many seconds another process that keeps it is waited for, now and in each
    transaction. Raises UnavailableError; ConfigurationError, with nothing written, for a file of a later version.
    """
    durable.make_lasting(path.parent)
    keep_private(path)
    with answering(), ExitStack() as stack:
        database = sqlite3.connect(path, isolation_level=None, timeout=wait, check_same_thread=False)
        stack.callback(database.close)
        _check_known(database, path, known)
        database.row_factory = sqlite3.Row
        log_ahead(database)
        for pragma in ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
            database.execute(f"PRAGMA {pragma}")
        database.executescript(tables)
        stack.pop_all()
        return database


def version_of(database: sqlite3.Connection) -> int:
    """Tell which version of its tables a file has, 0 where it never was told."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _check_known(database: sqlite3.Connection, path: Path, known: int) -> None:
    """Check that no later Valise brought the file up: what that notes in it would be passed over here, and undone."""
    if (version := version_of(database)) > known:
        message = (
            f"{path} was written by a later version of Valise (the file is of version {version}, this one knows up to "
            f"{known}): install that version again and run this command with it. Nothing was written"
        )
        raise ConfigurationError(message)


def count_queued(database: sqlite3.Connection, table: str) -> None:
    """Give a table of a file of before its column QUEUED."""
    add_column(database, table, QUEUED)


def add_column(database: sqlite3.Connection, table: str, column: str) -> None:
    """Give a table of a file of before a column, written as a table's definition has it."""
    there = f"SELECT 1 FROM pragma_table_info('{table}') WHERE name = ?"  # noqa: S608 -- ours
    name, *_ = column.split()
    if not database.execute(there, (name,)).fetchone():
        with transaction(database):  # of two processes the second finds it there
            if not database.execute(there, (name,)).fetchone():
                database.execute(f"ALTER TABLE {table} ADD COLUMN {column}")


def check_went(before: Sequence[tuple[int, int]], waiting: Sequence[tuple[int, int]]) -> None:
    """Check that what went is not what waits next, as often queued: it never would be marked.

    Two processes that sign with different keys, one of them older than the key, put their own bytes in the place of the
    other's. Raises UnavailableError.
    """
    if waiting and before == waiting:
        message = (
            "another process signs with another key what waits to be sent here: end the one that was started before "
            "the bureau's key changed, or try again"
        )
        raise UnavailableError(message)


def forget_body(database: sqlite3.Connection, digest: bytes) -> None:
    """Erase the compartments of a notice in an outbox: what is decided is not sent again."""
    database.execute("UPDATE envelopes SET compartments = NULL WHERE header_digest = ?", (digest,))


def forget(database: sqlite3.Connection) -> None:
    """Empty the write-ahead log, so that what was erased is in no file any more.

    Another process that reads at this moment may keep pages until it ends; the next call takes them.
    """
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
