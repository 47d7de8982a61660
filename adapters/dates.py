"""Keeps the date of the list that was last published from a source, and refuses an older one.

An older list takes newer corrections back and withdraws what is new; neither need be a mass that a guard would see.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from adapters.changes import RunRefusedError

TABLES = """
CREATE TABLE IF NOT EXISTS dates(source TEXT PRIMARY KEY, dated INTEGER NOT NULL);
"""


class OlderSourceError(RunRefusedError):
    """The source is older than what was last published from it, or no longer says how old it is."""

    code = "older-source"

    def __init__(self, source: str, dated: int | None, last: int) -> None:
        what = "does not say its date" if dated is None else f"is of {_when(dated)}"
        super().__init__(
            f"{source} {what}, and the one last published is of {_when(last)}: nothing was published; give the newest"
            " one, or, if this is the right one all the same, `accept_older=True`"
        )
        self.source, self.dated, self.last = source, dated, last


def keep(database: sqlite3.Connection, source: str, dated: int | None, *, accept_older: bool) -> None:
    """Keep a source's date (ms since 1970-01-01T00:00:00Z) in the caller's transaction.

    Raises OlderSourceError, for a source that had a date and has none now, too. What had none the last time is not
    asked, whether it never had one or was accepted without.
    """
    row = database.execute("SELECT dated FROM dates WHERE source = ?", (source,)).fetchone()
    if row and (dated is None or dated < row[0]) and not accept_older:
        raise OlderSourceError(source, dated, int(row[0]))
    if dated is None:  # the date of what is replaced is not that of what was published last
        database.execute("DELETE FROM dates WHERE source = ?", (source,))
    else:
        database.execute("INSERT OR REPLACE INTO dates VALUES (?, ?)", (source, dated))


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
