"""Writes a SQLite file in transactions that keep all or nothing, and says when another process keeps it.

Two owners may have one home for a while: one that was stopped inside a transaction keeps the file, and its successor
waits for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from broker.errors import UnavailableError

WAIT_S = 5
"""How long a file of the operator's home that another process keeps is waited for."""


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Keep what the block writes if it ends well, nothing of it otherwise."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@contextmanager
def answering(refusal: str = "a file of this home cannot be written now") -> Iterator[None]:
    """Turn what SQLite says of a file that is locked, full or out of reach into UnavailableError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"{refusal}: {error}") from error
