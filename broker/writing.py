"""Writes a SQLite file of the operator's home in transactions that keep all or nothing.

Two owners may have one home for a while: one that was stopped inside a transaction keeps the file, and its successor
waits for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from broker.errors import UnavailableError

WAIT_S = 5
"""How long a file that another process keeps is waited for."""


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Keep what the block writes if it ends well.

    Raises UnavailableError if the file is locked, full or out of reach: nothing was kept, try the same again.
    """
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("COMMIT")
    except BaseException as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise UnavailableError(f"a file of this home cannot be written now: {error}") from error
        raise
