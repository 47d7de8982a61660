"""Writes a SQLite file in transactions that keep all or nothing, and says when another process keeps it.

Two owners may have one home for a while: one that was stopped inside a transaction keeps the file, and its successor
waits for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.errors import UnavailableError

WAIT_S = 5
"""How long a file of the operator's home that another process keeps is waited for."""


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
def answering(refusal: str = "a file of this home cannot be written now") -> Iterator[None]:
    """Turn what SQLite says of a file that is locked, full or out of reach into UnavailableError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"{refusal}: {error}") from error
