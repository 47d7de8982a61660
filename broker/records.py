"""The decision records behind the leaves, in one SQLite file.

Kept as long as the trail, for auditors and the issuer. The file is filled from the `trail` stream in the order of the
leaves, without gaps, and can be filled again from it as long as that stream reaches back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from broker.errors import TrailError
from broker.notice import Entry

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS decision (
    leaf_number INTEGER PRIMARY KEY, salt BLOB NOT NULL, record BLOB NOT NULL
);
"""
# CAST: whatever a hand on the file made of them, records are compared with their leaf as bytes.
_GET = "SELECT CAST(salt AS BLOB), CAST(record AS BLOB) FROM decision WHERE leaf_number = ?"
_PAGE = """
SELECT leaf_number, CAST(salt AS BLOB), CAST(record AS BLOB) FROM decision
WHERE leaf_number >= ? ORDER BY leaf_number LIMIT 256
"""
# NORMAL: a power cut may take the last records, never one from the middle; `Sealer.recover` reads them again.


class Records:
    """Salt and decision record of every leaf. `add` may run in another thread than `get`."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file, once nobody is reading it."""
        with self._lock:
            self._database.close()

    @property
    def size(self) -> int:
        """How many leaves have their record here."""
        with self._lock:
            (highest,) = self._database.execute("SELECT max(leaf_number) FROM decision").fetchone()
        return 0 if highest is None else int(highest) + 1

    def add(self, entries: Sequence[Entry]) -> None:
        """Add the records of leaves in order; those that are there stay. Raises TrailError if one would be missing."""
        size = self.size
        new = [(each.leaf_number, each.decision_salt, each.decision) for each in entries if each.leaf_number >= size]
        if [each[0] for each in new] != list(range(size, size + len(new))):
            message = f"the decision records end at leaf {size}; leaf {new[0][0]} does not follow"
            raise TrailError(message)
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR IGNORE INTO decision VALUES (?, ?, ?)", new)
            self._database.execute("COMMIT")

    def get(self, leaf_number: int) -> tuple[bytes, bytes] | None:
        """Give salt and decision record of a leaf, or None."""
        with self._lock:
            found = self._database.execute(_GET, (leaf_number,)).fetchone()
        return (found[0], found[1]) if found else None

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream (leaf number, salt, record) from `begin` on."""
        while page := self.page(begin):
            yield from page
            begin = page[-1][0] + 1

    def page(self, begin: int) -> list[tuple[int, bytes, bytes]]:
        """Give the next of these, at most 256; none at the end."""
        with self._lock:
            return self._database.execute(_PAGE, (begin,)).fetchall()
