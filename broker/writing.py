"""Writes a SQLite file in transactions that keep all or nothing, and says when another process keeps it.

Two owners may have one home for a while: one that was stopped inside a transaction keeps the file, and its successor
waits for it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.errors import UnavailableError
from broker.reading import code_of

WAIT_S = 5
"""How long a file of the operator's home that another process keeps is waited for."""

AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""What SQLite says of a file that may be one of ours and cannot be used now."""
_AGAIN_S = 0.01


def log_ahead(database: sqlite3.Connection) -> None:
    """Have a file keep a write-ahead log, waiting for another process that makes it as long as for any other lock.

    SQLite itself does not wait here where the other is already writing.
    """
    (wait_ms,) = database.execute("PRAGMA busy_timeout").fetchone()
    end = time.monotonic() + wait_ms / 1000
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


def keep_private(database: Path) -> None:
    """Make a database's file before SQLite does, or see to it that one of before is such: for its owner alone.

    SQLite gives what it makes beside it the same mode.
    """
    if not database.exists():  # never opened here where it is there: to close it gives up SQLite's locks
        database.touch(mode=0o600)
    for each in (database, *(database.with_name(f"{database.name}{beside}") for beside in ("-wal", "-shm"))):
        with suppress(FileNotFoundError):
            if each.stat().st_mode & 0o077:
                each.chmod(0o600)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Keep what the block writes if it ends well, nothing of it otherwise."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        take_back(database)
        raise


def take_back(database: sqlite3.Connection) -> None:
    """Keep nothing of the open transaction; SQLite has ended it by itself where the disk is full."""
    if database.in_transaction:
        database.execute("ROLLBACK")


@contextmanager
def answering(
    refusal: str = "a file of this home cannot be written now", only: Container[int] | None = None
) -> Iterator[None]:
    """Turn what SQLite says of a file that is locked, full or out of reach into UnavailableError.

    With `only` (codes as of `code_of`) anything else passes as it is.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if only is not None and code_of(error) not in only:
            raise
        raise UnavailableError(f"{refusal}: {error}") from error
